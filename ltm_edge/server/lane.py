"""Lane: requests that are carried out one after another, in a thread of their own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ltm_edge.errors import Cancelled
from ltm_edge.server.codes import ServerBusy

__all__ = ["MAX_WAITING", "Job", "Lane"]

MAX_WAITING = 64
"""Requests that may wait in one lane."""

_AGAIN_SECONDS = 0.05


class Job:
    """A request that is to be carried out.

    Attributes:
        id: the request's id.
    """

    def __init__(self, id: Any, work: Callable[[], Any], answer: Callable[[Any, BaseException | None], None]) -> None:
        """``work`` gives the result; ``answer`` gets it, or what ``work`` raised."""
        self.id = id
        self._work = work
        self._answer = answer
        self._done = threading.Event()
        self._stopping = threading.Lock()
        self.cancelled = False

    def run(self) -> None:
        """Carry it out and answer."""
        try:
            result = self._work()
        except BaseException as error:  # whatever it is, the client is told and the lane goes on
            self._end()
            self._answer(None, error)
        else:
            self._end()
            self._answer(result, None)

    def drop(self) -> None:
        """Answer that it was cancelled before it began."""
        self._answer(None, Cancelled("cancelled before it began"))

    def stop(self, cancel: Callable[[], None]) -> None:
        """Call ``cancel`` until the work has ended: the first call may come before there is anything to cancel."""
        self.cancelled = True

        def again() -> None:
            while not self._done.wait(_AGAIN_SECONDS):
                self._call(cancel)

        self._call(cancel)
        threading.Thread(target=again, name="stdio-cancel", daemon=True).start()

    def _call(self, cancel: Callable[[], None]) -> None:
        """Call ``cancel`` unless the work has ended: it would reach the job after this one."""
        with self._stopping:
            if not self._done.is_set():
                cancel()

    def _end(self) -> None:
        with self._stopping:
            self._done.set()


class Lane:
    """Carries out jobs in the order in which they came."""

    def __init__(self, name: str) -> None:
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running: Job | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._work, name=f"stdio-{name}", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            ServerBusy: too many wait.
            Cancelled: the lane has ended.
        """
        with self._changed:
            if self._ending:
                raise Cancelled("the session is being closed")
            if len(self._jobs) >= MAX_WAITING:
                raise ServerBusy(f"{len(self._jobs)} requests wait already; send the next when one is answered")
            self._jobs.append(job)
            self._changed.notify_all()

    def cancel(self, cancel: Callable[[], None], *, only: Any = None, all: bool = True) -> int:
        """Drop jobs that wait and stop the one that runs, by calling ``cancel``.

        Args:
            cancel: stops what runs.
            only, all: the id of the one job that is meant, unless all are.

        Returns:
            How many jobs this reached.
        """
        with self._changed:
            dropped = [job for job in self._jobs if all or job.id == only]
            for job in dropped:
                self._jobs.remove(job)
            running = self._running
            if running is not None and (running.cancelled or not (all or running.id == only)):
                running = None
            if running is not None:
                running.stop(cancel)
        for job in dropped:
            job.drop()
        return len(dropped) + (running is not None)

    def end(self, last: Job | None = None) -> None:
        """Take no more jobs; those that wait are still carried out, and after them ``last``."""
        with self._changed:
            if last is not None:
                self._jobs.append(last)
            self._ending = True
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the lane has ended; False if that took longer."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or bool(self._jobs))
                if not self._jobs:
                    return
                self._running = self._jobs.popleft()
            self._running.run()
            with self._changed:
                self._running = None
