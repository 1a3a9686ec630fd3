"""Spread: what stirs in one zone of the field stirs those that it is linked to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ltm_edge.schemas.field import Link

__all__ = ["Spread"]


class Spread:
    """Activation that spreads over weighted links for a bounded number of steps.

    From activations a, each in [-1, 1], every step computes ``x = clip(a + damping * W @ x, -1, 1)``, beginning with
    x = a. W holds the links' weights by target and source; a zone whose incoming weights sum to more than 1 in
    absolute value has them divided by that sum, so that no number of links overwhelms it.
    """

    def __init__(self, zones: Iterable[str], links: Sequence[Link], steps: int, damping: float) -> None:
        """Take the zones, in any order: the result doesn't depend on it."""
        self._zones = tuple(sorted(zones))
        at = {name: i for i, name in enumerate(self._zones)}
        weights = np.zeros((len(at), len(at)))
        for link in links:
            weights[at[link.target], at[link.source]] = link.weight
        self._weights = weights / np.maximum(np.abs(weights).sum(axis=1, keepdims=True), 1.0)
        self._steps = steps
        self._damping = damping

    def over(self, activations: Mapping[str, float]) -> dict[str, float]:
        """Activation of every zone, in [-1, 1]; a zone that isn't given, or not finite, begins at 0."""
        given = np.array([activations.get(name, 0.0) for name in self._zones], dtype=np.float64)
        given = np.clip(np.where(np.isfinite(given), given, 0.0), -1.0, 1.0)
        active = given
        for _ in range(self._steps):
            active = np.clip(given + self._damping * (self._weights @ active), -1.0, 1.0)
        return dict(zip(self._zones, active.tolist(), strict=True))
