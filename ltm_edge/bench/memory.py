"""Cost of scene memory: the vector index beside other packages', adding a scene durably, scoring candidates.

Each index is built in batches, saved, dropped and opened again; queries come one at a time, from one thread, and every
query counts with its best of the rounds. A graph is asked with the least effort at which it finds enough.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm_edge.bench.memory_peers import Searcher, searchers, version_of
from ltm_edge.bench.memory_scenes import measure_adding, measure_scoring
from ltm_edge.bench.memory_vectors import DIM, clustered, sentences
from ltm_edge.bench.peers import NOT_INSTALLED
from ltm_edge.bench.report import Columns, Report, conditions, load_averages, table, this_machine
from ltm_edge.bench.table import Stats, number, stats
from ltm_edge.engine.options import default_threads
from ltm_edge.memory.index import EXACT_BELOW, Floats

__all__ = ["IndexRow", "IndexTable", "MemoryReport", "bench_memory"]

_K = 10
_RECALL = 0.98
_EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_QUERIES = 500
_BATCH = 4096
_TOGETHER = 200_000  # vectors up to which all indexes stay open and take turns
_REAL = 10_000  # vectors up to which real embeddings are measured too
_TIES = 1e-6  # as near as the last of the true neighbours counts as one of them

_clock = time.perf_counter_ns


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One index over one set of vectors.

    Attributes:
        engine: its name.
        version: of its package.
        note: why there are no figures.
        adds_per_s: vectors added per second, in batches, by all threads.
        disk: bytes of its file per vector.
        memory: bytes by which the process grew when it was opened, per vector; None where the system doesn't tell.
        open_s: seconds to open the file that was just written.
        open_cold_s: the same after the system was asked to forget the file's pages.
        effort: candidates that a graph keeps; None where there is nothing to choose.
        recall: share of the true ten nearest among the ten found.
        query: microseconds.
    """

    engine: str
    version: str = ""
    note: str = ""
    adds_per_s: float | None = None
    disk: float | None = None
    memory: float | None = None
    open_s: float | None = None
    open_cold_s: float | None = None
    effort: int | None = None
    recall: float | None = None
    query: Stats | None = None


@dataclass(frozen=True, slots=True)
class IndexTable:
    """All indexes over one set of vectors; ``chosen`` is the one of ours that a memory of this size uses."""

    vectors: str
    size: int
    chosen: str
    rows: tuple[IndexRow, ...]


@dataclass(frozen=True, slots=True)
class MemoryReport(Report):
    """One run of the benchmark.

    Attributes:
        machine: what the figures depend on.
        threads: that build an index.
        rounds: how often each query was asked.
        load_after: how busy the machine was in the end.
        tables: indexes.
        add: microseconds of :meth:`SceneMemory.add` until the scene is durable, embedding excluded.
        scoring: microseconds of scoring a thousand candidates by resonance.
    """

    machine: dict[str, Any]
    threads: int
    rounds: int
    load_after: list[float]
    tables: tuple[IndexTable, ...]
    add: Stats | None
    scoring: Stats | None

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [
            conditions(self.machine, self.load_after),
            f"{DIM} dimensions, {_K} neighbours; {self.threads} threads build, one asks; best of {self.rounds} rounds; "
            f"graphs with the least effort that finds {_RECALL:.0%}",
        ]
        for one in self.tables:
            lines += ["", f"{one.size} {one.vectors}; a memory of this size uses: {one.chosen}", ""]
            lines.append(table(_COLUMNS, one.rows))
        lines.append("")
        if self.add is not None:
            lines.append(
                f"adding a scene durably, without embedding: p50 {number(self.add.p50 / 1e3)} ms, "
                f"p99 {number(self.add.p99 / 1e3)} ms"
            )
        if self.scoring is not None:
            lines.append(
                f"resonance, 1000 candidates: p50 {number(self.scoring.p50 / 1e3)} ms, "
                f"p99 {number(self.scoring.p99 / 1e3)} ms"
            )
        return lines


_COLUMNS: Columns[IndexRow] = {
    "": lambda row: row.engine,
    "version": lambda row: row.version or row.note or "–",
    "recall@10": lambda row: f"{row.recall:.4f}" if row.recall is not None else row.note if row.version else "–",
    "effort": lambda row: number(row.effort),
    "p50 µs": lambda row: number(row.query.p50 if row.query else None),
    "p99 µs": lambda row: number(row.query.p99 if row.query else None),
    "adds/s": lambda row: number(row.adds_per_s),
    "bytes/scene, file": lambda row: number(row.disk),
    "memory": lambda row: number(row.memory),
    "open s": lambda row: number(row.open_s),
    "cold s": lambda row: number(row.open_cold_s),
}


def bench_memory(
    sizes: Sequence[int],
    rounds: int = 3,
    threads: int | None = None,
    patience: float = 1800.0,
    only: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> MemoryReport:
    """Measure scene memory.

    Args:
        sizes: numbers of vectors; up to ten thousand, real embeddings are measured beside made ones.
        rounds: how often each query is asked.
        threads: that build an index; None: one per core. Ours takes at most eight.
        patience: seconds after which building an index is given up, and noted.
        only: parts of the names of the indexes to measure; empty: all.
        progress: told what is being measured.
    """
    machine = this_machine()
    threads = threads or default_threads()
    tables = []
    with tempfile.TemporaryDirectory(prefix="ltm-edge-bench-") as folder:
        for size in sizes:
            sets: list[tuple[str, Callable[[int], Floats]]] = [("clustered vectors", clustered)]
            if size <= _REAL:
                sets.append(("embeddings of sentences", lambda count: sentences(count, threads)))
            for name, make in sets:
                progress(f"{size} {name}: making them")
                run = _Run(make(size + _QUERIES), size, Path(folder), rounds, threads, patience, progress)
                rows = run.rows([one for one in searchers() if not only or any(part in one.name for part in only)])
                chosen = "full scan" if size <= EXACT_BELOW else "graph"
                tables.append(IndexTable(name, size, chosen, tuple(rows)))
        progress("adding scenes")
        add = measure_adding(Path(folder) / "memory")
    progress("scoring candidates")
    scoring = measure_scoring()
    return MemoryReport(machine, threads, rounds, load_averages(), tuple(tables), add, scoring)


class _Run:
    """All indexes over one set of vectors, the last of which are the queries."""

    def __init__(
        self,
        vectors: Floats,
        size: int,
        folder: Path,
        rounds: int,
        threads: int,
        patience: float,
        progress: Callable[[str], None],
    ) -> None:
        self._vectors, self._queries = vectors[:size], vectors[size:]
        self._folder, self._rounds, self._threads = folder, rounds, threads
        self._patience, self._progress = patience, progress
        self._worst = _true_scores(self._vectors, self._queries)

    def rows(self, all_: Sequence[Searcher]) -> list[IndexRow]:
        """Measure each."""
        if len(self._vectors) > _TOGETHER:
            found = []
            for one in all_:
                row = self._open(one)
                found += self._ask([(one, row)])
                one.close()
            return found
        opened = [(one, self._open(one)) for one in all_]
        found = self._ask(opened)
        for one in all_:
            one.close()
        return found

    def _open(self, one: Searcher) -> IndexRow:
        """Build, save, drop, open."""
        row = IndexRow(one.name, version_of(one.package))
        size = len(self._vectors)
        self._progress(f"{size} vectors, {one.name}: building")
        begin = time.perf_counter()
        try:
            one.start(DIM, size, self._threads)
            for i in range(0, size, _BATCH):
                end = min(size, i + _BATCH)
                one.add(np.arange(i, end, dtype=np.int64), self._vectors[i:end])
                took = time.perf_counter() - begin
                if took > self._patience and end < size:
                    one.close()
                    return replace(row, note=f"{end} of {size} added in {took:.0f} s")
        except ImportError:
            if not one.package:  # ours is not an option
                raise
            return IndexRow(one.name, note=NOT_INSTALLED)
        took = time.perf_counter() - begin
        path = self._folder / "index"
        one.save(path)
        one.close()
        bytes_ = path.stat().st_size
        cold = None
        if _forget_pages(path):
            cold = _seconds(lambda: one.open(path))
            one.close()
        one.open(path)  # now its pages are there
        one.close()
        before = _resident()
        warm = _seconds(lambda: one.open(path))
        after = _resident()
        path.unlink()
        memory = (after - before) / size if before is not None and after is not None else None
        return replace(row, adds_per_s=size / took, disk=bytes_ / size, memory=memory, open_s=warm, open_cold_s=cold)

    def _ask(self, opened: Sequence[tuple[Searcher, IndexRow]]) -> list[IndexRow]:
        """Find the effort of each, then ask in turns."""
        chosen: list[tuple[int, float]] = []
        for one, row in opened:
            effort, recall = 0, 0.0
            if row.adds_per_s is not None:
                self._progress(f"{len(self._vectors)} vectors, {one.name}: recall")
                for effort in _EFFORTS if one.graph else (_K,):
                    recall = self._recall(one, effort)
                    if recall >= _RECALL:
                        break
            chosen.append((effort, recall))
        times: list[list[list[int]]] = [[] for _ in opened]
        for round_ in range(self._rounds):
            self._progress(f"{len(self._vectors)} vectors: queries, round {round_ + 1} of {self._rounds}")
            for (one, row), (effort, _), taken in zip(opened, chosen, times, strict=True):
                if row.adds_per_s is None:
                    continue
                taken.append([])
                for query in self._queries:
                    begin = _clock()
                    one.search(query, _K, effort)
                    taken[-1].append(_clock() - begin)
        return [
            replace(row, effort=effort if one.graph else None, recall=recall, query=stats(taken))
            if row.adds_per_s is not None
            else row
            for (one, row), (effort, recall), taken in zip(opened, chosen, times, strict=True)
        ]

    def _recall(self, one: Searcher, effort: int) -> float:
        hits = 0
        for query, worst in zip(self._queries, self._worst, strict=True):
            ids = one.search(query, _K, effort)
            ids = np.unique(ids[(ids >= 0) & (ids < len(self._vectors))])
            hits += int((self._vectors[ids] @ query >= worst - _TIES).sum())
        return hits / (_K * len(self._queries))


def _true_scores(vectors: Floats, queries: Floats) -> npt.NDArray[np.float32]:
    """The cosine of the last of each query's true neighbours, float32 [q]."""
    best = np.full((len(queries), _K), -np.inf, dtype=np.float32)
    for i in range(0, len(vectors), 50_000):
        scores = np.concatenate([best, queries @ vectors[i : i + 50_000].T], axis=1)
        best = np.partition(scores, scores.shape[1] - _K, axis=1)[:, -_K:]
    found: npt.NDArray[np.float32] = best.min(axis=1)
    return found


def _seconds(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _forget_pages(path: Path) -> bool:
    """Ask the system to drop a file's pages from its cache; False where that can't be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return True


def _resident() -> int | None:
    """Bytes of this process in memory, after what is free was given back; None where the system doesn't tell."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
