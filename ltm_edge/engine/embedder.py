"""Embedder: texts to vectors, with an embedding model or with the chat model itself."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_tools.errors import GgufError
from gguf_tools.loadable import check_loadable
from gguf_tools.reader import read_gguf
from ltm_edge.engine.model import LoadedModel, Tokens
from ltm_edge.engine.options import bounded_threads
from ltm_edge.engine.process import same_process
from ltm_edge.errors import EngineError, ModelError
from ltm_edge.hashes import file_sha256
from ltm_edge.native import core, forward_log

__all__ = ["Embedded", "Embedder", "Vectors"]

Vectors = npt.NDArray[np.float32]
"""Embeddings, float32 [n, dim], C-contiguous, rows of length 1."""

_WORDS = re.compile(r"[^\W\d_]+")
_MOST_WORDS = 2000  # looked at by `coverage`
_FEW_PIECES = 200  # a vocabulary with fewer pieces of a script than this only spells it
_FEW_IDEOGRAPHS = 2000  # where a character is a word; everyday Chinese takes about so many
_IDEOGRAPHS = "CJK"
_COVERED = 0.8


@dataclass(frozen=True, slots=True)
class Embedded:
    """What one call computed.

    Attributes:
        vectors: float32 [n, dim].
        tokens: tokens that were computed.
        cut: texts longer than the model's context, of which the beginning was embedded.
        batches: batches that it took.
    """

    vectors: Vectors
    tokens: int
    cut: int
    batches: int


class Embedder:
    """Texts to vectors of length 1.

    One caller at a time: a second thread gets EngineError while a call runs. :meth:`cancel` may come from any thread;
    Ctrl-C ends a call with KeyboardInterrupt. :meth:`close` waits for nothing: call it when no call runs.
    """

    def __init__(
        self,
        handle: Any,
        path: Path,
        *,
        pooling: str = "",
        threads: int | None = None,
        ctx: int | None = None,
    ) -> None:
        """Create the context over a native model; see :meth:`open` and :meth:`of_model`."""
        native = core()
        options = native.EmbedderOptions()
        options.pooling = pooling
        options.n_threads = bounded_threads(threads)
        options.n_ctx = ctx or 0
        self.path = path
        self._handle: Any = handle
        try:
            self._native: Any = native.Embedder(handle, options)
        finally:
            forward_log()
        self._metadata = handle.metadata()

    @classmethod
    def open(
        cls, path: Path | str, *, pooling: str = "", threads: int | None = None, ctx: int | None = None
    ) -> Embedder:
        """Load a GGUF file: an embedding model, or a decoder whose states are pooled.

        Args:
            path: the file.
            pooling: ``mean``, ``cls`` or ``last``; empty: as the file says, mean where it says nothing.
            threads: CPU threads; None: one per core.
            ctx: most tokens of one text; None: what the model was trained on, at most 2048.

        Raises:
            ModelError: llama.cpp can't load it, or it has no weights, or it can't embed.
            InputError: no such pooling.
        """
        same_process()
        try:
            check_loadable(read_gguf(path))
        except GgufError as error:
            raise ModelError(str(error)) from error
        native = core()
        wanted = native.ModelOptions()
        wanted.path = str(path)
        try:
            handle = native.Model.load(wanted)
        finally:
            forward_log()
        return cls(handle, Path(path), pooling=pooling, threads=threads, ctx=ctx)

    @classmethod
    def of_model(cls, model: LoadedModel, *, pooling: str = "", ctx: int | None = None) -> Embedder:
        """Embed with a model that is loaded already; the weights are shared, the context is its own."""
        return cls(model.handle, model.path, pooling=pooling, threads=model.threads, ctx=ctx)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of the texts in their order, float32 [n, dim].

        Raises:
            InputError: a text is empty for this model (one that writes [CLS] and [SEP] takes an empty text).
            Cancelled: :meth:`cancel` was called.
            EngineError: llama.cpp failed, another thread is inside, or the embedder is closed.
        """
        return self.embed_all(texts).vectors

    def embed_all(self, texts: Sequence[str]) -> Embedded:
        """As :meth:`embed`, with what it took and how many texts were cut."""
        same_process()
        try:
            vectors, tokens, cut, batches = self._open.embed([self._bytes(text) for text in texts])
        finally:
            forward_log()
        return Embedded(vectors, tokens, cut, batches)

    def tokens(self, text: str) -> Tokens:
        """The tokens that stand for a text, special ones included, cut to the context; int32 [n]."""
        found: Tokens = self._open.tokens(self._bytes(text))
        return found

    def cancel(self) -> None:
        """Stop the running :meth:`embed`; without one, the next."""
        self._open.cancel()

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self._open.dim)

    @property
    def pooling(self) -> str:
        """``mean``, ``cls`` or ``last``."""
        return str(self._open.pooling)

    @property
    def n_ctx(self) -> int:
        """Most tokens of one text."""
        return int(self._open.n_ctx)

    @cached_property
    def id(self) -> str:
        """What must be equal for vectors to be compared: hash of the file, pooling, dimension."""
        return f"{file_sha256(self.path)}-{self.pooling}-{self.dim}"

    # What the vocabulary can write.

    def coverage(self, text: str) -> float:
        """Share of the text's letters that the vocabulary writes in words and not just spells, 0 to 1.

        A vocabulary of WordPiece has single letters of many scripts, so that a text in one of them gives hardly any
        [UNK] and yet a vector that says nothing. So a word counts if it gives no [UNK] *and* the vocabulary has at
        least 200 pieces of two or more letters of its script (for Chinese characters: 2000 characters). A text without
        letters, and any text for a vocabulary that falls back to bytes, has 1. The first 2000 words are looked at.
        """
        if not self._wordpiece:
            return 1.0
        letters = known = 0
        for number, match in enumerate(_WORDS.finditer(text)):
            if number == _MOST_WORDS:
                break
            word = match.group()
            letters += len(word)
            if _script(word[0]) in self._scripts and self._unknown not in self._handle.tokenize(self._bytes(word)):
                known += len(word)
        return known / letters if letters else 1.0

    def covers(self, text: str) -> bool:
        """Whether at least four fifths of the text's letters are covered; see :meth:`coverage`."""
        return self.coverage(text) >= _COVERED

    @property
    def _wordpiece(self) -> bool:
        return str(self._metadata.get("tokenizer.ggml.model")) == "bert"

    @cached_property
    def _unknown(self) -> int:
        return int(self._metadata.get("tokenizer.ggml.unknown_token_id", 100))

    @cached_property
    def _scripts(self) -> frozenset[str]:
        """Scripts in which the vocabulary has words."""
        pieces: Counter[str] = Counter()
        for token in range(int(self._handle.n_vocab)):
            text = bytes(self._handle.piece(token, False)).decode("utf-8", "replace").strip()
            if text[:1].isalpha() and (len(text) > 1 or _script(text) == _IDEOGRAPHS):
                pieces[_script(text[0])] += 1
        return frozenset(
            script for script, n in pieces.items() if n >= (_FEW_IDEOGRAPHS if script == _IDEOGRAPHS else _FEW_PIECES)
        )

    def _bytes(self, text: str) -> bytes:
        if self._decompose and not text.isascii():
            text = unicodedata.normalize("NFD", text)
        return text.encode("utf-8", "replace")  # lone surrogates have no UTF-8

    @cached_property
    def _decompose(self) -> bool:
        # llama.cpp replaces a character by the first one of its decomposition, which is right for letters with accents
        # and loses two thirds of a Hangul syllable; on decomposed text it changes nothing.
        lower = self._metadata.get("tokenizer.ggml.normalizer.lowercase", "true")
        strip = str(self._metadata.get("tokenizer.ggml.normalizer.strip_accents", lower))
        return self._wordpiece and strip == "true"

    # Lifetime.

    @property
    def _open(self) -> Any:
        if self._native is None:
            raise EngineError(f"{self.path}: the embedder is closed")
        return self._native

    def close(self) -> None:
        """Free the context, and the model unless it is shared. Closing twice is allowed."""
        self._native = self._handle = None

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _script(letter: str) -> str:
    """Name of a letter's script as Unicode names its characters: LATIN, CYRILLIC, CJK."""
    return unicodedata.name(letter, "?").partition(" ")[0]
