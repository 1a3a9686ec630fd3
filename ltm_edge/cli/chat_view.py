"""How an answer appears in the chat: the scene as a quiet card, then the text, both while they are written."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ltm_edge.cli import console
from ltm_edge.cli.picture import picture
from ltm_edge.cli.session_api import ChatReply
from ltm_edge.loop.events import Replaced, TurnEvent
from ltm_edge.scene import render
from ltm_edge.scene.stream import FieldDone, SceneStream, StreamEvent

__all__ = ["AnswerView", "card_lines"]

_RAW = {"yaml"}  # shown as the model writes it
_INDENT = "  "
_WIDEST = 100
_STAGES = {"council": "several channels draft", "revise": "sent back by its critics"}
_REPLACED = {"council": "another channel's draft was chosen", "refusal": "no draft was good enough"}
_LATE = {"json", "image", "refusal"}  # known only once the scene is complete


class AnswerView:
    """Shows one answer as it is written.

    Args:
        form: the wanted form; ``auto`` and ``text`` stream the scene's response.
        card: whether the scene stands above the text.
    """

    def __init__(self, form: str = "auto", *, card: bool = True) -> None:
        self._form = form
        self._card = card and form not in _RAW
        self._stream = SceneStream()
        self._carded = False
        self._shown = ""
        self._waiting = False

    def start(self) -> None:
        """Show that something is happening until the first text comes."""
        if console.coloured(sys.stdout):
            self._waiting = True
            console.write_out(console.dim("…"))

    def feed(self, piece: str) -> None:
        """Take the next piece of the document, as the session's ``on_token`` passes it."""
        if self._form in _RAW:
            self._text(piece)
            return
        self._show(self._stream.feed(piece))

    def note(self, event: TurnEvent) -> None:
        """Say in one quiet line what the turn does beside writing; show a document that takes the draft's place."""
        if isinstance(event, Replaced):
            self.end_line()
            console.write_out(console.dim(f"({_REPLACED.get(event.about, 'written again')})") + "\n")
            self._stream, self._shown, self._carded = SceneStream(), "", False
            self.feed(event.document)
            return
        words = _STAGES.get(event.name)
        if words is not None:
            self.end_line()
            about = f": {event.about}" if event.about else ""
            console.write_out(console.dim(f"({words}{about})") + "\n")

    def finish(self, reply: ChatReply) -> None:
        """Complete the answer on the screen; what was not streamed is shown now."""
        self._show(self._stream.close())
        drawn = picture(reply.document) if reply.form == "image" and not reply.partial else None
        if drawn is not None:
            self.end_line()
            console.write_out(drawn + console.dim("(/image FILE writes it as SVG)") + "\n")
            text = shown = ""
        else:
            text, shown = console.printable(reply.text).rstrip("\n"), self._shown.rstrip("\n")
        if text and text != shown:
            if shown and text.startswith(shown):
                self._text(reply.text[len(shown) :])
            else:
                self.end_line()
                self._text(reply.text.rstrip("\n"))
        self.end_line()
        if reply.remark:
            console.write_out(console.dim(f"({console.printable(reply.remark)})") + "\n")
        if reply.partial:
            console.write_out(console.dim("(stopped here; the answer is partial)") + "\n")

    def end_line(self) -> None:
        """Bring the cursor to the start of a line."""
        self._clear()
        if self._shown and not self._shown.endswith("\n"):
            console.write_out("\n")
            self._shown += "\n"

    def _show(self, events: Iterable[StreamEvent]) -> None:
        for event in events:
            if isinstance(event, FieldDone):
                self._field(event.name, event.value)
            elif self._form not in _LATE:
                self._text(event.text)

    def _field(self, name: str, value: Any) -> None:
        if not self._card or name == "response":
            return
        self._clear()
        self._carded = True
        for line in card_lines({name: value}):
            console.write_out(console.dim(line) + "\n")

    def _text(self, text: str) -> None:
        if not text:
            return
        self._clear()
        if self._carded and not self._shown:
            console.write_out("\n")
        text = console.printable(text)
        self._shown += text
        console.write_out(text)

    def _clear(self) -> None:
        if self._waiting:
            self._waiting = False
            console.write_out("\r \r")


def card_lines(scene: Mapping[str, Any]) -> list[str]:
    """The scene's card, quietly indented. Takes a scene that isn't complete yet."""
    room = shutil.get_terminal_size((80, 24)).columns - len(_INDENT) - 1
    return [_INDENT + console.printable(line) for line in render.card_lines(scene, min(room, _WIDEST))]
