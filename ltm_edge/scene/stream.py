"""A scene read while it is being written: fields as they are completed, the response piece by piece."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ltm_edge.errors import SchemaError
from ltm_edge.scene.record import SCENE_FIELDS, split_names

__all__ = ["FieldDone", "ResponseDelta", "SceneStream", "StreamEvent"]

FieldValue = str | tuple[str, ...] | tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FieldDone:
    """A field is complete: text, names (archetype) or pairs (actors), as in `Scene`."""

    name: str
    value: FieldValue


@dataclass(frozen=True, slots=True)
class ResponseDelta:
    """More of the response: unindented, lines joined with ``\\n``, no newline at the end of the whole."""

    text: str


StreamEvent = FieldDone | ResponseDelta

_FIELD = re.compile(rf"( *)({'|'.join(SCENE_FIELDS)}):[ ]*(.*)\Z", re.DOTALL)
_ACTOR = re.compile(r" *- +(.+?): +(.*)\Z")
_BLOCK_HEAD = re.compile(r"[|>][-+0-9]*\Z")
_OPEN_RESPONSE = re.compile(r' *response: *"([^"\\]*)(["\\]?)')


def _unquoted(text: str) -> str:
    """The value of a one-line scalar; the raw text where it isn't valid YAML."""
    text = text.strip(" \t\r")
    if len(text) >= 2 and text[0] == text[-1] == '"' and "\\" not in text and '"' not in text[1:-1]:
        return text[1:-1]
    if text[:1] not in ("'", '"'):
        return text
    from ltm_edge.schemas.yaml import load_yaml

    try:
        value = load_yaml(text).data
    except SchemaError:
        return text.strip("\"'")
    return value if isinstance(value, str) else text


class SceneStream:
    """Reads a scene document as it arrives, in pieces of any size.

    Lenient: lines that belong to no field are passed over, and nothing raises. How the text is cut into pieces makes
    no difference to the events, save that adjacent `ResponseDelta` may be cut elsewhere.
    """

    def __init__(self) -> None:
        self._line = ""
        self._fields: dict[str, FieldValue] = {}
        self._actors: list[tuple[str, str]] | None = None
        self._block: str | None = None  # name of the field whose block is being read
        self._key_indent = 0
        self._indent: int | None = None  # columns to drop from the block's lines, once known
        self._text: list[str] = []  # pieces of the block, or of the quoted response
        self._breaks = 0  # line breaks that count only if more text follows
        self._sent = 0  # characters of the current line that are already in the text
        self._response_open = False
        self._events: list[StreamEvent] = []

    def feed(self, text: str) -> list[StreamEvent]:
        """Take more of the document; the events that it completes, in order."""
        for i, part in enumerate(text.split("\n")):
            if i:
                self._end_line()
            if part:
                # One look per character where the line's meaning is still open, one per piece where it is text.
                self._take(part)
        return self._drain()

    def close(self) -> list[StreamEvent]:
        """Say that the document is over; the events that this completes."""
        if self._line:
            self._end_line()
        self._end_block()
        self._end_actors()
        return self._drain()

    def partial(self) -> dict[str, Any]:
        """The fields known so far, complete ones and as much of the response as there is, in document order."""
        known: dict[str, Any] = dict(self._fields)
        if self._actors:
            known["actors"] = tuple(self._actors)
        if "response" not in known and (self._block == "response" or self._response_open) and self._text:
            known["response"] = "".join(self._text)
        return known

    @property
    def response(self) -> str:
        """The response so far."""
        value = self._fields.get("response")
        if isinstance(value, str):
            return value
        return "".join(self._text) if self._block == "response" or self._response_open else ""

    def _drain(self) -> list[StreamEvent]:
        merged: list[StreamEvent] = []
        for event in self._events:
            last = merged[-1] if merged else None
            if isinstance(event, ResponseDelta) and isinstance(last, ResponseDelta):
                merged[-1] = ResponseDelta(last.text + event.text)
            else:
                merged.append(event)
        self._events = []
        return merged

    def _take(self, part: str) -> None:
        self._line += part
        if self._block is not None and self._in_block():
            self._send_line()
            return
        start = self._line.lstrip(" ")
        if start and self._block is not None:
            self._end_block()
        if start and self._actors is not None and not start.startswith("-"):
            self._end_actors()
        if start.startswith("response:") and "response" not in self._fields:
            self._take_quoted()

    # A block ---------------------------------------------------------------------------------------------------

    def _in_block(self) -> bool:
        """Whether the current line, as far as it is known, is text of the block (or still may be)."""
        blanks = len(self._line) - len(self._line.lstrip(" "))
        if self._indent is None:
            if blanks == len(self._line):
                return True
            if blanks <= self._key_indent:
                return False
            self._indent = blanks
        return blanks >= self._indent or blanks == len(self._line)

    def _send_line(self) -> None:
        if self._indent is None or len(self._line) <= self._indent:
            return
        new = self._line[self._indent + self._sent :]
        self._sent += len(new)
        self._emit("\n" * self._breaks + new)
        self._breaks = 0

    def _emit(self, text: str) -> None:
        if not text:
            return
        self._text.append(text)
        if self._block == "response" or self._response_open:
            self._events.append(ResponseDelta(text))

    def _end_block(self) -> None:
        if self._block is None:
            return
        self._done(self._block, "".join(self._text))
        self._block, self._text = None, []

    def _start_block(self, name: str, indent: int) -> None:
        self._block, self._key_indent, self._indent = name, indent, None
        self._text, self._breaks, self._sent = [], 0, 0

    # A quoted response -----------------------------------------------------------------------------------------

    def _take_quoted(self) -> None:
        opened = _OPEN_RESPONSE.match(self._line)
        if not opened:
            return
        if not self._response_open:
            self._response_open, self._text, self._sent = True, [], 0
        new = opened[1][self._sent :]
        self._sent += len(new)
        self._emit(new)

    # Lines and fields ------------------------------------------------------------------------------------------

    def _end_line(self) -> None:
        line, self._line = self._line.removesuffix("\r"), ""
        if self._block is not None:
            if self._text:
                self._breaks += 1
            self._sent = 0
            return
        if self._actors is not None and line.strip():
            actor = _ACTOR.match(line)
            if actor:
                self._actors.append((_unquoted(actor[1]), _unquoted(actor[2])))
                return
        found = _FIELD.match(line)
        if not found or found[2] in self._fields:
            return
        indent, name, value = len(found[1]), found[2], found[3].rstrip(" ")
        if name == "actors":
            self._actors = []
        elif _BLOCK_HEAD.match(value):
            self._start_block(name, indent)
        elif name == "archetype":
            self._done(name, split_names(_unquoted(value)))
        else:
            text = _unquoted(value)
            if name == "response":
                sent = "".join(self._text) if self._response_open else ""
                self._response_open = True
                if text.startswith(sent):
                    self._emit(text[len(sent) :])
                self._response_open, self._text = False, []
            self._done(name, text)

    def _end_actors(self) -> None:
        if self._actors is not None:
            if self._actors:
                self._done("actors", tuple(self._actors))
            self._actors = None

    def _done(self, name: str, value: FieldValue) -> None:
        self._fields[name] = value
        self._events.append(FieldDone(name, value))
