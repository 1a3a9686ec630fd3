"""Indexes of vectors, ours and others', each measured in the same way: built, saved, opened, asked one query at a time.

hnswlib, usearch and FAISS are optional. Graphs are built alike: 16 links (32 on the lowest level), effort 200.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ltm_edge.memory.index import Floats, Ids, VectorIndex

__all__ = ["Searcher", "searchers", "version_of"]

_LINKS = 16
_BUILD_EFFORT = 200


class Searcher(Protocol):
    """One index. ``graph`` says whether it has an effort to choose; others find everything."""

    name: str
    package: str
    graph: bool

    def start(self, dim: int, capacity: int, threads: int) -> None:
        """Make it, empty. ImportError: the package isn't there."""

    def add(self, ids: Ids, vectors: Floats) -> None:
        """Add a batch of unit vectors."""

    def save(self, path: Path) -> None:
        """Write it to a file."""

    def open(self, path: Path) -> None:
        """Read it from a file; what there was in memory is dropped before."""

    def close(self) -> None:
        """Drop it."""

    def search(self, query: Floats, k: int, effort: int) -> Ids:
        """Ids of the nearest of one query, float32 [dim], by one thread."""


def version_of(package: str) -> str:
    """Version of an installed package; empty if it isn't, or is ours."""
    try:
        return importlib.metadata.version(package) if package else ""
    except importlib.metadata.PackageNotFoundError:
        return ""


class _Ours:
    package = ""

    def __init__(self, name: str, graph: bool) -> None:
        self.name = name
        self.graph = graph
        self._index: VectorIndex | None = None
        self._exact_below = 0 if graph else 1 << 40

    def start(self, dim: int, capacity: int, threads: int) -> None:
        self._dim = dim
        self._index = VectorIndex(dim, exact_below=self._exact_below)

    def add(self, ids: Ids, vectors: Floats) -> None:
        assert self._index is not None
        self._index.add(ids, vectors)

    def save(self, path: Path) -> None:
        assert self._index is not None
        self._index.save(path, generation=1, embedder="bench")

    def open(self, path: Path) -> None:
        self._index = VectorIndex.load(
            path, dim=self._dim, generation=1, embedder="bench", exact_below=self._exact_below
        )

    def close(self) -> None:
        self._index = None

    def search(self, query: Floats, k: int, effort: int) -> Ids:
        assert self._index is not None
        found: Ids = self._index.search(query, k, effort=effort)[0][0]
        return found


class _Numpy:
    name = "numpy"
    package = "numpy"
    graph = False

    def start(self, dim: int, capacity: int, threads: int) -> None:
        self._rows: Any = np.empty((capacity, dim), dtype=np.float32)
        self._count = 0

    def add(self, ids: Ids, vectors: Floats) -> None:
        self._rows[self._count : self._count + len(ids)] = vectors
        self._count += len(ids)

    def save(self, path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, self._rows)

    def open(self, path: Path) -> None:
        with path.open("rb") as stream:
            self._rows = np.load(stream)

    def close(self) -> None:
        self._rows = None

    def search(self, query: Floats, k: int, effort: int) -> Ids:
        scores = self._rows @ query
        best = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        found: Ids = best[np.argsort(-scores[best])]
        return found


class _Hnswlib:
    name = "hnswlib"
    package = "hnswlib"
    graph = True

    def start(self, dim: int, capacity: int, threads: int) -> None:
        self._package = importlib.import_module("hnswlib")
        self._dim, self._threads = dim, threads
        self._index: Any = self._package.Index(space="ip", dim=dim)
        self._index.init_index(max_elements=capacity, M=_LINKS, ef_construction=_BUILD_EFFORT)

    def add(self, ids: Ids, vectors: Floats) -> None:
        self._index.add_items(vectors, ids, num_threads=self._threads)

    def save(self, path: Path) -> None:
        self._index.save_index(str(path))

    def open(self, path: Path) -> None:
        self._index = self._package.Index(space="ip", dim=self._dim)
        self._index.load_index(str(path))
        self._effort = 0

    def close(self) -> None:
        self._index = None

    def search(self, query: Floats, k: int, effort: int) -> Ids:
        if effort != self._effort:
            self._index.set_ef(effort)
            self._effort = effort
        found: Ids = self._index.knn_query(query, k=k, num_threads=1)[0][0].astype(np.int64)
        return found


class _Usearch:
    name = "usearch"
    package = "usearch"
    graph = True

    def start(self, dim: int, capacity: int, threads: int) -> None:
        self._package = importlib.import_module("usearch.index")
        self._dim, self._threads = dim, threads
        self._index: Any = self._make()

    def _make(self) -> Any:
        return self._package.Index(
            ndim=self._dim, metric="ip", dtype="f32", connectivity=_LINKS, expansion_add=_BUILD_EFFORT
        )

    def add(self, ids: Ids, vectors: Floats) -> None:
        self._index.add(ids.astype(np.uint64), vectors, threads=self._threads)

    def save(self, path: Path) -> None:
        self._index.save(str(path))

    def open(self, path: Path) -> None:
        self._index = self._make()
        self._index.load(str(path))

    def close(self) -> None:
        self._index = None

    def search(self, query: Floats, k: int, effort: int) -> Ids:
        if effort != self._index.expansion_search:
            self._index.expansion_search = effort
        found: Ids = np.asarray(self._index.search(query, k, threads=1).keys).astype(np.int64)
        return found


class _Faiss:
    package = "faiss-cpu"

    def __init__(self, name: str, graph: bool) -> None:
        self.name = name
        self.graph = graph

    def start(self, dim: int, capacity: int, threads: int) -> None:
        self._package = importlib.import_module("faiss")
        self._package.omp_set_num_threads(threads)
        if self.graph:
            self._index: Any = self._package.IndexHNSWFlat(dim, _LINKS, self._package.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = _BUILD_EFFORT
        else:
            self._index = self._package.IndexFlatIP(dim)

    def add(self, ids: Ids, vectors: Floats) -> None:
        self._index.add(vectors)  # it numbers them itself, from 0 in this order

    def save(self, path: Path) -> None:
        self._package.write_index(self._index, str(path))

    def open(self, path: Path) -> None:
        self._index = self._package.read_index(str(path))
        self._package.omp_set_num_threads(1)

    def close(self) -> None:
        self._index = None

    def search(self, query: Floats, k: int, effort: int) -> Ids:
        if self.graph and effort != self._index.hnsw.efSearch:
            self._index.hnsw.efSearch = effort
        found: Ids = self._index.search(query[None], k)[1][0]
        return found


def searchers() -> list[Searcher]:
    """Fresh ones, in the order of the table."""
    return [
        _Ours("ltm-edge, full scan", False),
        _Ours("ltm-edge, graph", True),
        _Numpy(),
        _Faiss("faiss, flat", False),
        _Hnswlib(),
        _Usearch(),
        _Faiss("faiss, HNSW", True),
    ]
