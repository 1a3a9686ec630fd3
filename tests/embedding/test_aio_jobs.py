"""AsyncSession's jobs: what waits, what is stopped, what closing does; by a session that only waits for its cancel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from ltm_edge.aio import AsyncSession, _Job
from ltm_edge.errors import Cancelled, SessionError


class Waiting:
    """A session whose answers last until they are cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.asked: list[str] = []
        self.closed = 0

    def send(self, request: str, on_token: Callable[[str], None] | None = None) -> str:
        self.cancelled.clear()
        self.asked.append(request)
        while not self.cancelled.wait(0.001):
            if on_token is not None:
                on_token("piece ")
        return f"{request}, partial"

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.closed += 1


def run(work: Any) -> None:
    async def main() -> None:
        await asyncio.wait_for(work, 30)

    asyncio.run(main())


def test_closing_stops_what_runs_and_drops_what_waits():
    async def work() -> None:
        inner = Waiting()
        session = AsyncSession(inner)
        tasks = [asyncio.create_task(session.send(name)) for name in ("one", "two", "three")]
        while inner.asked != ["one"]:
            await asyncio.sleep(0.001)
        await session.aclose()
        await session.aclose()
        assert await tasks[0] == "one, partial"
        for task in tasks[1:]:
            with pytest.raises(Cancelled, match="closed before"):
                await task
        assert inner.asked == ["one"] and inner.closed == 1
        with pytest.raises(SessionError):
            await session.send("four")

    run(work())


def test_closing_ends_an_answer_that_nobody_reads_any_more():
    async def work() -> None:
        inner = Waiting()
        session = AsyncSession(inner)
        stream = session.stream("one")
        pieces = stream.__aiter__()
        assert await pieces.__anext__() == "piece "
        await asyncio.sleep(0.2)  # by now as many pieces wait as may, and the writer waits for its reader
        await session.aclose()
        assert await stream.reply() == "one, partial"
        assert inner.closed == 1
        await pieces.aclose()

    run(work())


def test_a_job_is_not_stopped_once_its_work_has_ended():
    """The session may be at the next job by then, while this one's future is still being settled."""

    async def work() -> None:
        calls: list[int] = []
        job = _Job(lambda: "whole", lambda: calls.append(1))
        job.future = Future()
        assert job.future.set_running_or_notify_cancel()
        result = job.run()
        stopping = asyncio.create_task(job.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done() and calls == []
        job.future.set_result(result)
        await stopping
        assert await job.wait() == "whole"

    run(work())
