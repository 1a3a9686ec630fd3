"""What rendering and tokenising a prompt needs of a model; the real one stands in ltm_edge.engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Tokens", "Vocabulary"]

Tokens = npt.NDArray[np.int32]
"""Token ids, int32 [n]."""


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
