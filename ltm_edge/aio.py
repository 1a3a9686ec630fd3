"""AsyncSession: a session inside an asyncio program. The event loop is never blocked: the session works in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

from ltm_edge.errors import Cancelled, SessionError
from ltm_edge.scene.pvq import Pvq
from ltm_edge.session import Reply, Session

__all__ = ["AsyncSession", "AsyncStream"]

Result = TypeVar("Result")

_AGAIN_SECONDS = 0.02


class AsyncSession:
    """A session for asyncio. Take it in one event loop; what is asked of it at once waits its turn.

    >>> import asyncio
    >>> from ltm_edge import AsyncSession, Bundle
    >>> async def talk(bundle: Bundle) -> bool:
    ...     async with AsyncSession(bundle.session()) as session:
    ...         stream = session.stream("My garden keeps dying.", seed=1)
    ...         draft = "".join([piece async for piece in stream])
    ...         return draft.startswith("scene:") and (await stream.reply()).document.startswith("scene:")
    >>> with Bundle.open() as bundle:
    ...     asyncio.run(talk(bundle))
    True

    Attributes:
        session: the session. Use it directly only while no call of this object runs, except for ``cancel``.
    """

    def __init__(self, session: Session) -> None:
        """Wrap a session, which :meth:`aclose` closes."""
        self.session = session
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ltm-edge-session")
        self._jobs: set[_Job[Any]] = set()
        self._closing = threading.Event()

    async def send(self, request: str | Pvq, **options: Any) -> Reply:
        """Answer a request.

        A task that is cancelled meanwhile stops the answer, waits until it has stopped, and raises CancelledError; what
        was written stays in the history as partial.

        Args:
            request: plain text, or a PVQ.
            options: those of ``Session.send``. ``on_token`` is called in the session's thread.

        Raises:
            LtmError: as ``Session.send`` raises it; Cancelled where the session was closed before it began.
        """
        return await self._submit(lambda: self.session.send(request, **options)).wait()

    def stream(self, request: str | Pvq, **options: Any) -> AsyncStream:
        """Answer a request piece by piece: ``async for`` over what this returns, then ``await`` its ``reply()``.

        The answer begins with the first step of the loop and is written no faster than it is read. Leaving the loop
        early stops it.

        Args:
            request: plain text, or a PVQ.
            options: those of ``Session.send``, without ``on_token``.
        """
        return AsyncStream(self, request, options)

    async def call(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call something that blocks in the session's thread, in its turn; such as ``await s.call(s.session.undo)``.

        Raises:
            SessionError: the session is closed.
        """
        return await self._submit(lambda: function(*args, **kwargs)).wait()

    def cancel(self) -> None:
        """Stop the running answer, which then ends as partial."""
        self.session.cancel()

    async def aclose(self) -> None:
        """Stop what runs, drop what waits, and close the session. Closing twice is allowed."""
        self._closing.set()
        for job in list(self._jobs):
            job.future.cancel()
        self.session.cancel()
        with suppress(SessionError):  # closed before
            await self._submit(self.session.close).wait()
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _submit(self, work: Callable[[], Result]) -> _Job[Result]:
        job = _Job(work, self.session.cancel)
        try:
            job.future = self._thread.submit(job.run)
        except RuntimeError:
            raise SessionError("the session is closed") from None
        self._jobs.add(job)
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        return job


class _Job(Generic[Result]):
    """Work in the session's thread, which can be waited for and stopped by itself."""

    future: Future[Result]

    def __init__(self, work: Callable[[], Result], cancel: Callable[[], None]) -> None:
        """``cancel`` stops whatever the session does."""
        self._work = work
        self._cancel = cancel
        self._lock = threading.Lock()
        self._ended = False

    def run(self) -> Result:
        """Carry it out."""
        try:
            return self._work()
        finally:
            with self._lock:
                self._ended = True

    async def wait(self) -> Result:
        """Its result. A task that is cancelled here stops it first.

        Raises:
            Cancelled: it was dropped before it began.
        """
        try:
            return await asyncio.shield(asyncio.wrap_future(self.future))
        except asyncio.CancelledError:
            if self.future.cancelled():
                raise Cancelled("the session was closed before this began") from None
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drop it, or stop it and wait until it has ended.

        The session is cancelled again and again: the first time may come before there is anything to cancel. A second
        cancel of the task that waits here doesn't shorten it, since the session can't be used before.
        """
        if self.future.cancel():
            return
        while not self.future.done():
            with self._lock:
                if not self._ended:  # else it would reach the job after this one
                    self._cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(_AGAIN_SECONDS)


class AsyncStream:
    """An answer on its way: ``async for`` gives its first draft (YAML) in pieces of whole characters.

    Its critics may put another document in the draft's place; ``on_event`` among the options hears of it, and
    :meth:`reply` has it.
    """

    _AHEAD = 64  # pieces that may be written and not yet read

    def __init__(self, owner: AsyncSession, request: str | Pvq, options: dict[str, Any]) -> None:
        """Use :meth:`AsyncSession.stream`."""
        self._owner = owner
        self._request = request
        self._options = options
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(self._AHEAD)
        self._unread = threading.Event()
        self._job: _Job[Reply] | None = None
        self._ended = False

    async def reply(self) -> Reply:
        """The reply, once it is written; partial where the loop was left early.

        Raises:
            Cancelled: it was stopped before it began.
            LtmError: as ``Session.send`` raises it.
        """
        job = self._job or self._begin()
        self._unread.set()
        if job.future.cancelled():
            raise Cancelled("the answer was stopped before it began")
        return await job.wait()

    async def aclose(self) -> None:
        """Stop the answer and wait until it has stopped."""
        self._unread.set()
        if self._job is not None:
            await self._job.stop()

    def __aiter__(self) -> AsyncGenerator[str, None]:
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[str, None]:
        job = self._job or self._begin()
        try:
            while not self._ended and (piece := await self._pieces.get()) is not None:
                self._room.release()
                yield piece
        except (GeneratorExit, asyncio.CancelledError):
            await self.aclose()
            raise
        self._ended = True
        if not job.future.cancelled() and (error := job.future.exception()) is not None:
            raise error

    def _begin(self) -> _Job[Reply]:
        loop = asyncio.get_running_loop()

        def on_token(text: str) -> None:
            while not (self._unread.is_set() or self._owner._closing.is_set()):
                if self._room.acquire(timeout=_AGAIN_SECONDS):
                    break
            loop.call_soon_threadsafe(self._pieces.put_nowait, text)

        def ended(_: Future[Reply]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(self._pieces.put_nowait, None)

        send = self._owner.session.send
        self._job = self._owner._submit(lambda: send(self._request, on_token=on_token, **self._options))
        self._job.future.add_done_callback(ended)
        return self._job
