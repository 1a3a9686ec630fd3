"""How much of a document is written without sampling, and whether its tokens are the tokenizer's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Forcing", "Written", "replay"]


class Forcing(Protocol):
    """An engine that says what needs no sampling."""

    def accept(self, token: int) -> None:
        """Take a sampled token."""

    def forced(self, may_replace: int) -> tuple[int, Sequence[int]]:
        """Take and return what must come next: how many of the last tokens it replaces, and the tokens."""


@dataclass(frozen=True, slots=True)
class Written:
    """A document written as a decoder would.

    Attributes:
        tokens: its tokens.
        forced: how many of them were not sampled.
        jumps: how often something was forced.
        non_canonical: tokens that the tokenizer would not have produced for the whole document.
    """

    tokens: int
    forced: int
    jumps: int
    non_canonical: int


def replay(
    document: bytes, cut: Callable[[bytes], list[int]], piece: Callable[[int], bytes], engine: Forcing
) -> Written:
    """Write ``document``: sampled tokens are the tokenizer's, the rest is what ``engine`` forces.

    Args:
        document: UTF-8.
        cut: the tokenizer.
        piece: the bytes of a token.
        engine: stands at the beginning of a document.

    Raises:
        ValueError: the engine forced something else than the document.
    """
    canonical: dict[int, int] = {}
    offset = 0
    for token in cut(document):
        canonical[offset] = token
        offset += len(piece(token))
    written: list[tuple[int, int]] = []
    at = forced = jumps = 0
    sampled = False
    while True:
        replaced, tokens = engine.forced(1 if sampled else 0)
        if tokens:
            for _ in range(replaced):
                at, _token = written.pop()
            for token in tokens:
                if not document.startswith(piece(token), at):
                    raise ValueError(f"byte {at}: {piece(token)!r} was forced against the document")
                written.append((at, token))
                at += len(piece(token))
            forced += len(tokens) - replaced
            jumps += 1
        if at >= len(document):
            break
        token = canonical.get(at, -1)
        if token < 0:
            token = cut(document[at:])[0]
        engine.accept(token)
        written.append((at, token))
        at += len(piece(token))
        sampled = True
    strange = sum(canonical.get(place) != token for place, token in written)
    return Written(len(written), forced, jumps, strange)
