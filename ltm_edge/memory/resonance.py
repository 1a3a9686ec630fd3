"""Resonance: the documented score by which memory ranks scenes, and diversification of what it finds.

The score is a weighted sum of seven parts, each in [0, 1]; every hit keeps its parts, so that `/why` can show them.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import InputError
from ltm_edge.native import core

__all__ = ["PARTS", "Candidates", "ResonanceQuery", "ResonanceWeights", "diversify", "resonate"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]

PARTS = ("meaning", "words", "tension", "centre", "archetype", "recency", "strength")
"""Names of the parts, in the order of the columns."""


@dataclass(frozen=True, slots=True)
class ResonanceWeights:
    """Weights of the parts: finite, not negative, not all zero. They need not sum to 1; the score is divided by it."""

    meaning: float = 0.61
    words: float = 0.13
    tension: float = 0.09
    centre: float = 0.04
    archetype: float = 0.08
    recency: float = 0.03
    strength: float = 0.02


@dataclass(frozen=True, slots=True)
class ResonanceQuery:
    """What is asked. A part whose side of the query is None is left out for every candidate, its weight with it.

    Attributes:
        meaning: embedding of the request, float32 [dim].
        tension: embedding of the request's two poles, float32 [dim].
        will: the goal vector that scenes' centres are compared with, float32 [dim].
        archetypes: bit set of the request's archetypes, uint64 [w]; all zero counts as None.
    """

    meaning: Floats | None = None
    tension: Floats | None = None
    will: Floats | None = None
    archetypes: Bits | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """n scenes to score. None: that part is left out for all, its weight with it.

    A row of NaN says that one scene has no such vector: it gets 0 there while the weight still counts, so that a scene
    never gains by lacking something. Vectors need not be normalised.

    Attributes:
        age: seconds since the scene, float64 [n]; before the present by the clock counts as 0.
        strength: float32 [n], not negative.
        meaning: float32 [n, dim].
        words: word score (BM25) scaled so that the best candidate has 1, float32 [n].
        tension: float32 [n, dim].
        centre: float32 [n, dim].
        archetypes: bit sets, uint64 [n, w].
    """

    age: Doubles
    strength: Floats
    meaning: Floats | None = None
    words: Floats | None = None
    tension: Floats | None = None
    centre: Floats | None = None
    archetypes: Bits | None = None


def resonate(
    query: ResonanceQuery, candidates: Candidates, *, half_life: float, weights: ResonanceWeights | None = None
) -> tuple[Floats, Floats]:
    """Score candidates.

    The parts, each in [0, 1]:

    - meaning, tension: ``max(0, cos(query, candidate))``
    - centre: ``max(0, cos(will, candidate's centre))``
    - words: as given, clipped to [0, 1]
    - archetype: Jaccard overlap ``|a & b| / |a | b|``
    - recency: ``2 ** (-age / half_life)``
    - strength: ``s / (1 + s)``

    Args:
        query: what is asked.
        candidates: the n scenes.
        half_life: seconds at which recency has halved; positive.
        weights: of the parts; None: the defaults.

    Returns:
        The scores, float32 [n] in [0, 1] (the weighted mean of the parts that take part), and the parts, float32
        [n, 7] in the order of :data:`PARTS`; a part that was left out is NaN.

    Raises:
        InputError: an array has the wrong shape, a query vector or a number isn't finite, weights don't fit.
    """
    w = np.array(astuple(weights or ResonanceWeights()), dtype=np.float64)
    if not np.isfinite(w).all() or (w < 0).any() or not w.any():
        raise InputError(f"resonance: weights must be finite, not negative and not all zero, found {w.tolist()}")
    if not (np.isfinite(half_life) and half_life > 0):
        raise InputError(f"resonance: half-life must be positive seconds, found {half_life!r}")
    wanted = query.archetypes if query.archetypes is not None and query.archetypes.any() else None
    n = len(candidates.age)
    scores, parts = core().resonate(
        candidates.age,
        candidates.strength,
        w.tolist(),
        half_life,
        *_pair(query.meaning, candidates.meaning, n),
        *_pair(query.tension, candidates.tension, n),
        *_pair(query.will, candidates.centre, n),
        candidates.words,
        wanted,
        candidates.archetypes,
    )
    return scores, parts


def diversify(scores: Floats, vectors: Floats, k: int, lam: float) -> Ids:
    """Choose up to ``k`` candidates that score well and differ from each other: maximal marginal relevance.

    Each step takes the candidate with the largest ``lam * score - (1 - lam) * max(0, cosine to the nearest already
    taken)``; ties go to the earlier one (Carbonell and Goldstein 1998, SIGIR).

    Args:
        scores: float32 [n].
        vectors: float32 [n, dim]; a row of NaN or zeros is like nothing else.
        k: how many at most.
        lam: 1 looks at scores only, 0 at difference only.

    Returns:
        Row numbers in the order taken, int64 [min(k, n)].

    Raises:
        InputError: shapes don't fit, a score isn't finite, ``lam`` is outside [0, 1] or ``k`` is negative.
    """
    if not 0 <= lam <= 1 or k < 0 or len(scores) != len(vectors) or not np.isfinite(scores).all():
        raise InputError("diversify: scores float32 [n], vectors float32 [n, dim], k >= 0 and 0 <= lam <= 1 expected")
    order: Ids = core().diversify(scores, vectors, k, lam)
    return order


def _pair(query: Floats | None, rows: Floats | None, n: int) -> tuple[Floats, Floats] | tuple[None, None]:
    if query is None or rows is None:
        return None, None
    if rows.ndim != 2 or len(rows) != n or query.shape != rows.shape[1:] or not np.isfinite(query).all():
        raise InputError(f"resonance: query of shape {query.shape} against {n} candidates of shape {rows.shape}")
    return query, rows
