"""Integrator (интегратор): counts what is accepted, strengthens and weakens scenes, and leaves a trail of it."""

from __future__ import annotations

from collections.abc import Iterable

from ltm_edge.memory.counting import Counters, store_turn
from ltm_edge.memory.records import Policy
from ltm_edge.memory.store import SceneStore
from ltm_edge.memory.strength import grown, strength_at

__all__ = ["Integrator"]


class Integrator:
    """Changes counters and strengths inside the store's transactions."""

    def __init__(self, store: SceneStore, policy: Policy, counters: Counters) -> None:
        self._store = store
        self._policy = policy
        self._counters = counters

    def accept(self, number: int, *, by: str, at: int, score: float | None) -> None:
        """Count an accepted turn for the archetypes and the chain of the scene that holds it.

        Args:
            number: the scene's id.
            by: ``use``, or ``repetition`` if the scene was there before.
            at: when, microseconds since 1970.
            score: the critics' mean score, from 0 to 1.
        """
        for scene in self._store.get_many([number]):
            archetypes = [(name, self._counters.accepted(name)) for name in self._counters.archetypes_of(scene)]
            chain, turns = self._counters.chain_of(number)
            store_turn(self._store, scene, at, score)
            given = {} if score is None else {"score": round(score, 6)}
            for name, before in archetypes:
                detail = {"archetype": name, "from": before, "to": before + 1, "by": by, **given}
                self._store.event("accepted", number, at, **detail)
            detail = {"chain": chain, "from": turns, "to": turns + 1, "by": by, **given}
            self._store.event("accepted", number, at, **detail)

    def strengthen(self, numbers: Iterable[int], *, by: str, at: int, of: int | None = None) -> None:
        """Strengthen scenes.

        Args:
            numbers: their ids; unknown ones are passed over.
            by: what did it, such as ``use``, ``repetition`` or ``training``.
            at: when, microseconds since 1970.
            of: the scene that took them up; forgetting it takes back what they got. None: none did.
        """
        for scene in self._store.get_many(numbers):
            now = strength_at(scene, at, self._policy.half_life_days)
            self._set(scene.id, now, grown(now, self._policy.growth), by, at, "strengthened", of)

    def weaken(self, numbers: Iterable[int], *, by: str, at: int) -> None:
        """Halve the strength of scenes."""
        for scene in self._store.get_many(numbers):
            now = strength_at(scene, at, self._policy.half_life_days)
            self._set(scene.id, now, now / 2, by, at, "weakened")

    def _set(
        self, number: int, before: float, after: float, by: str, at: int, kind: str, of: int | None = None
    ) -> None:
        self._store.run("UPDATE scenes SET strength = ?, strengthened = ? WHERE id = ?", (after, at, number))
        detail: dict[str, float] = {"from": round(before, 6), "to": round(after, 6)}
        if of is not None:
            detail["of"] = of
        self._store.event(kind, number, at, by=by, **detail)
