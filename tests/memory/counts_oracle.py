"""Counters the slow way: from an export, by going through all scenes and links."""

from __future__ import annotations

import io
import json
from typing import Any

from ltm_edge.memory.records import from_iso
from ltm_edge.scene_memory import SceneMemory

Counts = dict[Any, tuple[int, int, float | None]]


def slow_counts(memory: SceneMemory) -> tuple[Counts, Counts]:
    """(accepted, last, mean score) by archetype in lower case, and by the number of a chain's first scene."""
    out = io.StringIO()
    memory.export(out)
    records = [json.loads(line) for line in out.getvalue().splitlines()[1:]]
    scenes = {one["uid"]: one for one in records if one["kind"] == "scene" and one["level"] == "scene"}
    numbers = {one.uid: one.id for one in memory.scenes()}
    near: dict[str, set[str]] = {uid: set() for uid in scenes}
    for one in records:
        edited = one.get("type") == "supersedes" and scenes.get(one["source"], {}).get("provenance") == "edited"
        if one["kind"] == "link" and (one["type"] == "predecessor" or edited):
            near[one["source"]].add(one["target"])
            near[one["target"]].add(one["source"])
    archetypes: dict[Any, list[tuple[int, float | None]]] = {}
    chains: dict[Any, list[tuple[int, float | None]]] = {}
    for uid, one in scenes.items():
        seen, edge = {uid}, [uid]
        while edge:
            edge = [other for place in edge for other in near[place] if other not in seen]
            seen.update(edge)
        turns = [(from_iso(at), score) for at, score in one["accepted"]]
        if turns:
            chains.setdefault(min(numbers[other] for other in seen), []).extend(turns)
            for name in {name.strip().casefold() for name in one["scene"]["archetype"].split(",")}:
                archetypes.setdefault(name, []).extend(turns)
    return {key: _count(turns) for key, turns in archetypes.items()}, {
        key: _count(all_) for key, all_ in chains.items()
    }


def quick_counts(memory: SceneMemory) -> tuple[Counts, Counts]:
    """The same as the memory itself counts."""
    return (
        {one.archetype: (one.accepted, one.last, _round(one.score)) for one in memory.archetypes()},
        {one.chain: (one.accepted, one.last, _round(one.score)) for one in memory.chains()},
    )


def _count(turns: list[tuple[int, float | None]]) -> tuple[int, int, float | None]:
    scores = [score for _, score in turns if score is not None]
    return len(turns), max(at for at, _ in turns), _round(sum(scores) / len(scores) if scores else None)


def _round(score: float | None) -> float | None:
    return None if score is None else round(score, 9)
