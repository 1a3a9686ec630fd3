"""Forgetting: what goes with a scene, how its chain closes over the gap, and what it lent to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ltm_edge.errors import InputError
from ltm_edge.memory.counting import split_chains
from ltm_edge.memory.lending import take_back
from ltm_edge.memory.records import Forgotten, Link, StoredScene
from ltm_edge.memory.store import SceneStore

__all__ = ["chosen", "forget_scenes", "matching", "with_dependants"]


def chosen(
    store: SceneStore, named: Sequence[StoredScene], query: str | None, before: int | None, session: str | None
) -> Forgotten:
    """What goes by names and conditions, all of which must hold where several are given, and what goes with it.

    Raises:
        InputError: neither a name nor a condition.
    """
    conditions = query is not None or before is not None or session is not None
    if not named and not conditions:
        raise InputError("forget: say what: ids, a query, a date or a session")
    if not conditions:
        return with_dependants(store, named)
    found = {one.id: one for one in matching(store, query, before, session)}
    return with_dependants(store, [one for one in named if one.id in found] if named else list(found.values()))


def matching(store: SceneStore, query: str | None, before: int | None, session: str | None) -> list[StoredScene]:
    """Scenes in which all the query's words stand, told before a moment (microseconds), of a session; what is given.

    Raises:
        InputError: the query is empty.
    """
    if query is not None and not (isinstance(query, str) and query.strip()):
        raise InputError("forget: the query is empty or no text")
    clauses: list[str] = ["1"]
    values: list[Any] = []
    if before is not None:
        clauses.append("created < ?")
        values.append(before)
    if session is not None:
        clauses.append("session = ?")
        values.append(session)
    if query is None:
        return store.select(" AND ".join(clauses), values)
    return [
        one
        for one in store.get_many(store.with_words(query))
        if (before is None or one.created < before) and (session is None or one.session == session)
    ]


def with_dependants(store: SceneStore, scenes: Sequence[StoredScene]) -> Forgotten:
    """Scenes with the versions that they replaced by edits and the summaries that were written from any of these."""
    seen = {one.id for one in scenes}
    versions: list[StoredScene] = []
    summaries: list[StoredScene] = []
    edge = list(scenes)
    while edge:
        found: list[StoredScene] = []
        for one in edge:
            above = store.targets(one.id, "part_of")
            replaced = store.targets(one.id, "supersedes") if one.provenance == "edited" else []
            for number, into in [*((n, summaries) for n in above), *((n, versions) for n in replaced)]:
                other = store.get(number) if number not in seen else None
                if other is not None:
                    seen.add(number)
                    into.append(other)
                    found.append(other)
        edge = found
    return Forgotten(tuple(scenes), tuple(versions), tuple(summaries))


def forget_scenes(store: SceneStore, going: Forgotten, at: int) -> Forgotten:
    """Remove scenes for good; returns them."""
    chains: set[int] = set()
    with store.transaction():
        for one in going.all:
            if store.get(one.id) is None:  # another process was quicker
                continue
            take_back(store, one.id, at)
            chains |= _loosened(store, one)
            _bridge(store, one.id)
            store.run("UPDATE scenes SET superseded_at = NULL WHERE superseded_by = ?", (one.id,))
            store.delete(one)
            # Archetypes are words of the scene. What was counted goes with it.
            store.run("DELETE FROM events WHERE scene = ? AND kind = 'accepted'", (one.id,))
            store.event("forgotten", one.id, at)
        split_chains(store, sorted(chains))
    return going


def _loosened(store: SceneStore, scene: StoredScene) -> set[int]:
    """The chain that may have another name, or be several, once a scene is gone; none for one in its middle."""
    chain = store.rows("SELECT chain FROM scenes WHERE id = ?", (scene.id,))[0][0]
    versions = [*store.targets(scene.id, "supersedes"), *store.sources(scene.id, "supersedes")]
    bridged = len(store.targets(scene.id, "predecessor")) == 1 and not versions
    return set() if chain is None or (bridged and chain != scene.id) else {chain}


def _bridge(store: SceneStore, number: int) -> None:
    """Link what came after a scene to what came before it."""
    earlier = store.targets(number, "predecessor")
    for later in store.sources(number, "predecessor"):
        for one in earlier:
            store.link(Link(later, one, "predecessor"))
