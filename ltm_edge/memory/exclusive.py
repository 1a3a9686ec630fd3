"""Methods of an object that several threads share: one at a time, and only while it may be used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["exclusive"]

Method = TypeVar("Method", bound=Callable[..., Any])


def exclusive(method: Method) -> Method:
    """A method that takes its object's ``_lock`` and asks its ``_check`` first, which raises where it is closed."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._check()
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]
