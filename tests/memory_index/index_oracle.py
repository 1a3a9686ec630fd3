"""The vector index in numpy, a full scan over a dict: what the native one is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class PlainIndex:
    """The interface of ltm_edge.memory.index.VectorIndex as far as searching goes."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.rows: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, ids: Ids | Sequence[int], vectors: Floats) -> None:
        for number, row in zip(np.asarray(ids).tolist(), vectors, strict=True):
            self.rows[number] = (row / np.linalg.norm(row.astype(np.float64))).astype(np.float32)

    def remove(self, ids: Ids | Sequence[int]) -> int:
        return sum(self.rows.pop(number, None) is not None for number in np.asarray(ids).tolist())

    def search(self, query: Floats, k: int, allowed: Sequence[int] | None = None) -> tuple[Ids, Floats]:
        """Of one query, float32 [dim]: ids int64 [k] and cosines float32 [k]."""
        ids, scores = np.full(k, -1, dtype=np.int64), np.full(k, -np.inf, dtype=np.float32)
        numbers = np.array(sorted(set(self.rows) if allowed is None else set(self.rows) & set(allowed)), dtype=np.int64)
        if len(numbers):
            block = np.stack([self.rows[number] for number in numbers.tolist()]).astype(np.float64)
            cosines = block @ (query.astype(np.float64) / np.linalg.norm(query.astype(np.float64)))
            best = np.argsort(-cosines, kind="stable")[:k]
            ids[: len(best)], scores[: len(best)] = numbers[best], cosines[best]
        return ids, scores
