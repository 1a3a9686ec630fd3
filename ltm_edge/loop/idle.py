"""Work between two turns, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ltm_edge.errors import LtmError

__all__ = ["IdleWork"]

_log = logging.getLogger(__name__)


class IdleWork:
    """What is done while the person reads; one piece at a time. Belongs to one thread, as its session does."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether a piece was started that nobody waited for yet."""
        return self._thread is not None

    def start(self, work: Callable[[], None]) -> None:
        """Start a piece of work. What it fails at is logged: the next turn does it then, and says what is wrong."""

        def run() -> None:
            try:
                work()
            except LtmError as error:
                _log.warning("work between two turns: %s", error)
            except Exception:  # a thread that nobody joins yet would print it
                _log.exception("work between two turns failed")

        self._thread = threading.Thread(target=run, name="ltm-edge-idle")
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is done."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
