"""OneThread: the lock of what belongs to one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ltm_edge.errors import SessionBusy

__all__ = ["OneThread"]


class OneThread:
    """A lock that says when it is taken, and never waits for the thread that holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    @contextmanager
    def now(self) -> Iterator[None]:
        """Hold it.

        Raises:
            SessionBusy: it is taken.
        """
        if not self._lock.acquire(blocking=False):
            raise SessionBusy("this session is answering another request; wait for it, or open a second session")
        with self._held():
            yield

    @contextmanager
    def afterwards(self) -> Iterator[None]:
        """Hold it, after waiting for another thread that does.

        Raises:
            SessionBusy: this thread holds it, further up: it would wait for itself.
        """
        if self._holder == threading.get_ident():
            raise SessionBusy(
                "what a session calls while it answers can't close it; cancel it there, and close it afterwards"
            )
        self._lock.acquire()
        with self._held():
            yield

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._holder = threading.get_ident()
        try:
            yield
        finally:
            self._holder = None
            self._lock.release()
