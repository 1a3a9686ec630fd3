"""The other grammar engines, each measured in the same way: its own calls, timed one by one from Python.

llama_cpp is imported here only, for its C functions; llguidance and xgrammar are optional.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.bench.documents import Case
from ltm_edge.bench.replay import replay
from ltm_edge.bench.rows import MaskRow
from ltm_edge.bench.table import stats
from ltm_edge.errors import ModelError
from ltm_edge.native import core

__all__ = ["NOT_INSTALLED", "PeerVocab", "llama_rows", "llguidance_row", "xgrammar_row"]

NOT_INSTALLED = "not installed"
_SLOW_ROUNDS = 2  # of llama.cpp over the whole vocabulary: 5 to 100 ms a token

_clock = time.perf_counter_ns
_processor = time.process_time_ns


class PeerVocab:
    """A vocabulary as llama.cpp's C functions see it, without weights."""

    def __init__(self, path: Path) -> None:
        """Read it from a GGUF file. Raises ModelError if llama.cpp can't."""
        native = core()
        self.llama: Any = importlib.import_module("llama_cpp")
        # When it is imported it takes llama.cpp's log, for a function in Python, which prints and may lose a Ctrl-C.
        native.take_log()
        params = self.llama.llama_model_default_params()
        params.vocab_only = True
        self._model = self.llama.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp can't read its vocabulary")
        self.handle: Any = self.llama.llama_model_get_vocab(self._model)
        self.size = int(self.llama.llama_vocab_n_tokens(self.handle))
        self._pieces: list[bytes] | None = None

    @property
    def pieces(self) -> list[bytes]:
        """The bytes of every token."""
        if self._pieces is None:
            room = ctypes.create_string_buffer(4096)
            get = self.llama.llama_token_to_piece
            lengths = ((get(self.handle, token, room, 4096, 0, True)) for token in range(self.size))
            self._pieces = [room.raw[: max(length, 0)] for length in lengths]
        return self._pieces

    def close(self) -> None:
        """Free it."""
        self.llama.llama_model_free(self._model)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def llama_rows(vocab: PeerVocab, case: Case, tokens: Sequence[int], rounds: int) -> list[MaskRow]:
    """llama.cpp's sampler over the whole vocabulary, and over one candidate (the check of a sampled token)."""
    llama = vocab.llama
    text = case.gbnf.encode()
    kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    whole = np.zeros(vocab.size, dtype=kind)
    one = np.zeros(1, dtype=kind)

    def array(candidates: Any) -> Any:
        data = candidates.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
        return llama.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)

    def fill() -> None:
        whole["id"] = np.arange(vocab.size)
        whole["logit"] = 0.0

    def run(count: int, full: bool) -> tuple[list[int], list[list[int]], list[list[int]]]:
        first: list[int] = []
        masks: list[list[int]] = []
        accepts: list[list[int]] = []
        clock = _processor if full else _clock
        for _ in range(count):
            masks.append([])
            accepts.append([])
            fill()
            begin = _processor()
            sampler = llama.llama_sampler_init_grammar(vocab.handle, text, b"root")
            if not sampler:
                raise ValueError("llama.cpp refused the grammar")
            try:
                for i, token in enumerate(tokens):
                    if full:
                        if i:
                            fill()
                        candidates = array(whole)
                    else:
                        one[0] = (token, 0.0, 0.0)
                        candidates = array(one)
                    start = clock()
                    llama.llama_sampler_apply(sampler, ctypes.byref(candidates))
                    between = clock()
                    if i == 0:
                        first.append(_processor() - begin)
                    if not np.isfinite(whole["logit"][token] if full else one["logit"][0]):
                        raise ValueError(f"llama.cpp does not allow token {i} of the document")
                    before = _clock()
                    llama.llama_sampler_accept(sampler, token)
                    accepts[-1].append(_clock() - before)
                    masks[-1].append(between - start)
            finally:
                llama.llama_sampler_free(sampler)
        return first, masks, accepts

    rows = []
    for name, full, count in (
        ("llama.cpp, whole vocabulary", True, min(rounds, _SLOW_ROUNDS)),
        ("llama.cpp, one candidate", False, rounds),
    ):
        try:
            first, masks, accepts = run(count, full)
        except ValueError as error:
            rows.append(MaskRow(name, note=str(error)))
            continue
        rows.append(
            MaskRow(
                name,
                version=_version("llama-cpp-python"),
                first_mask_ms=float(np.median(first)) / 1e6,
                warm=stats(masks),
                accept=stats(accepts),
            )
        )
    return rows


class _LlguidanceForcing:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise ValueError("llguidance does not allow a token of the document")

    def forced(self, may_replace: int) -> tuple[int, Sequence[int]]:
        tokens = list(self._matcher.compute_ff_tokens())
        if tokens:
            self._matcher.consume_tokens(tokens)
        return 0, tokens


def _spelled_out(gbnf: str) -> str:
    """The same grammar with ``\\uNNNN`` and ``\\UNNNNNNNN`` as the characters themselves.

    llguidance's converter from GBNF writes them without leading zeros, which its own regular expressions don't take.
    """
    return re.sub(r"\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})", lambda m: chr(int(m[1] or m[2], 16)), gbnf)


def llguidance_row(
    vocab: PeerVocab, case: Case, tokens: Sequence[int], cut: Callable[[bytes], list[int]], rounds: int
) -> MaskRow:
    """llguidance: its masks into a numpy array."""
    name = "llguidance"
    try:
        masks_of: Any = importlib.import_module("llguidance.numpy")
        matcher_type: Any = importlib.import_module("llguidance").LLMatcher
        to_lark: Any = importlib.import_module("llguidance.gbnf_to_lark").gbnf_to_lark
        make_tokenizer: Any = importlib.import_module("llguidance.llamacpp").lltokenizer_from_vocab
    except ImportError:
        return MaskRow(name, note=NOT_INSTALLED)
    try:
        grammar = matcher_type.grammar_from_lark(to_lark(_spelled_out(case.gbnf)))
        begin = _processor()
        tokenizer = make_tokenizer(vocab.handle)
        vocabulary_ms = (_processor() - begin) / 1e6
        first: list[int] = []
        cold: list[list[int]] = []
        warm: list[list[int]] = []
        accepts: list[list[int]] = []
        bits = masks_of.allocate_token_bitmask(1, tokenizer.vocab_size)
        matcher: Any = None
        for part, count in ((cold, min(rounds, 5)), (warm, rounds)):
            for _ in range(count):
                if part is cold:
                    begin = _processor()
                    matcher = matcher_type(tokenizer, grammar)
                    masks_of.fill_next_token_bitmask(matcher, bits, 0)
                    first.append(_processor() - begin)
                    if matcher.is_error():
                        raise ValueError(matcher.get_error())
                    matcher = matcher_type(tokenizer, grammar)
                else:
                    matcher.reset()
                part.append([])
                accepts.append([])
                for i, token in enumerate(tokens):
                    start = _clock()
                    masks_of.fill_next_token_bitmask(matcher, bits, 0)
                    between = _clock()
                    taken = matcher.consume_token(token)
                    accepts[-1].append(_clock() - between)
                    part[-1].append(between - start)
                    if not taken:
                        raise ValueError(f"it does not allow token {i} of the document")
        matcher.reset()
        pieces = vocab.pieces
        written = replay(case.document.encode(), cut, lambda token: pieces[token], _LlguidanceForcing(matcher))
    except Exception as error:  # whatever another engine raises is a fact of the measurement
        return MaskRow(name, version=_version(name), note=_one_line(error))
    return MaskRow(
        name,
        version=_version(name),
        vocabulary_ms=vocabulary_ms,
        first_mask_ms=float(np.median(first)) / 1e6,
        cold=stats(cold),
        warm=stats(warm),
        accept=stats(accepts[len(cold) :]),
        written=written,
    )


def xgrammar_row(vocab: PeerVocab, case: Case, tokens: Sequence[int], rounds: int) -> MaskRow:
    """XGrammar: its masks into a torch tensor; it computes most of them while it compiles."""
    name = "xgrammar"
    try:
        xgrammar: Any = importlib.import_module(name)
        importlib.import_module("torch").set_num_threads(1)
    except ImportError:
        return MaskRow(name, note=NOT_INSTALLED)
    try:
        pieces = vocab.pieces
        begin = _processor()
        info = xgrammar.TokenizerInfo(
            pieces,
            vocab_type=xgrammar.VocabType.RAW,
            vocab_size=vocab.size,
            stop_token_ids=[vocab.llama.llama_vocab_eos(vocab.handle)],
        )
        vocabulary_ms = (_processor() - begin) / 1e6
        bits = xgrammar.allocate_token_bitmask(1, vocab.size)
        begin = _processor()
        compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_grammar(case.gbnf)
        matcher = xgrammar.GrammarMatcher(compiled)
        matcher.fill_next_token_bitmask(bits, 0)
        first_ms = (_processor() - begin) / 1e6
        cold: list[list[int]] = []
        warm: list[list[int]] = []
        accepts: list[list[int]] = []
        jumps = 0
        for round_ in range(rounds + 1):
            part = warm if round_ else cold
            matcher = xgrammar.GrammarMatcher(compiled)
            part.append([])
            accepts.append([])
            for i, token in enumerate(tokens):
                if round_ == 0:
                    jumps += bool(matcher.find_jump_forward_string())
                start = _clock()
                matcher.fill_next_token_bitmask(bits, 0)
                between = _clock()
                taken = matcher.accept_token(int(token))
                accepts[-1].append(_clock() - between)
                part[-1].append(between - start)
                if not taken:
                    raise ValueError(f"it does not allow token {i} of the document")
    except Exception as error:  # whatever another engine raises is a fact of the measurement
        return MaskRow(name, version=_version(name), note=_one_line(error))
    return MaskRow(
        name,
        version=_version(name),
        vocabulary_ms=vocabulary_ms,
        first_mask_ms=first_ms,
        cold=stats(cold),
        warm=stats(warm),
        accept=stats(accepts[1:]),
        forced_places=jumps,
        memory=int(compiled.memory_size_bytes),
    )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"refused: {lines[0][:100]}"
