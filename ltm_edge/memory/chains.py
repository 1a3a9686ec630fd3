"""The chain that a scene stands in, and the summaries above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ltm_edge.memory.recall import Recaller
from ltm_edge.memory.records import SCENE, StoredScene
from ltm_edge.memory.store import SceneStore

__all__ = ["Chain", "chain_of"]

_LENGTH = 1000  # scenes of one chain


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain (сцепка) that a scene stands in.

    Attributes:
        scenes: oldest first; of an arc its members.
        summaries: arcs and sagas above them.
    """

    scenes: tuple[StoredScene, ...]
    summaries: tuple[StoredScene, ...]


def chain_of(store: SceneStore, recaller: Recaller, scene: StoredScene) -> Chain:
    """All scenes before and after one, and the summaries above; of a summary its members."""
    if scene.level > SCENE:
        members = store.get_many(store.sources(scene.id, "part_of"))
        members.sort(key=lambda one: (one.created, one.id))
        return Chain(tuple(members), (scene, *_above(store, [scene.id])))
    found = [one for one, via, _ in recaller.neighbours(scene, _LENGTH) if via != "arc"][:_LENGTH]
    scenes = sorted([scene, *found], key=lambda one: (one.created, one.id))
    return Chain(tuple(scenes), tuple(_above(store, (one.id for one in scenes))))


def _above(store: SceneStore, numbers: Iterable[int]) -> list[StoredScene]:
    found: dict[int, None] = {}
    edge = list(numbers)
    while edge:
        edge = [up for one in edge for up in store.targets(one, "part_of") if up not in found]
        found.update(dict.fromkeys(edge))
    return store.get_many(found)
