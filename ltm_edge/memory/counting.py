"""Counters of accepted turns per archetype and per chain.

They are read from the turns themselves, which go when their scene is forgotten, so that no counter can drift. A chain
is what predecessor links join, and the versions of an edited scene; its number is that of its first scene.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ltm_edge.memory.records import SCENE, StoredScene
from ltm_edge.memory.store import SceneStore
from ltm_edge.scene.record import split_names

__all__ = [
    "ArchetypeCount",
    "ChainCount",
    "Counters",
    "Turn",
    "move_turns",
    "problems",
    "split_chains",
    "store_turn",
    "turns_of",
]

Turn = tuple[int, float | None]
"""When a turn was accepted, microseconds since 1970, and its score."""

_CHAIN_LINKS = "(links.kind = 'predecessor' OR (links.kind = 'supersedes' AND scenes.provenance = 'edited'))"


@dataclass(frozen=True, slots=True)
class ArchetypeCount:
    """How an archetype did.

    Attributes:
        archetype: its id where the memory knows the name, else the name in lower case.
        accepted: accepted turns whose scene has it.
        last: when the last of them was, microseconds since 1970 in UTC.
        score: mean of their scores, from 0 to 1; None where none was given.
    """

    archetype: str
    accepted: int
    last: int
    score: float | None


@dataclass(frozen=True, slots=True)
class ChainCount:
    """How a chain did.

    Attributes:
        chain: the id of its first scene.
        scenes: scenes in it, older versions included.
        accepted: accepted turns that are in it.
        last: when the last of them was, microseconds since 1970 in UTC.
        score: mean of their scores, from 0 to 1; None where none was given.
    """

    chain: int
    scenes: int
    accepted: int
    last: int
    score: float | None


class Counters:
    """The counters of one store.

    Args of the constructor:
        store: where the turns are.
        archetype_ids: archetype id by name in lower case, over all languages; names of one id count as one.
    """

    def __init__(self, store: SceneStore, archetype_ids: Mapping[str, str]) -> None:
        self._store = store
        self._ids = archetype_ids

    def archetypes_of(self, scene: StoredScene) -> list[str]:
        """The archetypes that a scene counts for, each once."""
        return list(dict.fromkeys(self.archetype(name) for name in scene.scene.archetype))

    def archetype(self, name: str) -> str:
        """What a name is counted as."""
        folded = name.casefold()
        return self._ids.get(folded, folded)

    def accepted(self, archetype: str) -> int:
        """Accepted turns of an archetype."""
        names = list(dict.fromkeys([archetype, *(name for name, key in self._ids.items() if key == archetype)]))
        sql = f"SELECT count(DISTINCT acceptance) FROM accepted_archetypes WHERE archetype IN ({_marks(names)})"
        return int(self._store.rows(sql, names)[0][0])

    def chain_of(self, number: int) -> tuple[int, int]:
        """The chain of a scene and the accepted turns in it."""
        chain = self._store.rows("SELECT coalesce(chain, id) FROM scenes WHERE id = ?", (number,))[0][0]
        sql = "SELECT count(*) FROM scenes JOIN acceptances ON acceptances.scene = scenes.id WHERE chain = ?"
        return int(chain), int(self._store.rows(sql, (chain,))[0][0])

    def archetypes(self) -> list[ArchetypeCount]:
        """All archetypes of accepted turns, the most accepted first."""
        names: dict[str, list[str]] = {}
        for (name,) in self._store.rows("SELECT DISTINCT archetype FROM accepted_archetypes ORDER BY archetype"):
            names.setdefault(self.archetype(name), []).append(name)
        found = []
        for archetype, spelled in names.items():
            row = self._store.rows(
                "SELECT count(*), max(at), avg(score) FROM acceptances WHERE id IN "
                f"(SELECT acceptance FROM accepted_archetypes WHERE archetype IN ({_marks(spelled)}))",
                spelled,
            )[0]
            found.append(ArchetypeCount(archetype, *row))
        return sorted(found, key=lambda one: (-one.accepted, one.archetype))

    def chains(self) -> list[ChainCount]:
        """All chains with accepted turns, the one of the latest turn first."""
        rows = self._store.rows(
            "SELECT chain, count(DISTINCT scenes.id), count(acceptances.id), max(at), avg(score) FROM scenes "
            "LEFT JOIN acceptances ON acceptances.scene = scenes.id WHERE chain IS NOT NULL GROUP BY chain "
            "HAVING count(acceptances.id) > 0 ORDER BY max(at) DESC, chain DESC"
        )
        return [ChainCount(*row) for row in rows]


def store_turn(store: SceneStore, scene: StoredScene, at: int, score: float | None) -> None:
    """Keep an accepted turn of a scene, inside a transaction."""
    key = store.run("INSERT INTO acceptances (scene, at, score) VALUES (?, ?, ?)", (scene.id, at, score)).lastrowid
    _name(store, int(key or 0), scene)


def turns_of(store: SceneStore, first: int, last: int) -> dict[int, list[Turn]]:
    """The turns of scenes from one id to another, by id, in the order in which they were stored."""
    found: dict[int, list[Turn]] = {}
    for scene, at, score in store.rows(
        "SELECT scene, at, score FROM acceptances WHERE scene BETWEEN ? AND ? ORDER BY id", (first, last)
    ):
        found.setdefault(scene, []).append((at, score))
    return found


def move_turns(store: SceneStore, old: int, new: StoredScene) -> None:
    """Let a scene's turns be those of the version that takes its place, with its archetypes."""
    keys = [row[0] for row in store.rows("SELECT id FROM acceptances WHERE scene = ?", (old,))]
    store.run("UPDATE acceptances SET scene = ? WHERE scene = ?", (new.id, old))
    for key in keys:
        store.run("DELETE FROM accepted_archetypes WHERE acceptance = ?", (key,))
        _name(store, key, new)


def _name(store: SceneStore, key: int, scene: StoredScene) -> None:
    names = dict.fromkeys(name.casefold() for name in scene.scene.archetype)
    store.run_many("INSERT INTO accepted_archetypes VALUES (?, ?)", [(name, key) for name in names])


def split_chains(store: SceneStore, chains: Iterable[int]) -> None:
    """Name chains anew after scenes were taken out of them: what hangs together no more is several chains."""
    for chain in chains:
        members = [row[0] for row in store.rows("SELECT id FROM scenes WHERE chain = ?", (chain,))]
        links = store.rows(
            "SELECT source, target FROM links JOIN scenes ON scenes.id = source "
            f"WHERE scenes.chain = ? AND {_CHAIN_LINKS}",
            (chain,),
        )
        named = _components(members, links)
        changed = [(first, number) for number, first in named.items() if first != chain]
        store.run_many("UPDATE scenes SET chain = ? WHERE id = ?", changed)


def problems(store: SceneStore) -> Iterator[str]:
    """Scenes that are counted in another chain or for other archetypes than they should be."""
    named = dict(store.rows("SELECT id, chain FROM scenes WHERE level = ?", (SCENE,)))
    links = store.rows(f"SELECT source, target FROM links JOIN scenes ON scenes.id = source WHERE {_CHAIN_LINKS}")
    for number, first in _components(named, links).items():
        if named[number] != first:
            yield f"scene {number}: is counted in chain {named[number]}, and belongs to chain {first}"
    counted: dict[int, set[str]] = {}
    for key, name in store.rows("SELECT acceptance, archetype FROM accepted_archetypes"):
        counted.setdefault(key, set()).add(name)
    for key, number, record in store.rows(
        "SELECT acceptances.id, scenes.id, record FROM acceptances JOIN scenes ON scenes.id = scene"
    ):
        names = {name.casefold() for name in split_names(json.loads(record)["archetype"])}
        if counted.get(key, set()) != names:
            yield f"scene {number}: is counted for other archetypes than it has"


def _components(numbers: Iterable[int], links: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The smallest number of what hangs together, by number (union-find)."""
    above = {number: number for number in numbers}

    def first(number: int) -> int:
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    for source, target in links:
        if source in above and target in above:
            low, high = sorted((first(source), first(target)))
            above[high] = low
    return {number: first(number) for number in above}


def _marks(values: list[str]) -> str:
    return ",".join("?" * len(values))
