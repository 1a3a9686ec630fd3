"""FieldState: where a session's thinking stands, and what it wants."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ltm_edge.field.gravity import pulled
from ltm_edge.field.vectors import Vector, unit
from ltm_edge.schemas.field import Dynamics

if TYPE_CHECKING:
    from ltm_edge.field.lift import Reading

__all__ = ["FieldState"]

_LEAST_PULL = 0.05  # a will that pulls less has been forgotten
_MOST_GOAL = 4000  # characters, as in a PVQ
_MOST_DIM = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class FieldState:
    """The field (поле) of a session: a place in the space of meaning, and the vector of will (вектор воли).

    Attributes:
        meaning: where the last requests and scenes have brought it, float32 [dim] of length 1; None before the first.
        will: the goal, float32 [dim] of length 1; None where there is no goal, or nothing that embeds it.
        goal: the goal in words.
        pull: how strongly the goal still pulls, from 0 to 1.
    """

    meaning: Vector | None = None
    will: Vector | None = None
    goal: str | None = None
    pull: float = 0.0

    @staticmethod
    def empty() -> FieldState:
        """The field before the first request."""
        return FieldState()

    def moved(self, reading: Reading, rates: Dynamics) -> FieldState:
        """The field after a request: ``(1 - rate) * meaning + rate * request``, brought back to length 1."""
        return self if reading.vector is None else self.towards(reading.vector, rates.rate)

    def towards(self, vector: Vector, rate: float) -> FieldState:
        """The field moved by `rate` of the way towards a vector; on it, if it had no meaning in that space before."""
        new = unit(vector)
        if new is None:
            return self
        if self.meaning is None or self.meaning.shape != new.shape:
            return replace(self, meaning=new)
        mixed = unit((1.0 - rate) * self.meaning + rate * new)
        # Opposite vectors can cancel; then the request stands.
        return replace(self, meaning=new if mixed is None else mixed)

    def attracted(self, masses: npt.ArrayLike, strengths: npt.ArrayLike, rates: Dynamics) -> FieldState:
        """The field after recalled scenes, [n, dim] with strengths [n], have pulled at it (see :func:`pulled`)."""
        return replace(self, meaning=pulled(self.meaning, masses, strengths, rates.gravity, rates.capture))

    def willed(self, vector: Vector | None, goal: str, weight: float) -> FieldState:
        """The field with a new goal in place of any old one.

        Args:
            vector: the goal's embedding; None where there is no embedder: the goal is kept in words alone.
            goal: in words.
            weight: how strongly it pulls, from 0 to 1.
        """
        weight = min(1.0, max(0.0, weight)) if np.isfinite(weight) else 0.0
        if not goal.strip() or weight < _LEAST_PULL:
            return self._unwilled()
        return replace(self, will=None if vector is None else unit(vector), goal=goal[:_MOST_GOAL], pull=weight)

    def reached(self, centre: Vector | None, rates: Dynamics, decay: float) -> FieldState:
        """The field after an accepted scene: the will is gone if the scene reached it, and weaker if not.

        Args:
            centre: embedding of the scene's resonance centre; None: not known, the will only fades.
            rates: `reached` is the cosine of centre and will from which the goal counts as reached.
            decay: what is left of the pull after a turn (of the zone of will).
        """
        if self.goal is None:
            return self
        if self.likeness_to_will(centre) >= rates.reached:
            return self._unwilled()
        pull = self.pull * min(1.0, max(0.0, decay))
        return replace(self, pull=pull) if pull >= _LEAST_PULL else self._unwilled()

    def likeness_to_will(self, vector: Vector | None) -> float:
        """Cosine of a vector to the will, in [-1, 1]; 0 where either is missing or of another space."""
        one = None if vector is None else unit(vector)
        if one is None or self.will is None or self.will.shape != one.shape:
            return 0.0
        return float(np.clip(np.dot(self.will, one), -1.0, 1.0))

    def to_dict(self, space: str = "") -> dict[str, Any]:
        """The state as JSON takes it; vectors as base64 of little-endian float16, about 1 kB for 384 dimensions.

        Args:
            space: the embedder's id, so that vectors of another space aren't taken for its own.
        """
        result: dict[str, Any] = {"space": space} if space else {}
        if self.meaning is not None:
            result["meaning"] = _packed(self.meaning)
        if self.goal is not None:
            result["goal"] = self.goal
            result["pull"] = round(self.pull, 4)
            if self.will is not None:
                result["will"] = _packed(self.will)
        return result

    @staticmethod
    def from_dict(obj: object, dim: int | None = None, space: str = "") -> FieldState:
        """The state that :meth:`to_dict` wrote. What is damaged, or of another dimension or space, is left out.

        Args:
            obj: anything.
            dim: length of the vectors; None: as they come.
            space: the embedder's id; empty: not asked.
        """
        if not isinstance(obj, Mapping):
            return FieldState()
        own = not space or obj.get("space", space) == space
        meaning = _unpacked(obj.get("meaning"), dim) if own else None
        will = _unpacked(obj.get("will"), dim) if own else None
        if meaning is not None and will is not None and meaning.shape != will.shape:
            meaning = will = None
        goal, pull = obj.get("goal"), obj.get("pull", 0.0)
        number = isinstance(pull, (int, float)) and not isinstance(pull, bool) and _LEAST_PULL <= pull <= 1.0
        if not isinstance(goal, str) or not goal.strip() or not number:
            return FieldState(meaning)
        return FieldState(meaning, will, goal[:_MOST_GOAL], float(pull))

    def _unwilled(self) -> FieldState:
        return replace(self, will=None, goal=None, pull=0.0)


def _packed(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def _unpacked(text: object, dim: int | None) -> Vector | None:
    if not isinstance(text, str) or len(text) > 3 * _MOST_DIM:
        return None
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) % 2 or (dim is not None and len(data) != 2 * dim):
        return None
    return unit(np.frombuffer(data, dtype="<f2").astype(np.float64))
