"""AsyncSession on the demo model: the loop stays free, and a session works on however an answer is left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from ltm_edge import AsyncSession, Bundle
from ltm_edge.errors import Cancelled, InputError, SessionError

pytestmark = pytest.mark.needs_model

ASK = "I don't know whether I should keep building AGI."
SHORT = {"seed": 1, "max_tokens": 90}
LONG = {"seed": 1, "max_tokens": 600, "template": "workbench"}


def run(bundle: Bundle, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncSession(bundle.session()) as session:
            await work(session)

    asyncio.run(main())


def test_a_stream_is_the_document_and_the_loop_stays_free(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        pieces: list[str] = []
        seen = set()

        async def watch() -> None:
            while True:
                seen.add(len(pieces))
                await asyncio.sleep(0.001)

        task = asyncio.create_task(watch())
        stream = session.stream(ASK, **SHORT)
        async for piece in stream:
            pieces.append(piece)
        reply = await stream.reply()
        assert len(pieces) > 10 and "".join(pieces) == reply.document
        assert len(seen) > 3  # others had their turn while it was written
        assert [piece async for piece in stream] == []  # each piece is given once
        assert (await session.send("And then?", **SHORT)).document.startswith("scene:")
        assert len(session.session.history) == 2
        task.cancel()

    run(demo_bundle, work)


def test_the_same_answer_as_without_asyncio(demo_bundle: Bundle):
    with demo_bundle.session() as session:
        expected = session.send(ASK, **SHORT).document

    async def work(session: AsyncSession) -> None:
        assert (await session.send(ASK, **SHORT)).document == expected

    run(demo_bundle, work)


def test_leaving_the_loop_stops_the_answer_and_keeps_it(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        stream = session.stream(ASK, **LONG)
        seen = []
        async for piece in stream:
            seen.append(piece)
            if len(seen) == 3:
                break
        await stream.aclose()
        reply = await stream.reply()
        assert reply.partial and reply.document.startswith("".join(seen))
        assert session.session.history[-1].partial
        assert (await session.send(ASK, seed=1)).stop == "eog"

    run(demo_bundle, work)


def test_a_cancelled_task_stops_the_answer(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(
            session.send(ASK, on_token=lambda text: loop.call_soon_threadsafe(started.set), **LONG)
        )
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.session.history[-1].partial
        at_once = asyncio.create_task(session.send(ASK, **LONG))
        await asyncio.sleep(0)
        at_once.cancel()
        with pytest.raises(asyncio.CancelledError):
            await at_once
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.send(ASK, **LONG), 0.2)
        assert (await session.send(ASK, seed=1)).stop == "eog"

    run(demo_bundle, work)


def test_a_cancelled_reader_stops_the_answer(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        started = asyncio.Event()

        async def read() -> None:
            async for _ in session.stream(ASK, **LONG):
                started.set()

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.session.history[-1].partial

    run(demo_bundle, work)


def test_cancel_ends_the_answer_as_partial(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        stream = session.stream(ASK, **LONG)
        async for _ in stream:
            session.cancel()
        assert (await stream.reply()).stop == "cancelled"

    run(demo_bundle, work)


def test_what_is_asked_at_once_waits_its_turn(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        replies = await asyncio.gather(*(session.send(f"Request {n}.", **SHORT) for n in range(3)))
        assert [turn.request for turn in session.session.history] == ["Request 0.", "Request 1.", "Request 2."]
        assert [turn.document for turn in session.session.history] == [reply.document for reply in replies]
        assert (await session.call(session.session.undo)).request == "Request 2."

    run(demo_bundle, work)


def test_a_stream_that_was_stopped_before_it_began(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        running = asyncio.create_task(session.send(ASK, **SHORT))
        await asyncio.sleep(0)
        stream = session.stream("Never.", **SHORT)
        reader = asyncio.create_task(anext(aiter(stream)))
        await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        with pytest.raises(Cancelled):
            await stream.reply()
        await running
        assert len(session.session.history) == 1

    run(demo_bundle, work)


def test_an_answer_is_written_no_faster_than_it_is_read(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        stream = session.stream(ASK, **LONG)
        pieces = aiter(stream)
        await anext(pieces)
        for _ in range(600):
            await asyncio.sleep(0.1)
            ahead = stream._pieces.qsize()
            await asyncio.sleep(0.5)
            if stream._pieces.qsize() == ahead >= stream._AHEAD - 1:
                break
        assert stream._pieces.qsize() <= stream._AHEAD + 1
        reply = await stream.reply()  # nobody reads the pieces any more: it is written to its end
        assert reply.stop in ("eog", "length")

    run(demo_bundle, work)


def test_errors_come_through(demo_bundle: Bundle):
    async def work(session: AsyncSession) -> None:
        with pytest.raises(InputError):
            await session.send("")
        with pytest.raises(InputError):
            async for _ in session.stream(ASK, template="nothing"):
                pass
        with pytest.raises(InputError):
            await session.stream("").reply()
        await session.aclose()
        with pytest.raises(SessionError):
            await session.send(ASK)
        await session.aclose()

    run(demo_bundle, work)


def test_two_sessions_in_one_loop_write_side_by_side(demo_bundle: Bundle):
    async def main() -> None:
        order: list[str] = []

        async def read(name: str) -> None:
            async with AsyncSession(demo_bundle.session()) as session:
                async for _ in session.stream(ASK, **LONG):
                    order.append(name)

        await asyncio.gather(read("a"), read("b"))
        assert order.index("b") < len(order) - 1 - order[::-1].index("a")
        assert order.index("a") < len(order) - 1 - order[::-1].index("b")

    asyncio.run(main())


def test_a_loop_that_ends_takes_the_answer_with_it(demo_bundle: Bundle):
    session = demo_bundle.session()

    async def main() -> None:
        wrapped = AsyncSession(session)
        async for _ in wrapped.stream(ASK, **LONG):
            return

    asyncio.run(main())
    while not session.history:
        time.sleep(0.05)
    assert session.history[-1].partial
    session.close()
    assert not [one for one in threading.enumerate() if one.name == "answer"]
