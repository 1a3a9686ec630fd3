"""Watch: the time that one thread spends inside the models, call by call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ltm_edge.engine.decoder import Decoder
from ltm_edge.engine.embedder import Embedder

__all__ = ["Call", "Watch"]

_WATCHED: tuple[tuple[type, str], ...] = (
    (Decoder, "write_many"),
    (Decoder, "score"),
    (Decoder, "commit"),
    (Decoder, "rebase"),
    (Decoder, "warm"),
    (Embedder, "embed"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call into a model.

    Attributes:
        name: of the method.
        model: whose method it is.
        at: when it began, seconds of the performance counter.
        ms: milliseconds that it took.
        given: its first argument.
        options: its arguments by name.
        result: what it returned.
    """

    name: str
    model: Any
    at: float
    ms: float
    given: Any
    options: dict[str, Any]
    result: Any


class Watch:
    """While it is entered, every call that this thread makes into a model is noted; calls within calls are not.

    It stands in front of the classes' own methods, so only one may be entered at a time.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._thread = threading.get_ident()
        self._inside = False
        self._own: list[tuple[type, str, Any]] = []

    @property
    def ms(self) -> float:
        """Milliseconds of all calls."""
        return sum(call.ms for call in self.calls)

    def named(self, name: str) -> list[Call]:
        """The calls of one method."""
        return [call for call in self.calls if call.name == name]

    def __enter__(self) -> Watch:
        for owner, name in _WATCHED:
            method = getattr(owner, name)
            self._own.append((owner, name, method))
            setattr(owner, name, self._noting(name, method))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._own:
            owner, name, method = self._own.pop()
            setattr(owner, name, method)

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(one: Any, given: Any, *more: Any, **options: Any) -> Any:
            if self._inside or threading.get_ident() != self._thread:
                return method(one, given, *more, **options)
            self._inside = True
            start = time.perf_counter()
            try:
                result = method(one, given, *more, **options)
            finally:
                self._inside = False
            took = (time.perf_counter() - start) * 1000
            self.calls.append(Call(name, one, start, took, given, options, result))
            return result

        return call
