"""Cost of grammar masks: our engine and others on the same vocabularies, grammars and documents, in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.bench.documents import Case, cases
from ltm_edge.bench.replay import replay
from ltm_edge.bench.report import Report, conditions, this_machine
from ltm_edge.bench.rows import MaskRow
from ltm_edge.bench.table import number, render, stats
from ltm_edge.native import core

__all__ = ["MaskReport", "MaskTable", "bench_masks"]

_COLD_ROUNDS = 5
_clock = time.perf_counter_ns
_processor = time.process_time_ns


@dataclass(frozen=True, slots=True)
class MaskTable:
    """All engines on one vocabulary and one document."""

    vocabulary: str
    size: int
    case: str
    tokens: int
    rows: tuple[MaskRow, ...]


@dataclass(frozen=True, slots=True)
class MaskReport(Report):
    """One run of the benchmark; times in microseconds unless a name says otherwise."""

    machine: dict[str, Any]
    rounds: int
    tables: tuple[MaskTable, ...]

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [
            conditions(self.machine),
            f"Masks and accepts: µs, mean / p50 / p99 / max over a document's tokens, each token with its best of "
            f"{self.rounds} rounds (cold: of {min(self.rounds, _COLD_ROUNDS)}).",
            "Set-up, and llama.cpp over the whole vocabulary: processor time, since a clock counts what others do; "
            "every engine uses one thread.",
            "Every engine is called from Python, one call a mask; 'inside' is the same without the call, from native "
            "code.",
        ]
        for table in self.tables:
            lines += ["", f"{table.vocabulary}: {table.size} tokens; document '{table.case}': {table.tokens} tokens"]
            lines.append(render(_HEAD, [_cells(row) for row in table.rows]))
            lines += [f"{row.engine}: {row.note}" for row in table.rows if row.note]
            lines += _forcing(table)
        return lines


_HEAD = ("", "vocabulary ms", "cached", "first mask ms", "mask, cold", "mask, warm", "accept", "memory KiB")


def _cells(row: MaskRow) -> tuple[str, ...]:
    if row.note and row.warm is None:
        return (row.engine, *(row.note.split(":")[0],), *("",) * (len(_HEAD) - 2))
    return (
        f"{row.engine} {row.version}".rstrip(),
        number(row.vocabulary_ms),
        number(row.cached_ms),
        number(row.first_mask_ms),
        str(row.cold) if row.cold else "–",
        str(row.warm) if row.warm else "–",
        str(row.accept) if row.accept else "–",
        number(None if row.memory is None else row.memory / 1024),
    )


def _forcing(table: MaskTable) -> list[str]:
    lines = []
    for row in table.rows:
        if row.exact is not None:
            lines.append(f"{row.engine}: masks with a budget of just the tokens left: {row.exact} µs")
        if row.written is not None:
            done = row.written
            line = (
                f"{row.engine}: {done.forced} of {done.tokens} tokens forced ({done.forced / done.tokens:.0%}) in "
                f"{done.jumps} jumps, {done.non_canonical} of them not the tokenizer's"
            )
            if row.determined is not None:
                line += f"; the grammar determines {row.determined}, in {row.slots} slots"
            lines.append(line)
        elif row.forced_places is not None:
            lines.append(f"{row.engine}: forced text before {row.forced_places} of {table.tokens} tokens")
    return lines


class OwnVocab:
    """A vocabulary as our engine sees it."""

    def __init__(self, path: Path) -> None:
        native = core()
        options = native.ModelOptions()
        options.path = str(path)
        options.vocab_only = True
        self.model: Any = native.Model.load(options)
        begin = _processor()
        self.vocab: Any = self.model.grammar_vocab()
        self.cold_ms = (_processor() - begin) / 1e6
        self.cached_ms = self._cached()
        self._lead = b"\n"

    def _cached(self) -> float:
        """Milliseconds from a file to a vocabulary; the file was just written, so it is in the system's cache."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocab"
            file.write_bytes(self.vocab.serialise())
            times = []
            for _ in range(3):
                begin = _processor()
                core().Vocab.deserialise(file.read_bytes())
                times.append(_processor() - begin)
        return float(np.median(times)) / 1e6

    def cut(self, text: bytes) -> list[int]:
        """Tokens of ``text`` as it stands inside a document: nothing is put in front of it."""
        lead = [int(token) for token in self.model.tokenize(self._lead)]
        whole = [int(token) for token in self.model.tokenize(self._lead + text)]
        if whole[: len(lead)] == lead:
            return whole[len(lead) :]
        return [int(token) for token in self.model.tokenize(text)]

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""
        return bytes(self.vocab.piece(token))


class _OwnForcing:
    def __init__(self, matcher: Any, cut: Callable[[bytes], list[int]]) -> None:
        self._matcher = matcher
        self._cut = lambda text: np.array(cut(text), dtype=np.int32)

    def accept(self, token: int) -> None:
        if not self._matcher.accept(token):
            raise ValueError("a token of the document is not allowed")

    def forced(self, may_replace: int) -> tuple[int, Sequence[int]]:
        replaced, tokens = self._matcher.forced_tokens(self._cut, may_replace)
        if len(tokens):
            self._matcher.rollback(replaced)
            for token in tokens:
                self.accept(int(token))
        return int(replaced), [int(token) for token in tokens]


def own_rows(own: OwnVocab, case: Case, tokens: Sequence[int], rounds: int) -> list[MaskRow]:
    """Our engine, called from Python and timed inside."""
    native = core()
    array = np.array(tokens, dtype=np.int32)
    inside = native.bench_masks(case.gbnf, own.vocab, array, min(rounds, _COLD_ROUNDS), rounds)
    first: list[int] = []
    cold: list[list[int]] = []
    warm: list[list[int]] = []
    accepts: list[list[int]] = []
    cache: Any = None
    for part, count in ((cold, min(rounds, _COLD_ROUNDS)), (warm, rounds)):
        for _ in range(count):
            if part is cold:
                begin = _processor()
                matcher = native.Matcher(native.MaskCache(native.Grammar(case.gbnf), own.vocab))
                matcher.mask()
                first.append(_processor() - begin)
                cache = native.MaskCache(native.Grammar(case.gbnf), own.vocab)
            matcher = native.Matcher(cache)
            part.append([])
            accepts.append([])
            for token in tokens:
                start = _clock()
                matcher.mask()
                between = _clock()
                matcher.accept(token)
                accepts[-1].append(_clock() - between)
                part[-1].append(between - start)
    written = replay(case.document.encode(), own.cut, own.piece, _OwnForcing(native.Matcher(cache), own.cut))
    determined, slots = _determined(native.Matcher(cache), own, tokens)
    return [
        MaskRow(
            "ltm-edge",
            vocabulary_ms=own.cold_ms,
            cached_ms=own.cached_ms,
            first_mask_ms=float(np.median(first)) / 1e6,
            cold=stats(cold),
            warm=stats(warm),
            accept=stats(accepts[len(cold) :]),
            written=written,
            determined=determined,
            slots=slots,
            memory=int(inside["bytes"]),
        ),
        MaskRow(
            "ltm-edge, inside",
            first_mask_ms=float(np.min(inside["first_mask"])) / 1e6,
            cold=stats(inside["cold_mask"]),
            warm=stats(inside["warm_mask"]),
            exact=stats(inside["exact_mask"]),
            accept=stats(inside["warm_accept"]),
        ),
    ]


def _determined(matcher: Any, own: OwnVocab, tokens: Sequence[int]) -> tuple[int, int]:
    """Tokens that lie within the text that the grammar determines before them, and the runs of others."""
    count = slots = 0
    inside = False
    for token in tokens:
        known = bytes(matcher.forced_bytes()).startswith(own.piece(token))
        count += known
        slots += not known and not inside
        inside = not known
        matcher.accept(token)
    return count, slots


def bench_masks(paths: Sequence[Path], rounds: int, progress: Callable[[str], None] = lambda _: None) -> MaskReport:
    """Measure all engines that are installed.

    Args:
        paths: GGUF files; vocabulary-only ones will do.
        rounds: how often a document is walked.
        progress: told what is being measured.

    Raises:
        ModelError: a file has no vocabulary that llama.cpp can read.
    """
    from ltm_edge.bench import peers

    machine = this_machine()
    tables = []
    for path in paths:
        own = OwnVocab(path)
        with closing(peers.PeerVocab(path)) as theirs:
            for case in cases():
                progress(f"{path.name}, {case.name}")
                tokens = own.cut(case.document.encode())
                rows = own_rows(own, case, tokens, rounds)
                rows += peers.llama_rows(theirs, case, tokens, rounds)
                rows.append(peers.llguidance_row(theirs, case, tokens, own.cut, rounds))
                rows.append(peers.xgrammar_row(theirs, case, tokens, rounds))
                tables.append(MaskTable(path.name, theirs.size, case.name, len(tokens), tuple(rows)))
    return MaskReport(machine, rounds, tuple(tables))
