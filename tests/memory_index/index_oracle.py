"""The vector index: which scenes are nearest in meaning.

A cache of the store of record, which can always be built again from it. Searches may run in several threads at once;
adding, removing, compacting and saving wait for them and for each other.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import IndexStale, InputError
from ltm_edge.files import write_atomic

__all__ = ["EXACT_BELOW", "IndexStale", "IndexStats", "VectorIndex"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

EXACT_BELOW = 16384
"""Vectors up to which a full scan is as fast as the graph."""

_MAGIC = b"LTMVIDX0"


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
    """Nearest neighbours by cosine over vectors with an id of 64 bits."""

    def __init__(self, dim: int, *, exact_below: int = EXACT_BELOW) -> None:
        """An empty index.

        Args:
            dim: components of every vector, 1 to 65536.
            exact_below: up to so many vectors every search is a full scan, and exact.

        Raises:
            InputError: a number is out of its range.
        """
        if not 1 <= dim <= 65536:
            raise InputError(f"vector index: dimension must be 1 to 65536, found {dim}")
        if exact_below < 0:
            raise InputError(f"vector index: exact_below must not be negative, found {exact_below}")
        self._dim = dim
        self._rows: dict[int, Floats] = {}
        self._matrix: tuple[Ids, Floats] | None = None  # the rows by id in one block, until the next change
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._dim

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def add(self, ids: Ids | Sequence[int], vectors: Floats) -> None:
        """Add vectors, or replace those whose ids are there already. All or nothing.

        Args:
            ids: int64 [n], not negative; of equal ids the last one counts.
            vectors: float32 [n, dim]; any length but zero, normalised inside.

        Raises:
            InputError: shapes don't fit, or a vector is zero or holds NaN or infinity; names the first such row.
        """
        numbers = _ids(ids)
        if len(numbers) and numbers.min() < 0:
            raise InputError(f"vector index: ids must not be negative, found {numbers.min()}")
        rows = np.asarray(vectors, dtype=np.float32)
        if numbers.ndim != 1 or rows.shape != (len(numbers), self._dim):
            raise InputError(f"vector index: {numbers.shape} ids, {rows.shape} vectors, dimension {self._dim}")
        norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if len(bad):
            raise InputError(f"vector index: row {bad[0]} is zero or not finite; embed the text again")
        with self._lock:
            for number, row, norm in zip(numbers.tolist(), rows, norms, strict=True):
                self._rows[number] = (row / norm).astype(np.float32)
            self._matrix = None

    def remove(self, ids: Ids | Sequence[int]) -> int:
        """Remove vectors; unknown ids are passed over. Returns how many went."""
        with self._lock:
            self._matrix = None
            return sum(self._rows.pop(number, None) is not None for number in _ids(ids).tolist())

    def search(self, query: Floats, k: int, *, allowed: Ids | Sequence[int] | None = None) -> tuple[Ids, Floats]:
        """The ``k`` nearest vectors of each query, best first, of equally near ones the smaller id.

        A full scan at every size for now, so exact; ``exact_below`` is where an approximate graph is to take over.

        Args:
            query: float32 [dim] or [q, dim]; normalised inside.
            k: 0 or more.
            allowed: ids that may be found; None: all. Unknown ones are passed over.

        Returns:
            Ids, int64 [q, k], and cosines, float32 [q, k]; where fewer are found, -1 and -inf fill up.

        Raises:
            InputError: shapes don't fit, a query is zero or not finite, or k is negative.
        """
        return self.exact(query, k, allowed=allowed)

    def exact(self, query: Floats, k: int, *, allowed: Ids | Sequence[int] | None = None) -> tuple[Ids, Floats]:
        """The same as :meth:`search` by a full scan, whatever the size."""
        queries = np.atleast_2d(np.asarray(query, dtype=np.float32))
        if queries.ndim != 2 or queries.shape[1] != self._dim or k < 0:
            raise InputError(f"vector index: query of shape {queries.shape}, dimension {self._dim}, k {k}")
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise InputError("vector index: a query is zero or not finite")
        numbers, block = self._block()
        if allowed is not None:
            chosen = np.isin(numbers, _ids(allowed))
            numbers, block = numbers[chosen], block[chosen]
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        if len(numbers):
            cosines = (queries / norms) @ block.T
            found = min(k, len(numbers))
            for row in range(len(queries) if found else 0):
                cosine = cosines[row]
                worst = np.partition(cosine, len(cosine) - found)[len(cosine) - found]
                near = np.flatnonzero(cosine >= worst)  # in the order of ids, which a stable sort keeps among equals
                near = near[np.argsort(-cosine[near], kind="stable")[:found]]
                ids[row, :found] = numbers[near]
                scores[row, :found] = cosine[near]
        return ids, scores

    def _block(self) -> tuple[Ids, Floats]:
        with self._lock:
            if self._matrix is None:
                numbers = np.array(sorted(self._rows), dtype=np.int64)
                block = np.empty((len(numbers), self._dim), dtype=np.float32)
                for place, number in enumerate(numbers.tolist()):
                    block[place] = self._rows[number]
                self._matrix = numbers, block
            return self._matrix

    def compact(self) -> None:
        """Give back the room of removed vectors: afterwards nothing of them is in memory or in a saved file."""

    @property
    def stats(self) -> IndexStats:
        """Figures of the index."""
        return IndexStats(len(self), 0, len(self) * self._dim * 4, 0)

    def save(self, path: str | Path, *, generation: int, embedder: str) -> None:
        """Write the index to a file, which it replaces as a whole: temporary sibling, fsync, rename.

        Args:
            path: file; its folder must exist.
            generation: of the store whose vectors these are, 0 to 2**63 - 1.
            embedder: what made the vectors, such as the hash of its file; at most 256 bytes.

        Raises:
            InputError: generation or embedder out of range.
            OSError: as the system reports it; an old file stays as it was.
        """
        numbers, block = self._block()
        body = numbers.tobytes() + block.tobytes()
        head = json.dumps([self._dim, len(numbers), generation, embedder]).encode() + b"\n"
        write_atomic(Path(path), _MAGIC + hashlib.sha256(head + body).digest() + head + body, mode=0o600)

    @classmethod
    def load(
        cls, path: str | Path, *, dim: int, generation: int, embedder: str, exact_below: int = EXACT_BELOW
    ) -> VectorIndex:
        """Read an index. Nothing in the file is trusted: bounds and checksum are verified before it is used.

        Raises:
            IndexStale: the file is missing, damaged or unreadable, or of another version, dimension, generation or
                embedder. Build the index again from the store.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise IndexStale(f"{path}: {error.strerror}") from None
        if data[:8] != _MAGIC or hashlib.sha256(data[40:]).digest() != data[8:40]:
            raise IndexStale(f"{path}: not a whole vector index of this version")
        head, _, body = data[40:].partition(b"\n")
        found = json.loads(head)
        if [found[0], *found[2:]] != [dim, generation, embedder]:
            raise IndexStale(f"{path}: of dimension, generation and embedder {found}")
        index = cls(dim, exact_below=exact_below)
        numbers = np.frombuffer(body, dtype=np.int64, count=found[1])
        rows = np.frombuffer(body, dtype=np.float32, offset=numbers.nbytes).reshape(-1, dim)
        index._rows = dict(zip(numbers.tolist(), rows, strict=True))
        return index


def _ids(ids: Ids | Sequence[int]) -> Ids:
    found = np.asarray(ids)
    whole = found.size == 0 or found.dtype.kind == "i" or (found.dtype.kind == "u" and found.max() < 1 << 63)
    if found.ndim != 1 or not whole:
        raise InputError(f"vector index: ids must be whole numbers [n], found {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)
