"""A writer without a model: types the documents that it is given, over a vocabulary of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ltm_edge.loop.protocols import AnyOrder, ScoredPass, Tokens
from tests.loop.drafts import Written

_PIECE = 7  # characters that are streamed at once


class Bytes:
    """A vocabulary in which every byte is a token, of a model with a common chat format."""

    chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    bos = eos = ""
    special_texts = ("<|im_start|>", "<|im_end|>")

    def tokenize(self, text: str | bytes, *, special: bool = False) -> Tokens:
        data = text if isinstance(text, bytes) else text.encode()
        return np.frombuffer(data, dtype=np.uint8).astype(np.int32)

    def tokenize_segments(self, segments: Iterable[tuple[str, bool]]) -> Tokens:
        return self.tokenize("".join(text for text, _ in segments))

    def apply_builtin_template(self, messages: Iterable[tuple[str, str]]) -> str | None:
        return None


class Typist:
    """Types one document for each order, in their order; a document that is too long is cut off where it must.

    Attributes:
        orders: what was asked for, one list for each call.
        adapters: what acted on each call.
    """

    def __init__(self, *documents: str, n_ctx: int = 20_000, vocabulary: Any = None) -> None:
        self.n_ctx = n_ctx
        self._vocabulary = vocabulary or Bytes()
        self.orders: list[list[AnyOrder]] = []
        self.adapters: list[Any] = []
        self._documents = list(documents)
        self._cancelled = False

    def prompts(self) -> list[str]:
        """The prompts of all orders as text."""
        return [bytes(order.prompt.astype(np.uint8)).decode() for call in self.orders for order in call]

    def write_many(
        self,
        orders: Sequence[AnyOrder],
        *,
        adapters: Any = None,
        on_text: Callable[[int, str], None] | None = None,
    ) -> list[Written]:
        self.orders.append(list(orders))
        self.adapters.append(adapters)
        written = []
        for number, order in enumerate(orders):
            assert len(order.prompt) + order.max_tokens <= self.n_ctx
            document, typed = self._documents.pop(0), ""
            for start in range(0, len(document), _PIECE):
                if self._cancelled or self._length(typed + document[start : start + _PIECE]) > order.max_tokens:
                    break
                typed += document[start : start + _PIECE]
                if on_text is not None:
                    on_text(number, document[start : start + _PIECE])
            stop = "eog" if typed == document else "cancelled" if self._cancelled else "length"
            written.append(Written(typed, self._vocabulary.tokenize(typed), stop))
        return written

    def _length(self, text: str) -> int:
        return len(self._vocabulary.tokenize(text))

    def score(self, requests: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> list[ScoredPass]:
        raise AssertionError("nobody asks this model about its drafts")

    def rebase(self, tokens: Tokens, keep: int, count: int) -> int:
        return 0

    def warm(self, tokens: Tokens, head: int) -> int:
        return 0

    def cancel(self) -> None:
        """Stop what is typed, from here on."""
        self._cancelled = True

    def resume(self) -> None:
        """Take a cancel back."""
        self._cancelled = False
