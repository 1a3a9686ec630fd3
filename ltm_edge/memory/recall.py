"""Recall: candidates from vectors, words and pins; rescored by resonance, diversified, followed along chains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ltm_edge.memory.asking import Asking, asking
from ltm_edge.memory.protocols import CountTokens, Floats
from ltm_edge.memory.records import ARC, LEVELS, Policy, Recall, StoredScene, to_iso
from ltm_edge.memory.resonance import (
    PARTS,
    Candidates,
    ResonanceQuery,
    ResonanceWeights,
    diversify,
    resonate,
)
from ltm_edge.memory.spaces import Space, Spaces
from ltm_edge.memory.store import SceneStore
from ltm_edge.memory.strength import DAY, strength_at
from ltm_edge.memory.surroundings import around, lent, shifted
from ltm_edge.memory.words import match_query

__all__ = ["Query", "Recaller", "estimate_tokens", "note"]

_MATCHES = 128  # best scenes by words
_PINNED = 64
_NEAREST = 32  # of the candidates, whose neighbours are candidates as well
_NOTE_CHARS = 600  # of one part of a note
_VERSIONS = 64  # steps from a superseded scene to the newest


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a memory.

    Attributes:
        text: what was said.
        tension: the two poles; empty: scenes' tensions are compared with the text itself.
        will: the goal that scenes' centres are compared with; empty: with the text itself.
        archetypes: names, in any language the memory knows.
        at: the moment from which ages count, microseconds since 1970.
        session: only scenes of this session, or None.
        exclude: ids that aren't wanted, such as those that stand in the conversation anyway.
        history: superseded scenes count as well.
    """

    text: str
    tension: str = ""
    will: str = ""
    archetypes: tuple[str, ...] = ()
    at: int = 0
    session: str | None = None
    exclude: frozenset[int] = frozenset()
    history: bool = False


@dataclass(slots=True)
class _Found:
    scene: StoredScene
    score: float
    parts: dict[str, float] = field(default_factory=dict)
    vector: Floats | None = None
    space: int = -1
    via: str = "found"


def estimate_tokens(text: str) -> int:
    """A guess on the safe side where no tokenizer is at hand: three bytes of UTF-8 to a token, and one for the edge."""
    return len(text.encode("utf-8", "replace")) // 3 + 1


def note(scene: StoredScene) -> str:
    """A scene in the few lines in which it enters a prompt: when, what it turned on, what was said and answered."""
    head = f"{to_iso(scene.created)[:10]}, {LEVELS[scene.level]}: {scene.scene.tension}; {scene.scene.resonance_center}"
    lines = [head]
    if scene.text:
        lines.append(_cut(scene.text))
    if not scene.echo:
        lines.append(_cut(scene.scene.response))
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    return text.casefold().split()


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _NOTE_CHARS else plain[: _NOTE_CHARS - 1] + "…"


class Recaller:
    """Finds scenes for a query."""

    def __init__(self, store: SceneStore, policy: Policy, archetype_ids: Mapping[str, str]) -> None:
        """Take the parts.

        Args:
            store: where scenes are.
            policy: numbers.
            archetype_ids: id by (casefolded) name, so that names of two languages count as one archetype.
        """
        self._store = store
        self._policy = policy
        self._ids = archetype_ids

    def recall(
        self,
        spaces: Spaces | None,
        query: Query,
        k: int,
        *,
        chain_depth: int,
        budget_tokens: int | None,
        count_tokens: CountTokens,
    ) -> list[Recall]:
        """The scenes that resonate most, each followed by what hangs on it, within a token budget.

        Args:
            spaces: where the vectors are; None recalls by words alone.
            query: what is asked.
            k: hits, at most; scenes that come along chains aren't counted.
            chain_depth: links followed from a hit in each direction.
            budget_tokens: of all notes together; None: without limit. A note that doesn't fit is left out.
            count_tokens: of a text.
        """
        found = self._place(self._score(spaces, query), query)
        hits = self._choose(found, query, k)
        return self._expand(hits, query, chain_depth, budget_tokens, count_tokens)

    # Candidates and scores.

    def _score(self, spaces: Spaces | None, query: Query) -> list[_Found]:
        store = self._store
        clauses, values = ["1"], []  # type: tuple[list[str], list[object]]
        if query.session is not None:
            clauses.append("scenes.session = ?")
            values.append(query.session)
        where = " AND ".join(clauses) if values else ""
        matches = dict(store.match(match_query(query.text), _MATCHES, where=where, values=values))
        allowed = None
        if query.session is not None:
            allowed = [row[0] for row in store.rows("SELECT id FROM scenes WHERE session = ?", (query.session,))]
        wanted: dict[int, None] = dict.fromkeys(matches)
        pinned = store.rows("SELECT id FROM scenes WHERE pinned = 1 ORDER BY strengthened DESC LIMIT ?", (_PINNED,))
        wanted.update(dict.fromkeys(row[0] for row in pinned if allowed is None or row[0] in allowed))
        asked: dict[int, tuple[Space, ResonanceQuery]] = {}
        for space in spaces.all if spaces is not None else ():
            vectors = self._query_vectors(space, query)
            if vectors is None:
                continue
            asked[space.number] = (space, vectors)
            if vectors.meaning is not None:
                near = spaces.nearest(space, vectors.meaning, self._policy.candidates, allowed=allowed)  # type: ignore[union-attr]
                wanted.update(dict.fromkeys(number for number, _ in near))
                beside = self._linked([number for number, _ in near[:_NEAREST]])
                ends = (number for source, target, _ in beside for number in (source, target))
                wanted.update(dict.fromkeys(number for number in ends if allowed is None or number in allowed))
        scenes = [
            scene
            for scene in store.get_many(number for number in wanted if number not in query.exclude)
            if query.history or scene.superseded_by is None
        ]
        return self._resonate(spaces, asked, scenes, matches, query)

    def _query_vectors(self, space: Space, query: Query) -> ResonanceQuery | None:
        asked = {"meaning": query.text, "tension": query.tension, "will": query.will}
        covered = [(name, text) for name, text in asked.items() if text.strip() and space.embedder.covers(text)]
        if not covered:
            return None
        vectors = dict(zip([name for name, _ in covered], space.embed([text for _, text in covered]), strict=True))
        meaning = vectors.get("meaning")
        return ResonanceQuery(meaning, vectors.get("tension", meaning), vectors.get("will", meaning))

    def _linked(self, numbers: Sequence[int]) -> list[tuple[int, int, str]]:
        """Links of a session and of recalls that begin or end at scenes, as (source, target, kind)."""
        found: dict[tuple[int, int, str], None] = {}
        for i in range(0, len(numbers), 400):
            part = numbers[i : i + 400]
            marks = ",".join("?" * len(part))
            for end in ("source", "target"):
                rows = self._store.rows(
                    f"SELECT source, target, kind FROM links WHERE {end} IN ({marks}) "
                    "AND kind IN ('predecessor', 'recalled') ORDER BY source, target",
                    part,
                )
                found.update(dict.fromkeys((row[0], row[1], row[2]) for row in rows))
        return list(found)

    def _resonate(
        self,
        spaces: Spaces | None,
        asked: Mapping[int, tuple[Space, ResonanceQuery]],
        scenes: Sequence[StoredScene],
        matches: Mapping[int, float],
        query: Query,
    ) -> list[_Found]:
        if not scenes:
            return []
        policy = self._policy
        best = max(matches.values(), default=0.0)
        words = np.array([matches.get(one.id, 0.0) / best if best > 0 else 0.0 for one in scenes], dtype=np.float32)
        age = np.array([max(0, query.at - one.created) / 1e6 for one in scenes], dtype=np.float64)
        strength = np.array(
            [1.0 if one.pinned else strength_at(one, query.at, policy.half_life_days) for one in scenes],
            dtype=np.float32,
        )
        wanted_bits, bits = self._archetypes(query.archetypes, scenes)
        weights = self._weights(asking(query.text))
        vectors: list[Floats | None] = [None] * len(scenes)
        in_space = [-1] * len(scenes)
        done: list[tuple[float, list[float]] | None] = [None] * len(scenes)
        rows_of = {
            number: spaces.rows(space, [one.id for one in scenes]) if spaces is not None else {}
            for number, (space, _) in asked.items()
        }
        groups: list[tuple[list[int], ResonanceQuery, dict[int, Floats], int, int]] = []
        left = set(range(len(scenes)))
        for number, (space, ours) in asked.items():
            mine = [i for i in sorted(left) if scenes[i].id in rows_of[number]]
            left.difference_update(mine)
            groups.append((mine, ours, rows_of[number], space.embedder.dim, number))
        # A scene without a vector in any asked space has no likeness of meaning; it gains nothing by that.
        first = next(iter(asked.values()), None)
        groups.append(
            (sorted(left), first[1] if first else ResonanceQuery(), {}, first[0].embedder.dim if first else 1, -1)
        )
        for mine, ours, rows, dim, number in groups:
            if not mine:
                continue
            if rows:
                columns = np.ascontiguousarray(np.stack([rows[scenes[i].id] for i in mine], axis=1))
            else:
                columns = np.full((3, len(mine), dim), np.nan, dtype=np.float32)
            take = np.array(mine)
            total, parts = resonate(
                ResonanceQuery(ours.meaning, ours.tension, ours.will, wanted_bits),
                Candidates(
                    age=age[take],
                    strength=strength[take],
                    meaning=columns[0] if ours.meaning is not None else None,
                    words=words[take] if matches else None,
                    tension=columns[1] if ours.tension is not None else None,
                    centre=columns[2] if ours.will is not None else None,
                    archetypes=bits[take] if bits is not None else None,
                ),
                half_life=policy.half_life_days * DAY / 1e6,
                weights=weights,
            )
            for i, score, values in zip(mine, total.tolist(), parts.tolist(), strict=True):
                done[i] = (score, values)
                if scenes[i].id in rows:
                    vectors[i] = rows[scenes[i].id][0]
                    in_space[i] = number
        found = []
        for one, vector, where, scored in zip(scenes, vectors, in_space, done, strict=True):
            if scored is not None:
                parts_of = {name: v for name, v in zip(PARTS, scored[1], strict=True) if not math.isnan(v)}
                found.append(_Found(one, scored[0], parts_of, vector, where))
        found.sort(key=lambda item: (-item.score, -item.scene.created, item.scene.id))
        return found

    def _weights(self, asked: Asking) -> ResonanceWeights:
        """The policy's weights; a question after a feeling gives more to tensions, at the cost of all."""
        weights = {name: float(self._policy.weights[name]) for name in PARTS}
        if asked.feeling:
            weights["tension"] *= self._policy.feeling
        return ResonanceWeights(**weights)

    def _place(self, found: list[_Found], query: Query) -> list[_Found]:
        """Add to each score what the scene's surroundings lend it and what the kind of question moves it by.

        A scene told in the very words that are asked for is in no one else's light: it is lent as much as any.
        """
        policy, asked = self._policy, asking(query.text)
        if not found:
            return found
        known = around(
            [item.scene.id for item in found],
            [item.scene.created for item in found],
            [item.vector for item in found],
            [item.space for item in found],
            self._linked([item.scene.id for item in found]),
        )
        own = np.array([item.score for item in found], dtype=np.float32)
        gain = lent(own, known)
        words = _words(query.text)
        gain[[_words(item.scene.text) == words for item in found]] = gain.max()
        whole = own + np.float32(policy.context) * gain
        moved = shifted(whole, own, known, asked, policy)
        scores = np.clip((whole + moved) / (1 + policy.context + policy.later + policy.now), 0, 1)
        for item, score, part, shift in zip(found, scores, gain, moved, strict=True):
            item.score = float(score)
            item.parts["context"] = float(part)
            if shift:
                item.parts["asked"] = float(shift)
        found.sort(key=lambda item: (-item.score, -item.scene.created, item.scene.id))
        return found

    def _archetypes(
        self, asked: Sequence[str], scenes: Sequence[StoredScene]
    ) -> tuple[npt.NDArray[np.uint64] | None, npt.NDArray[np.uint64] | None]:
        """The query's archetypes and the scenes' as bit sets over the names that occur."""
        if not asked:
            return None, None
        places: dict[str, int] = {}
        ours = [places.setdefault(self._archetype(name), len(places)) for name in asked]
        theirs = [
            [places.setdefault(self._archetype(name), len(places)) for name in one.scene.archetype] for one in scenes
        ]
        width = (len(places) + 63) // 64

        def pack(rows: Iterable[Iterable[int]], count: int) -> npt.NDArray[np.uint64]:
            table = np.zeros((count, width), dtype=np.uint64)
            for row, bits in enumerate(rows):
                for bit in bits:
                    table[row, bit // 64] |= np.uint64(1 << (bit % 64))
            return table

        return pack([ours], 1)[0], pack(theirs, len(scenes))

    def _archetype(self, name: str) -> str:
        folded = name.strip().casefold()
        return self._ids.get(folded, folded)

    # Choice.

    def _choose(self, found: list[_Found], query: Query, k: int) -> list[_Found]:
        """The best and most different hits; what only repeats older scenes gives way to them."""
        usable = [item for item in found if item.score >= self._policy.floor]
        if not query.history:
            usable = self._originals(usable)
        usable = usable[: max(4 * k, 32)]
        if not usable or k <= 0:
            return []
        known = [item for item in usable if item.vector is not None]
        dim = len(known[0].vector) if known and known[0].vector is not None else 1
        table = np.full((len(usable), dim), np.nan, dtype=np.float32)
        for row, item in enumerate(usable):
            if item.vector is not None and len(item.vector) == dim:  # another space's rows are like nothing else
                table[row] = item.vector
        scores = np.array([item.score for item in usable], dtype=np.float32)
        chosen = diversify(scores, table, k, self._policy.diversity)
        hits = [usable[int(i)] for i in chosen]
        hits.sort(key=lambda item: (-item.score, item.scene.id))
        return hits

    def _originals(self, found: list[_Found]) -> list[_Found]:
        """Replace echoes by the scenes that they repeat, each scene once with its best score."""
        best: dict[int, _Found] = {}
        for item in found:
            if not item.scene.echo:
                kept = best.get(item.scene.id)
                if kept is None or kept.score < item.score:
                    best[item.scene.id] = item
                continue
            best.setdefault(item.scene.id, item)
            for number in self._store.targets(item.scene.id, "recalled"):
                original = self._store.get(number)
                if original is None or original.superseded_by is not None or number in best:
                    continue
                own = next((other for other in found if other.scene.id == number), None)
                best[number] = own or _Found(
                    original, item.score, dict(item.parts), item.vector, item.space, "original"
                )
        originals = {
            target
            for item in best.values()
            if item.scene.echo
            for target in self._store.targets(item.scene.id, "recalled")
        }
        # An echo whose original is there says nothing more; without an original its request may still matter.
        kept_items = [
            item
            for item in best.values()
            if not item.scene.echo or not (set(self._store.targets(item.scene.id, "recalled")) & set(best) & originals)
        ]
        kept_items.sort(key=lambda item: (-item.score, -item.scene.created, item.scene.id))
        return kept_items

    # Chains.

    def _expand(
        self,
        hits: Sequence[_Found],
        query: Query,
        depth: int,
        budget: int | None,
        count_tokens: CountTokens,
    ) -> list[Recall]:
        left = budget
        out: list[Recall] = []
        seen: set[int] = set(query.exclude)

        def take(scene: StoredScene, score: float, parts: Mapping[str, float], via: str, of: int) -> bool:
            nonlocal left
            if scene.id in seen:
                return False
            tokens = count_tokens(note(scene))
            if left is not None and tokens > left:
                return False
            if left is not None:
                left -= tokens
            seen.add(scene.id)
            out.append(Recall(scene, score, dict(parts), via, of, tokens))
            return True

        # Hits first: a neighbour never takes the room of a hit.
        kept = [item for item in hits if take(item.scene, item.score, item.parts, item.via, item.scene.id)]
        for item in kept:
            for scene, via, distance in self.neighbours(item.scene, depth, query.history):
                take(scene, item.score * 0.5**distance, {}, via, item.scene.id)
        return out

    def neighbours(self, scene: StoredScene, depth: int, history: bool = False) -> list[tuple[StoredScene, str, int]]:
        """What hangs on a scene, as (scene, how, distance): before and after it by distance, then the arc above."""
        out: list[tuple[StoredScene, str, int]] = []
        seen = {scene.id}

        def walk(step: Callable[[int], list[int]], via: str) -> None:
            edge = [scene.id]
            for distance in range(1, depth + 1):
                numbers = [n for start in edge for n in step(start) if n not in seen]
                edge = []
                for one in self._store.get_many(numbers):
                    current = one if history else self.current(one)
                    if current.id in seen:
                        continue
                    seen.update((one.id, current.id))
                    edge.append(one.id)
                    out.append((current, via if current is one else "newer", distance))

        if depth > 0:
            walk(lambda number: self._store.targets(number, "predecessor"), "predecessor")
            walk(lambda number: self._store.sources(number, "predecessor"), "successor")
            out.sort(key=lambda item: item[2])
            above = self._store.get_many(self._store.targets(scene.id, "part_of"))
            out.extend((arc, "arc", 1) for arc in above if arc.level >= ARC and arc.id not in seen)
        return out

    def current(self, scene: StoredScene) -> StoredScene:
        """The scene that stands in a superseded one's place now; itself where it wasn't superseded."""
        for _ in range(_VERSIONS):
            newer = self._store.get(scene.superseded_by) if scene.superseded_by is not None else None
            if newer is None:
                return scene
            scene = newer
        return scene
