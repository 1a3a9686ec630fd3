"""Plain figures about answers: how varied they are, how much they repeat, how close they are to what was asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ltm_edge.scene.record import Scene

__all__ = ["Sample", "closeness"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer.

    Attributes:
        seed: it was written with.
        request: what it answers.
        template: whose directive the prompt has.
        text: as it came.
        stop: why it ended: ``eog`` (complete) or ``length``.
        accepted: the template's grammar accepts it.
        scene: what it says; None if it is no scene.
    """

    seed: int
    request: str
    template: str
    text: str
    stop: str
    accepted: bool
    scene: Scene | None


def closeness(requests: Sequence[str], responses: Sequence[str]) -> tuple[float, float]:
    """Mean cosine of each response to its request, and to the next request; NaN of fewer than two.

    By the demo embedder.
    """
    if len(requests) < 2:
        return math.nan, math.nan
    from ltm_edge.embedders import demo_embedder

    with demo_embedder() as embedder:
        asked, told = embedder.embed(list(requests)), embedder.embed(list(responses))
    others = [*range(1, len(requests)), 0]
    return float((asked * told).sum(1).mean()), float((asked[others] * told).sum(1).mean())
