"""Waiting for an answer so that Ctrl-C, SIGTERM and a closed pipe stop it without losing what there is.

The session works in a thread of its own while the main thread shows the text: Python runs signal handlers
between two steps of the main thread only, and a main thread inside a long prefill would hear Ctrl-C late.
"""

from __future__ import annotations

import errno
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ltm_edge.cli.session_api import ChatReply, ChatSession, OnEvent, OnToken

__all__ = ["Answer", "answer", "exit_code", "held", "leave_if_hung_up", "terminable"]

_POLL_SECONDS = 0.2  # where a wait can't be interrupted (Windows), signals are heard this often


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended.

    Attributes:
        reply: the answer; partial where it was stopped.
        stopped_by: number of the signal that stopped it, None if none did.
        failure: why the text could not be shown to its end, such as a closed pipe.
    """

    reply: ChatReply
    stopped_by: int | None = None
    failure: OSError | None = None


def exit_code(signal_number: int) -> int:
    """The exit code that shells expect of a process ended by this signal."""
    return 128 + signal_number


def answer(
    session: ChatSession,
    call: Callable[[OnToken, OnEvent], ChatReply],
    show: OnToken,
    note: OnEvent = lambda event: None,
) -> Answer:
    """Run ``call`` (a send or a regenerate of ``session``) and pass what is written to ``show`` as it comes.

    What the turn says of its parts goes to ``note``, in its place between the pieces of text.

    Ctrl-C, SIGTERM, SIGHUP and a failing ``show`` cancel the session; what was written until then is kept.

    Raises:
        LtmError: as ``call`` raises it.
    """
    pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
    result: list[ChatReply] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            result.append(call(pieces.put, pieces.put))
        except BaseException as error:  # passed on to the thread that waits
            raised.append(error)
        finally:
            pieces.put(None)

    failure: OSError | None = None
    with _cancelling(session) as stopped:
        thread = threading.Thread(target=work, name="answer", daemon=True)
        thread.start()
        while True:
            try:
                piece = pieces.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if stopped or failure is not None:  # the first cancel may have come before the work began
                    session.cancel()
                continue
            if piece is None:
                break
            if failure is not None:
                continue
            try:
                (show if isinstance(piece, str) else note)(piece)
            except OSError as error:  # nobody reads any more: no use in writing on
                failure = error
                session.cancel()
        thread.join()
    if raised:
        _leave_if_terminated(stopped)
        raise raised[0]
    return Answer(result[0], stopped[0] if stopped else None, failure)


@contextmanager
def _cancelling(session: ChatSession) -> Iterator[list[int]]:
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        session.cancel()

    with _handlers(stop, [signal.SIGINT, *_ending()]):
        yield stopped
    # SIGTERM counts even if an impatient Ctrl-C came first.
    stopped.sort(key=lambda number: number == signal.SIGINT)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the program in order: files are closed, the terminal is put right."""

    def leave(number: int, frame: FrameType | None) -> None:
        if not _leaves_prompt(exit_code(number)):
            raise SystemExit(exit_code(number))

    with _handlers(leave, _ending()):
        yield


def _leaves_prompt(code: int) -> bool:
    """Have the prompt that is being shown end the program; False where none is.

    What a signal handler raises is lost if the handler happens to run inside a weak reference's callback, of which an
    event loop has many; so the loop is asked.
    """
    current = sys.modules.get("prompt_toolkit.application.current")
    app = current.get_app_or_none() if current is not None else None
    if app is None or not app.is_running or app.loop is None:
        return False

    def leave() -> None:
        if app.is_running and not app.is_done:
            app.exit(exception=SystemExit(code))
        else:  # it has its line already
            raise SystemExit(code)

    app.loop.call_soon_threadsafe(leave)
    return True


@contextmanager
def held() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are noted, and end the program on leaving.

    A terminal that goes away fails the write that is under way before its SIGHUP arrives, so that the signal may
    find the program saving what it was stopped in.

    Raises:
        SystemExit: on leaving, if one of them came.
    """
    noted: list[int] = []
    with _handlers(lambda number, frame: noted.append(number), _ending()):
        yield
    _leave_if_terminated(noted)


def leave_if_hung_up(failure: OSError) -> None:
    """End as by SIGHUP if a write failed because the terminal is gone; the signal itself may come later.

    Raises:
        SystemExit: the terminal is gone.
    """
    if failure.errno == errno.EIO and hasattr(signal, "SIGHUP"):
        raise SystemExit(exit_code(signal.SIGHUP))


def _leave_if_terminated(stopped: list[int]) -> None:
    if stopped and stopped[0] != signal.SIGINT:
        raise SystemExit(exit_code(stopped[0]))


def _ending() -> list[int]:
    return [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None], numbers: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may install handlers
        yield
        return
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_IGN:  # as nohup and shells' background jobs want it
                continue
            before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
