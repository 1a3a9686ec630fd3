"""Resonance and its diversification in numpy: what the native ones are compared with."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import numpy.typing as npt

from ltm_edge.memory.resonance import PARTS, Candidates, ResonanceQuery, ResonanceWeights

Floats = npt.NDArray[np.float32]


def resonate(
    query: ResonanceQuery, candidates: Candidates, *, half_life: float, weights: ResonanceWeights
) -> tuple[Floats, Floats]:
    w = np.array(astuple(weights), dtype=np.float64)
    n = len(candidates.age)
    parts = np.full((n, len(PARTS)), np.nan, dtype=np.float32)
    pairs = (
        (0, query.meaning, candidates.meaning),
        (2, query.tension, candidates.tension),
        (3, query.will, candidates.centre),
    )
    for column, ours, theirs in pairs:
        if ours is not None and theirs is not None:
            parts[:, column] = _cosine(ours, theirs)
    if candidates.words is not None:
        parts[:, 1] = np.clip(np.nan_to_num(candidates.words), 0, 1)
    if query.archetypes is not None and candidates.archetypes is not None and query.archetypes.any():
        both = _ones(candidates.archetypes & query.archetypes)
        parts[:, 4] = both / np.maximum(1, _ones(candidates.archetypes | query.archetypes))
    parts[:, 5] = np.exp2(-np.maximum(0, candidates.age) / half_life)
    parts[:, 6] = candidates.strength / (1 + candidates.strength)
    used = ~np.isnan(parts).all(axis=0) if n else np.ones(len(PARTS), dtype=bool)
    total = np.nan_to_num(parts[:, used]) @ w[used] / max(w[used].sum(), 1e-12)
    return total.astype(np.float32), parts


def diversify(scores: Floats, vectors: Floats, k: int, lam: float) -> npt.NDArray[np.int64]:
    unit = np.nan_to_num(vectors.astype(np.float64))
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = np.divide(unit, norms, out=np.zeros_like(unit), where=norms > 0)
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    taken: list[int] = []
    for _ in range(min(k, len(scores))):
        best = int(np.where(left, lam * scores - (1 - lam) * nearest, -np.inf).argmax())
        taken.append(best)
        left[best] = False
        nearest = np.maximum(nearest, unit @ unit[best])
    return np.array(taken, dtype=np.int64)


def _cosine(query: Floats, rows: Floats) -> Floats:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.linalg.norm(query)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine: Floats = np.clip(np.nan_to_num((rows @ query) / norms, nan=0, posinf=0, neginf=0), 0, 1)
    return cosine


def _ones(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = np.unpackbits(bits.view(np.uint8), axis=-1).sum(axis=-1)
    return counts
