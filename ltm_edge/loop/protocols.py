"""What a turn needs of an engine. The real one stands in ltm_edge.engine; tests may bring their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["DraftPass", "Tokens", "Vocabulary", "Writer"]

Tokens = npt.NDArray[np.int32]
"""Token ids, int32 [n]."""


class DraftPass(Protocol):
    """What one decode did."""

    @property
    def text(self) -> str:
        """What was written."""

    @property
    def tokens(self) -> Tokens:
        """Its tokens, int32 [n]."""

    @property
    def stop(self) -> str:
        """``eog``, ``length``, ``cancelled`` or ``sink``."""

    @property
    def complete(self) -> bool:
        """True if the model ended the text itself."""

    def to_trace(self, kind: str) -> dict[str, Any]:
        """The pass as it stands in a turn's trace."""


class Vocabulary(Protocol):
    """The model's vocabulary and chat format."""

    @property
    def chat_template(self) -> str | None:
        """The model's own Jinja template, or None."""

    @property
    def bos(self) -> str:
        """Text of the beginning-of-sequence token."""

    @property
    def eos(self) -> str:
        """Text of the end-of-sequence token."""

    @property
    def special_texts(self) -> tuple[str, ...]:
        """How the tokens that are never plain text are spelled."""

    def tokenize(self, text: str | bytes, *, special: bool = False) -> Tokens:
        """Tokens of a text, int32 [n]."""

    def tokenize_segments(self, segments: Iterable[tuple[str, bool]]) -> Tokens:
        """Tokens of (text, special) pieces, int32 [n]."""

    def apply_builtin_template(self, messages: Iterable[tuple[str, str]]) -> str | None:
        """The messages in one of llama.cpp's own formats, or None."""


class Writer(Protocol):
    """One context that writes documents."""

    @property
    def n_ctx(self) -> int:
        """Tokens that the context holds."""

    def write(
        self,
        prompt: Tokens,
        *,
        max_tokens: int,
        sampling: Any,
        gbnf: str = "",
        on_text: Callable[[str], None] | None = None,
    ) -> DraftPass:
        """Write up to ``max_tokens`` after ``prompt``."""

    def rebase(self, tokens: Tokens, keep: int, count: int) -> int:
        """Take ``count`` tokens behind the first ``keep`` out of what is cached; returns how many moved."""

    def warm(self, tokens: Tokens, head: int) -> int:
        """Begin a conversation whose first ``head`` tokens others have too; returns tokens taken from a saved state."""

    def cancel(self) -> None:
        """Stop the running write."""
