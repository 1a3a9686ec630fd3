"""One message a line: reading with a limit, and writing that holds back whoever writes faster than is read."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from io import FileIO
from typing import Any, BinaryIO

from ltm_edge.schemas.check import show
from ltm_edge.server.codes import BadRequest, ParseError

__all__ = ["MAX_MESSAGE", "Outbox", "read_lines", "read_message"]

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes of one line, the line feed not counted."""

_CHUNK = 1 << 16
_BOM = b"\xef\xbb\xbf"  # some systems' text streams begin with it


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a stream without their ends; None for one that is longer than :data:`MAX_MESSAGE`.

    Of such a line no more than the limit is ever held. Blank lines are passed over.
    """
    while line := stream.readline(MAX_MESSAGE + 1):
        if len(line) > MAX_MESSAGE and not line.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield None
        elif stripped := line.strip(b" \t\r\n"):
            yield stripped


def read_message(line: bytes | None) -> Any:
    """The JSON value in a line.

    Raises:
        ParseError: it isn't one, or isn't UTF-8.
        BadRequest: it is too long, or an object in it has a key twice.
    """
    if line is None:
        raise BadRequest(f"a message of more than {MAX_MESSAGE} bytes; send less, or name a file")
    try:
        text = line.removeprefix(_BOM).decode("utf-8")
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ParseError(f"byte {error.start} of the message is not UTF-8") from None
    except RecursionError:
        raise ParseError("the message is nested too deeply") from None
    except ValueError as error:
        raise ParseError(f"the message is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values; of two values for one key nobody knows which is meant."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(f"the key {show(name)} stands twice in one object; give one value")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


class Outbox:
    """Messages on their way out, written by a thread of its own.

    Whoever puts a message in waits while too many are on their way: so an answer is written no faster than it is read.
    """

    def __init__(self, stream: FileIO) -> None:
        """Write to ``stream``, which has no buffer: closing it must never wait for a reader."""
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._writing = False
        threading.Thread(target=self._write, name="stdio-out", daemon=True).start()

    def put(self, message: object, limit: int) -> bool:
        """Send a message, after waiting until fewer than ``limit`` are on their way; False if nobody reads any more."""
        line = _line(message)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._lines) < limit)
            if self._stopped:
                return False
            self._lines.append(line)
            self._changed.notify_all()
            return True

    def drain(self, timeout: float | None) -> bool:
        """Wait until all is written; False if that took too long or nobody reads any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not (self._lines or self._writing), timeout)
            return not (self._stopped or self._lines or self._writing)

    def stop(self) -> None:
        """Send nothing more; whoever waits goes on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether nobody reads any more."""
        return self._stopped

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or bool(self._lines))
                if self._stopped:
                    return
                line = self._lines.popleft()
                self._writing = True
                self._changed.notify_all()
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except (OSError, ValueError):  # the reader has gone, or the stream was closed
                self.stop()
            with self._changed:
                self._writing = False
                self._changed.notify_all()


def _line(message: object) -> bytes:
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate: only JSON's own escapes can carry it
        text = json.dumps(message, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str)
        return f"{text}\n".encode()
