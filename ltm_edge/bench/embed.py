"""Cost of embedding texts: batched and one by one, the demo embedder in F16 and Q8_0, sentence-transformers beside it.

All ways take turns, round by round, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.bench.peers import NOT_INSTALLED
from ltm_edge.bench.report import Columns, Report, conditions, load_averages, table, this_machine
from ltm_edge.bench.table import number
from ltm_edge.embedders import demo_embedder_path
from ltm_edge.engine.embedder import Embedder, Vectors
from ltm_edge.engine.options import default_threads
from ltm_edge.models import find_demo_embedder_weights

__all__ = ["EmbedReport", "EmbedRow", "bench_embed"]

_WHO = ("My sister", "The old ferryman", "A stranger on the train", "Our manager", "The youngest of us")
_DID = (
    "kept the letter for eleven years without opening it",
    "asked whether the bridge would hold",
    "sold the piano and regretted it by noon",
    "remembered the song that her mother used to hum while the bread was in the oven",
)
_WHY = ("", "because it rained", "although everyone had warned them of just that, in long and careful letters")


@dataclass(frozen=True, slots=True)
class EmbedRow:
    """One way of embedding.

    Attributes:
        way: its name.
        note: why there are no figures.
        seconds: for all texts, the best of the rounds; None without figures.
        texts: number of texts.
        tokens: tokens computed; None where it is not known.
        cosine: the lowest cosine with the vectors of the first way, which is the demo embedder in F16, batched.
    """

    way: str
    note: str = ""
    seconds: float | None = None
    texts: int = 0
    tokens: int | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True)
class EmbedReport(Report):
    """One run of the benchmark.

    Attributes:
        machine: what the figures depend on.
        threads: CPU threads.
        rounds: how often all texts were embedded in each way.
        load_after: how busy the machine was in the end.
        rows: the ways.
    """

    machine: dict[str, Any]
    threads: int
    rounds: int
    load_after: list[float]
    rows: tuple[EmbedRow, ...]

    def ratio(self, way: str, other: str) -> float | None:
        """Time of a way over the time of another."""
        seconds = {row.way: row.seconds for row in self.rows}
        a, b = seconds.get(way), seconds.get(other)
        return a / b if a and b else None

    def summary(self) -> dict[str, float | None]:
        """Ratios of times."""
        first = self.rows[0].way.partition(",")[0]
        return {
            "batched_over_one_by_one": self.ratio(f"{first}, batched", f"{first}, one by one"),
            "q8_0_over_f16": self.ratio("Q8_0, batched", "F16, batched"),
            "batched_over_sentence_transformers": self.ratio("F16, batched", "sentence-transformers"),
        }

    def lines(self) -> list[str]:
        """The report for people."""
        figures = self.summary()
        return [
            conditions(self.machine, self.load_after),
            f"{self.rows[0].texts} texts, {self.threads} threads, best of {self.rounds} rounds; all ways take turns",
            "",
            table(_COLUMNS, self.rows),
            "",
            f"time, batched over one by one: {number(figures['batched_over_one_by_one'])}; Q8_0 over F16: "
            f"{number(figures['q8_0_over_f16'])}; F16 over sentence-transformers: "
            f"{number(figures['batched_over_sentence_transformers'])}",
        ]


_COLUMNS: Columns[EmbedRow] = {
    "": lambda row: row.way,
    "texts/s": lambda row: number(row.texts / row.seconds) if row.seconds else row.note,
    "ms/text": lambda row: number(1e3 * row.seconds / row.texts if row.seconds else None),
    "tokens/s": lambda row: number(row.tokens / row.seconds if row.seconds and row.tokens else None),
    "cosine": lambda row: f"{row.cosine:.5f}" if row.cosine is not None else "–",
}


def bench_embed(
    path: Path | None,
    rounds: int,
    count: int = 120,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> EmbedReport:
    """Measure embedding.

    Args:
        path: a GGUF file; None: the demo embedder in F16 and in Q8_0.
        rounds: how often.
        count: texts, of 5 to 40 words.
        threads: CPU threads; None: one per core.
        progress: told what is being measured.

    Raises:
        ModelError: the model can't be used.
    """
    machine = this_machine()
    threads = threads or default_threads()
    texts = _texts(count)
    files = {path.stem: path} if path else {"F16": demo_embedder_path("F16"), "Q8_0": demo_embedder_path("Q8_0")}
    ways: dict[str, Callable[[Sequence[str]], Vectors]] = {}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(Embedder.open(file, threads=threads)) for name, file in files.items()}
        for name, embedder in opened.items():
            ways[f"{name}, batched"] = embedder.embed
            ways[f"{name}, one by one"] = _one_by_one(embedder)
        peer = None if path else _sentence_transformers(threads)
        if peer is not None:
            ways["sentence-transformers"] = peer
        best = dict.fromkeys(ways, float("inf"))
        vectors = {way: embed(texts[:4]) for way, embed in ways.items()}  # everything is warm from here on
        for round_ in range(rounds):
            for way, embed in ways.items():
                progress(f"round {round_ + 1} of {rounds}, {way}")
                begin = time.perf_counter()
                vectors[way] = embed(texts)
                best[way] = min(best[way], time.perf_counter() - begin)
        tokens = {name: sum(len(embedder.tokens(text)) for text in texts) for name, embedder in opened.items()}
    first = next(iter(vectors.values()))
    rows = [
        EmbedRow(
            way,
            seconds=seconds,
            texts=len(texts),
            tokens=tokens.get(way.partition(",")[0]),
            cosine=float((first * vectors[way]).sum(1).min()),
        )
        for way, seconds in best.items()
    ]
    if path is None and peer is None:
        rows.append(EmbedRow("sentence-transformers", note=NOT_INSTALLED))
    return EmbedReport(machine, threads, rounds, load_averages(), tuple(rows))


def _texts(count: int) -> list[str]:
    return [
        " ".join(
            f"{_WHO[(i + k) % 5]} {_DID[(i // 5 + k) % 4]} {_WHY[(i // 20 + k) % 3]}".strip() + "."
            for k in range(1 + i % 3)
        )
        for i in range(count)
    ]


def _one_by_one(embedder: Embedder) -> Callable[[Sequence[str]], Vectors]:
    return lambda texts: np.concatenate([embedder.embed([text]) for text in texts])


def _sentence_transformers(threads: int) -> Callable[[Sequence[str]], Vectors] | None:
    """The same weights under sentence-transformers, or None if it isn't installed."""
    try:
        package: Any = importlib.import_module("sentence_transformers")
        importlib.import_module("torch").set_num_threads(threads)
    except ImportError:
        return None
    model = package.SentenceTransformer(str(find_demo_embedder_weights().path.parent), device="cpu")

    def embed(texts: Sequence[str]) -> Vectors:
        found: Vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return found

    return embed
