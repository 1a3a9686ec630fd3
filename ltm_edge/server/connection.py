"""Connection: JSON-RPC 2.0 between a client and the bundles it opens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from io import FileIO
from typing import Any, BinaryIO

from ltm_edge.errors import LtmError, Problem, SchemaError
from ltm_edge.loop.events import Replaced, TurnEvent
from ltm_edge.schemas import stdio
from ltm_edge.schemas.check import nearest, show
from ltm_edge.server import methods
from ltm_edge.server.codes import BadRequest, InvalidParams, UnknownMethod, error_object
from ltm_edge.server.conversations import Conversation, Conversations
from ltm_edge.server.framing import Outbox, read_lines, read_message
from ltm_edge.server.lane import Job, Lane

__all__ = ["serve"]

_log = logging.getLogger(__name__)

MAX_BATCH = 256
MAX_ID = 128
_TOKENS_AHEAD = 32  # messages on their way from which on an answer waits for its reader
_ANSWERS_AHEAD = 4096  # the same for what answers at once, such as cancel: it should hardly ever wait
_END_SECONDS = 10.0

Id = str | int | float | None


class _Batch:
    """Gathers the responses of a batch and sends them as one array when all are there."""

    def __init__(self, size: int, send: Callable[[Any], None]) -> None:
        self._left = size
        self._send = send
        self._responses: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()

    def put(self, response: Mapping[str, Any] | None) -> None:
        """Take one response, None where the request wants none."""
        with self._lock:
            self._left -= 1
            if response is not None:
                self._responses.append(response)
            if self._left or not self._responses:
                return
        self._send(self._responses)


class _Connection:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._conversations = Conversations(self._notice)
        self._desk = Lane("desk")
        self._ids: set[tuple[type, Id]] = set()
        self._lock = threading.Lock()
        self.shutdown: list[Callable[[], None]] = []

    # In: from a line to a job.

    def take(self, line: bytes | None) -> None:
        """Begin what a line asks for, or answer what is wrong with it."""
        try:
            message = read_message(line)
            if isinstance(message, list):
                if not message or len(message) > MAX_BATCH:
                    raise BadRequest(f"a batch of {len(message)} requests; send 1 to {MAX_BATCH}")
                batch = _Batch(len(message), self._put)
                for one in message:
                    self._begin(one, batch.put)
            else:
                self._begin(message, lambda response: None if response is None else self._put(response))
        except LtmError as error:
            self._put(_response(None, error=error))

    def _begin(self, message: Any, respond: Callable[[Mapping[str, Any] | None], None]) -> None:
        id = _id(message)
        given = isinstance(message, dict) and "id" in message
        try:
            method, params = _envelope(message)
            if given:
                self._claim(id)
        except LtmError as error:
            # Notifications aren't answered; what isn't even one is, with the id null.
            respond(_response(id, error=error) if given or isinstance(error, BadRequest) else None)
            return

        def answer(result: Any, error: BaseException | None) -> None:
            if given:
                self._free(id)
            if error is not None and not isinstance(error, LtmError):
                _log.error("%s failed", method, exc_info=error)
            respond(_response(id, result, error) if given else None)

        try:
            self._dispatch(id, method, params, answer)
        except Exception as error:  # whatever it is, the client is told and the connection goes on
            answer(None, error)

    def _claim(self, id: Id) -> None:
        key = (type(id), id)
        with self._lock:
            if id is not None and key in self._ids:
                raise BadRequest(f"id {id!r} belongs to a request that isn't answered yet; use another")
            self._ids.add(key)

    def _free(self, id: Id) -> None:
        with self._lock:
            self._ids.discard((type(id), id))

    def _dispatch(self, id: Id, method: str, params: Any, answer: Callable[[Any, BaseException | None], None]) -> None:
        try:
            given = stdio.check_params(method, params)
        except SchemaError as error:
            raise InvalidParams(error.problems) from None
        if method == "shutdown":
            self.shutdown.append(partial(answer, None, None))
        elif method == "open":
            self._desk.put(Job(id, lambda: self._conversations.open(given), answer))
        elif method == "inspect":
            self._desk.put(Job(id, lambda: methods.inspect(given), answer))
        else:
            self._in_session(self._conversations.get(given.session), id, method, given, answer)

    def _in_session(
        self,
        conversation: Conversation,
        id: Id,
        method: str,
        params: Any,
        answer: Callable[[Any, BaseException | None], None],
    ) -> None:
        if method == "cancel":
            reached = conversation.cancel(only=params.request, all=params.request is None)
            answer(stdio.CancelResult(reached), None)
        elif method == "close":
            self._conversations.close(conversation, answer)
        elif method == "send":
            piece = partial(self._token, conversation.id, id)
            event = partial(self._event, conversation.id, id)
            conversation.lane.put(Job(id, lambda: methods.send(conversation, params, piece, event), answer))
        else:
            call = methods.MEMORY_METHODS[method]
            conversation.lane.put(Job(id, lambda: call(conversation, params), answer))

    # Out: responses and notifications.

    def _put(self, message: Any) -> None:
        try:
            self._outbox.put(message, _ANSWERS_AHEAD)
        except (ValueError, TypeError) as error:  # a result that JSON can't carry
            _log.error("a response can't be written", exc_info=error)
            id = message.get("id") if isinstance(message, Mapping) else None
            self._outbox.put(_response(id, error=error), _ANSWERS_AHEAD)

    def _token(self, session: str, request: Id, text: str) -> bool:
        params = {"session": session, "request": request, "text": text}
        return self._outbox.put({"jsonrpc": "2.0", "method": "token", "params": params}, _TOKENS_AHEAD)

    def _event(self, session: str, request: Id, part: TurnEvent) -> bool:
        stage, document = (None, part.document) if isinstance(part, Replaced) else (part.name, None)
        params = {"session": session, "request": request, "stage": stage, "about": part.about, "document": document}
        return self._outbox.put({"jsonrpc": "2.0", "method": "event", "params": params}, _TOKENS_AHEAD)

    def _notice(self, session: str, text: str) -> None:
        params = {"session": session, "text": text}
        self._outbox.put({"jsonrpc": "2.0", "method": "notice", "params": params}, _TOKENS_AHEAD)

    # The end.

    def finish(self, *, cancel: bool, timeout: float | None = None) -> bool:
        """Close everything, at once or after what waits; False if that took longer than ``timeout`` for a part."""
        self._desk.end()
        if cancel:
            self._desk.cancel(lambda: None)
        ended = self._desk.join(timeout)  # before the rest: what it opens is closed below
        for conversation in self._conversations.all():
            self._conversations.close(conversation, lambda result, error: None, cancel=cancel)
        left = [lane for lane in self._conversations.ending() if not lane.join(timeout)]
        return ended and not left


def serve(source: BinaryIO, sink: FileIO) -> None:
    """Answer the requests that come in until `shutdown` or the end of ``source``; then close everything.

    At the end of ``source`` what was asked for is still answered. What ends the loop from outside (Ctrl-C, SIGTERM as
    SystemExit) stops answers, closes sessions and memories, and is raised again.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    outbox = Outbox(sink)
    connection = _Connection(outbox)
    try:
        for line in read_lines(source):
            connection.take(line)
            if connection.shutdown or outbox.stopped:
                break
        if not connection.shutdown and not outbox.stopped:
            connection.finish(cancel=False)
            outbox.drain(None)
        else:
            if not connection.finish(cancel=True, timeout=_END_SECONDS):
                if outbox.drain(0):  # what the client reads: something that can't be stopped, such as loading a model
                    connection.finish(cancel=True)
                else:
                    outbox.stop()
                    connection.finish(cancel=True, timeout=_END_SECONDS)
            for answer in connection.shutdown:
                answer()
            outbox.drain(_END_SECONDS)
        if outbox.stopped:
            raise BrokenPipeError
    except (KeyboardInterrupt, SystemExit):
        outbox.stop()
        connection.finish(cancel=True, timeout=_END_SECONDS)
        raise


def _id(message: Any) -> Id:
    """The id of a request; None where it has none that can be used."""
    id = message.get("id") if isinstance(message, dict) else None
    return id if _usable(id) else None


def _usable(id: Any) -> bool:
    if isinstance(id, bool) or not isinstance(id, (str, int, float)):
        return id is None
    return len(id) <= MAX_ID if isinstance(id, str) else abs(id) < 1 << 63


def _envelope(message: Any) -> tuple[str, Mapping[str, Any]]:
    """Method and parameters of a request.

    Raises:
        BadRequest, UnknownMethod, InvalidParams: it isn't one that can be carried out.
    """
    if not isinstance(message, dict):
        raise BadRequest(f"found {show(message)}; expected a request object")
    if message.get("jsonrpc") != "2.0":
        raise BadRequest(f'jsonrpc: found {show(message.get("jsonrpc"))}; expected "2.0"')
    if not _usable(message.get("id")):
        raise BadRequest(f"id: expected text of at most {MAX_ID} characters or a number below 2**63")
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str):
        raise BadRequest(f"method: found {show(method)}; expected the name of one")
    if method not in stdio.METHODS:
        raise UnknownMethod(f"no method is called {show(method)}{nearest(method[:60], tuple(stdio.METHODS))}")
    if not isinstance(params, dict):
        raise InvalidParams(Problem(method, "", f"found {show(params)}; expected parameters by name"))
    return method, params


def _response(id: Id, result: Any = None, error: BaseException | None = None) -> dict[str, Any]:
    if error is not None:
        return {"jsonrpc": "2.0", "id": id, "error": error_object(error)}
    return {"jsonrpc": "2.0", "id": id, "result": None if result is None else asdict(result)}
