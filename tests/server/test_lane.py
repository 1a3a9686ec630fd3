"""Lanes: jobs one after another, and cancels that reach the job they are meant for."""

from __future__ import annotations

import threading
from typing import Any

from ltm_edge.errors import Cancelled
from ltm_edge.server.lane import Job, Lane


class Worker:
    """Work that lasts until it is cancelled, and what was answered."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.began = threading.Event()
        self.answers: list[tuple[Any, BaseException | None]] = []

    def work(self) -> str:
        self.began.set()
        assert self.cancelled.wait(30)
        return "partial"

    def answer(self, result: Any, error: BaseException | None) -> None:
        self.answers.append((result, error))


def test_a_cancel_stops_what_runs_and_drops_what_waits():
    lane, one, other = Lane("test"), Worker(), Worker()
    lane.put(Job(1, one.work, one.answer))
    assert one.began.wait(30)
    lane.put(Job(2, other.work, other.answer))
    assert lane.cancel(one.cancelled.set) == 2
    lane.end()
    assert lane.join(30)
    assert one.answers == [("partial", None)]
    ((result, error),) = other.answers
    assert result is None and isinstance(error, Cancelled) and not other.began.is_set()


def test_a_cancel_never_reaches_the_next_job():
    """Work that has ended isn't cancelled any more: whatever runs then is another job's."""
    job = Job(1, lambda: "whole", lambda result, error: None)
    calls: list[int] = []

    def cancel() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            runner.start()  # the work ends while the first call is still being made

    runner = threading.Thread(target=job.run)
    job.stop(cancel)
    runner.join(30)
    assert calls == [0]
    for thread in threading.enumerate():
        if thread.name == "stdio-cancel":
            thread.join(30)
    job.stop(cancel)
    assert calls == [0]
