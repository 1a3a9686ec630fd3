"""Plain figures about answers: how varied they are, how much they repeat, how close they are to what was asked."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ltm_edge.scene.record import Scene

__all__ = ["Sample", "closeness", "distinct", "repeated"]


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


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words out of all, over all texts; NaN of none."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repeated(texts: Sequence[str], n: int) -> float:
    """Share of n-grams of words that stood in the same text before; NaN of none."""
    counts = [(len(grams), len(set(grams))) for grams in (_grams(text, n) for text in texts)]
    total = sum(count for count, _ in counts)
    return sum(count - different for count, different in counts) / total if total else math.nan


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


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return list(zip(*(itertools.islice(words, start, None) for start in range(n)), strict=False))
