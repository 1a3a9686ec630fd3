"""The vector index: which scenes are nearest in meaning.

A cache of the store of record, which can always be built again from it. Searches may run in several threads at once;
adding, removing and compacting wait for them and for each other. The work is done in C++ without the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import IndexStale, InputError
from ltm_edge.files import replacing
from ltm_edge.native import core

__all__ = ["EXACT_BELOW", "IndexStale", "IndexStats", "VectorIndex"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

EXACT_BELOW = 16384
"""Vectors up to which a full scan is as fast as the graph."""

_MAX_DIM = 65536
_MAX_EMBEDDER = 256  # bytes
_THREADS = max(1, min(8, os.cpu_count() or 1))  # that link a large batch


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Figures of an index.

    Attributes:
        count: vectors that can be found.
        deleted: tombstones that still take room until :meth:`VectorIndex.compact`.
        bytes: memory that vectors, links and tables take.
        linked: vectors in the graph; the others are scanned.
    """

    count: int
    deleted: int
    bytes: int
    linked: int


class VectorIndex:
    """Nearest neighbours by cosine over vectors with an id of 64 bits.

    Up to ``exact_below`` vectors a search scans them all, in eight bits and in full where those leave it open, and
    what it finds is exact. Beyond, it follows a graph of near neighbours (HNSW, Malkov and Yashunin 2018), whose
    candidates are put in order by the true cosines; queries whose filter leaves few rows are scanned at every size.
    """

    def __init__(self, dim: int, *, exact_below: int = EXACT_BELOW) -> None:
        """An empty index.

        Args:
            dim: components of every vector, 1 to 65536.
            exact_below: up to so many vectors every search is a full scan, and exact.

        Raises:
            InputError: a number is out of its range.
        """
        _check_numbers(dim, exact_below)
        self._dim = dim
        self._native = core().VectorIndex(dim, exact_below)

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._dim

    def __len__(self) -> int:
        return len(self._native)

    def __contains__(self, number: int) -> bool:
        return number in self._native

    def add(self, ids: Ids | Sequence[int], vectors: Floats) -> None:
        """Add vectors, or replace those whose ids are there already. All or nothing.

        A batch of 64 or more is linked into the graph at once, by several threads; smaller ones take at most a few
        milliseconds, and what they leave unlinked is scanned.

        Args:
            ids: int64 [n], not negative; of equal ids the last one counts.
            vectors: float32 [n, dim]; any length but zero, normalised inside.

        Raises:
            InputError: shapes don't fit, or a vector is zero or holds NaN or infinity; names the first such row.
        """
        numbers = _ids(ids)
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.shape != (len(numbers), self._dim):
            raise InputError(f"vector index: {numbers.shape} ids, {rows.shape} vectors, dimension {self._dim}")
        self._native.add(numbers, rows, _THREADS)

    def remove(self, ids: Ids | Sequence[int]) -> int:
        """Remove vectors; unknown ids are passed over. Returns how many went."""
        return int(self._native.remove(_ids(ids)))

    def search(
        self, query: Floats, k: int, *, allowed: Ids | Sequence[int] | None = None, effort: int | None = None
    ) -> tuple[Ids, Floats]:
        """The ``k`` nearest vectors of each query, best first, of equally near ones the smaller id.

        Args:
            query: float32 [dim] or [q, dim]; normalised inside.
            k: 0 or more.
            allowed: ids that may be found; None: all. Unknown ones are passed over.
            effort: candidates that the graph keeps while it searches, 1 or more; more of them find more of the true
                neighbours and take longer. None: 64.

        Returns:
            Ids, int64 [q, k], and cosines, float32 [q, k]; where fewer are found, -1 and -inf fill up.

        Raises:
            InputError: shapes don't fit, a query is zero or not finite, or a number is out of its range.
        """
        return self._search(query, k, allowed, False, core().INDEX_EFFORT if effort is None else effort)

    def exact(self, query: Floats, k: int, *, allowed: Ids | Sequence[int] | None = None) -> tuple[Ids, Floats]:
        """The same as :meth:`search` by a full scan, whatever the size."""
        return self._search(query, k, allowed, True, 1)

    def _search(
        self, query: Floats, k: int, allowed: Ids | Sequence[int] | None, exact: bool, effort: int
    ) -> tuple[Ids, Floats]:
        queries = np.atleast_2d(np.asarray(query, dtype=np.float32))
        if queries.ndim != 2 or queries.shape[1] != self._dim or k < 0 or effort < 1:
            raise InputError(
                f"vector index: query of shape {queries.shape}, dimension {self._dim}, k {k}, effort {effort}"
            )
        ids, scores = self._native.search(queries, k, None if allowed is None else _ids(allowed), exact, effort)
        return ids, scores

    def compact(self) -> None:
        """Give back the room of removed vectors: afterwards nothing of them is in memory or in a saved file.

        Links everything that isn't linked yet, which takes a while for a large index.
        """
        self._native.compact(_THREADS)

    @property
    def stats(self) -> IndexStats:
        """Figures of the index."""
        return IndexStats(*self._native.stats())

    def save(self, path: str | Path, *, generation: int, embedder: str) -> None:
        """Write the index to a file, which it replaces as a whole: temporary sibling, fsync, rename.

        Args:
            path: file; its folder must exist.
            generation: of the store whose vectors these are, 0 to 2**63 - 1.
            embedder: what made the vectors, such as the hash of its file; at most 256 bytes.

        Raises:
            InputError: generation or embedder out of range.
            OSError: as the system reports it; an old file stays as it was.
            MemoryStoreError: writing failed half way, on a full disk for one; an old file stays as it was.
        """
        _check_origin(generation, embedder)
        with replacing(Path(path), mode=0o600) as stream:
            self._native.save(stream.name, generation, embedder)

    @classmethod
    def load(
        cls, path: str | Path, *, dim: int, generation: int, embedder: str, exact_below: int = EXACT_BELOW
    ) -> VectorIndex:
        """Read an index. Nothing in the file is trusted: bounds and checksum are verified before it is used.

        Raises:
            IndexStale: the file is missing, damaged or unreadable, or of another version, dimension, generation or
                embedder. Build the index again from the store.
            InputError: a number is out of its range.
        """
        _check_numbers(dim, exact_below)
        _check_origin(generation, embedder)
        index = cls.__new__(cls)
        index._dim = dim
        index._native = core().VectorIndex.load(str(path), dim, generation, embedder, exact_below)
        return index


def _check_numbers(dim: int, exact_below: int) -> None:
    if not 1 <= dim <= _MAX_DIM:
        raise InputError(f"vector index: dimension must be 1 to {_MAX_DIM}, found {dim}")
    if exact_below < 0:
        raise InputError(f"vector index: exact_below must not be negative, found {exact_below}")


def _check_origin(generation: int, embedder: str) -> None:
    if not 0 <= generation < 1 << 63:
        raise InputError(f"vector index: generation must be 0 to 2**63 - 1, found {generation}")
    size = len(embedder.encode("utf-8", "surrogatepass"))
    if size > _MAX_EMBEDDER:
        raise InputError(f"vector index: the embedder's name has {size} bytes, the limit is {_MAX_EMBEDDER}")


def _ids(ids: Ids | Sequence[int]) -> Ids:
    found = np.asarray(ids)
    whole = found.size == 0 or found.dtype.kind == "i" or (found.dtype.kind == "u" and found.max() < 1 << 63)
    if found.ndim != 1 or not whole:
        raise InputError(f"vector index: ids must be whole numbers [n], found {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)
