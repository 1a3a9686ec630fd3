"""Chat templates: from messages to the exact text a model expects, with its parts kept apart.

A model file carries its chat format as a Jinja template. It is rendered with placeholders instead of the
messages' contents, and the result is cut at the placeholders. So the template's own text, in which special
tokens are meant, and the contents, in which they are not, are known apart for certain: a request that
quotes ``<|im_end|>`` stays a request. The variables that templates expect are those of Hugging Face's
transformers (``apply_chat_template``); which quirks to expect was learned from its documentation and from
llama.cpp's minja (typed contents, templates without a system role).
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ltm_edge.scene.jinja_sandbox import BoundedTemplate, TemplateRefusal, one_line

__all__ = ["Builtin", "Message", "RenderedPrompt", "Segment", "merge_system", "render_chat"]

Builtin = Callable[[Sequence[tuple[str, str]], bool], "str | None"]
"""llama.cpp's own formatter: (role, content) pairs and whether to open the answer -> text, or None."""

FROZEN_DAY = datetime.date(2025, 1, 1)

_MARK_OPEN, _MARK_CLOSE = "\ue0f0", "\ue0f1"
_PAD = "\u2003"
_TRICKY = "aB\"'\\\n<&"
"""Inside every placeholder: a template that escapes, folds or re-cases contents gives itself away by it."""

_SHAPES: tuple[tuple[bool, list[Any] | None], ...] = ((False, None), (True, None), (False, []))
"""Contents as text or as typed parts, and no tools as None or as an empty list: what templates differ in."""

_THOUGHTS = {
    "<think>": "\n\n</think>\n\n",
    "<thinking>": "\n\n</thinking>\n\n",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "[THINK]": "[/THINK]",
}

_LOOKS_SPECIAL = re.compile(r"<(?=\||/?[a-z_]{1,24}>)|\[(?=/?[a-z_]{2,24}\])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: the text, as it is to reach the model.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a prompt.

    Attributes:
        text: the characters.
        special: special tokens spelled in it are meant (it came from the template, not from a message).
    """

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A chat as one text for the model.

    Attributes:
        text: all of it; equal to the joined segments.
        source: what made it: ``jinja`` (the model's template), ``builtin`` (llama.cpp's), ``plain``.
        merged_system: the template takes no system message, so it stands at the head of the first user message.
        notice: something the user should hear about, in one line, or None.
        segments: the same text, template and contents apart.
        has_bos: the text already starts with the beginning-of-sequence token.
    """

    text: str
    source: str
    merged_system: bool
    notice: str | None
    segments: tuple[Segment, ...]
    has_bos: bool

    def pieces(self, special_texts: Iterable[str]) -> tuple[Segment, ...]:
        """The segments to tokenise one by one: as few as is safe.

        Tokenising at a seam may differ from tokenising across it, so contents in which none of the model's
        special tokens is spelled are joined with the template around them. Usually that leaves one piece.

        Args:
            special_texts: how the model's special (control) tokens are spelled.
        """
        meant = [text for text in special_texts if text]
        unsafe = [not piece.special and any(text in piece.text for text in meant) for piece in self.segments]
        # A token may also be spelled across a seam; then the contents around that seam are kept apart, too.
        ends, position = [], 0
        for piece in self.segments:
            position += len(piece.text)
            ends.append(position)
        for text in meant:
            start = self.text.find(text)
            while start >= 0:
                stop = start + len(text)
                touched = [
                    index
                    for index, end in enumerate(ends)
                    if end > start and end - len(self.segments[index].text) < stop
                ]
                if len(touched) > 1:
                    for index in touched:
                        unsafe[index] = unsafe[index] or not self.segments[index].special
                start = self.text.find(text, start + 1)
        joined: list[Segment] = []
        for piece, keep_apart in zip(self.segments, unsafe, strict=True):
            if keep_apart:
                joined.append(piece)
            elif joined and joined[-1].special:
                joined[-1] = Segment(joined[-1].text + piece.text, True)
            else:
                joined.append(Segment(piece.text, True))
        return tuple(joined)


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system text moved to the head of the first user message."""
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    rest = [m for m in messages if m.role != "system"]
    if not system:
        return rest
    if not rest or rest[0].role != "user":
        return [Message("user", system), *rest]
    return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]


def render_chat(
    messages: Sequence[Message],
    template: str | None,
    bos: str = "",
    eos: str = "",
    builtin: Builtin | None = None,
    *,
    add_generation_prompt: bool = True,
    today: datetime.date | None = None,
    special_texts: Iterable[str] = (),
) -> RenderedPrompt:
    """Render a chat with the model's template, else llama.cpp's, else in a plain format.

    Args:
        messages: the chat; a system message stands first or not at all.
        template: Jinja text from the model file, None or empty if it has none.
        bos, eos: how the model's sequence tokens are spelled.
        builtin: llama.cpp's formatter, None if it doesn't know the model's template.
        add_generation_prompt: end with the opening of the answer.
        today: what the template's clock shows. None is a fixed day, so that the same chat is the same text
            on every day and cached state stays valid.
        special_texts: how the model's special tokens are spelled; only needed to defuse contents in a template
            that transforms them (their first character is followed by a zero-width space then).
    """
    special = tuple(text for text in special_texts if text)
    failures: list[str] = []
    found: _Rendering | None = None
    if template:
        try:
            jinja = _compiled(template)
        except TemplateRefusal as refusal:
            failures.append(str(refusal))
        else:
            variables = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": add_generation_prompt}
            found = _by_jinja(jinja, messages, variables, today or FROZEN_DAY, special, failures)
    notice = None
    if found is None and builtin is not None:
        found = _by_builtin(builtin, messages, add_generation_prompt, failures)
        if found is not None and template:
            notice = f"the model's chat template can't be used ({failures[0]}); llama.cpp's own is used instead"
    if found is None:
        found = _plainly(messages, add_generation_prompt)
        why = (
            f"the model's chat template can't be used ({failures[0]})" if template else "the model has no chat template"
        )
        notice = f"{why}; a plain format is used, and answers may be weaker: an instruction-tuned model does better"
    segments = _closed_thought(found.segments) if add_generation_prompt else found.segments
    text = "".join(piece.text for piece in segments)
    return RenderedPrompt(text, found.source, found.merged, notice, segments, bool(bos) and text.startswith(bos))


@dataclass(frozen=True, slots=True)
class _Rendering:
    segments: tuple[Segment, ...]
    source: str
    merged: bool


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> BoundedTemplate:
    return BoundedTemplate(template)


def _by_jinja(
    jinja: BoundedTemplate,
    messages: Sequence[Message],
    variables: dict[str, Any],
    today: datetime.date,
    special_texts: tuple[str, ...],
    failures: list[str],
) -> _Rendering | None:
    def run(parts: Sequence[Message], typed: bool, tools: list[Any] | None) -> str:
        listed = [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if typed else m.content} for m in parts
        ]
        # Scenes are written under a grammar that has no place for thinking aloud, hence the two switches.
        switches = {"enable_thinking": False, "thinking": False}
        return jinja.render({**variables, **switches, "messages": listed, "tools": tools, "documents": None}, today)

    for parts, merged in _system_modes(messages):
        marked = [_placeholder(i, m.role) for i, m in enumerate(parts)]
        for typed, tools in _SHAPES:
            try:
                segments = _cut(run(marked, typed, tools), parts)
            except TemplateRefusal as refusal:
                failures.append(str(refusal))
                continue
            if segments is not None:
                return _Rendering(segments, "jinja", merged)
    for parts, merged in _system_modes(messages):
        # The template changes contents on their way, so they can't be told apart: they go in defused.
        try:
            defused = [Message(m.role, _defuse(m.content, special_texts)) for m in parts]
            text = run(defused, False, None)
        except TemplateRefusal as refusal:
            failures.append(str(refusal))
            continue
        if all(_recognisable(m.content, text) for m in defused):
            return _Rendering((Segment(text, True),), "jinja", merged)
        failures.append("it drops messages")
    return None


def _by_builtin(
    builtin: Builtin, messages: Sequence[Message], add_generation_prompt: bool, failures: list[str]
) -> _Rendering | None:
    for parts, merged in _system_modes(messages):
        try:
            marks = [_placeholder(i, m.role) for i, m in enumerate(parts)]
            text = builtin([(m.role, m.content) for m in marks], add_generation_prompt)
        except Exception as error:  # a foreign call: whatever it raises means that it can't
            failures.append(one_line(error))
            continue
        segments = _cut(text, parts) if text else None
        if segments is not None:
            return _Rendering(segments, "builtin", merged)
        failures.append("llama.cpp has no format for it")
    return None


def _plainly(messages: Sequence[Message], add_generation_prompt: bool) -> _Rendering:
    titles = {"system": "", "user": "### Request\n", "assistant": "### Answer\n"}
    segments: list[Segment] = []
    for message in messages:
        segments.append(Segment(titles.get(message.role, f"### {message.role}\n"), True))
        segments.append(Segment(message.content.strip(), False))
        segments.append(Segment("\n\n", True))
    if add_generation_prompt:
        segments.append(Segment(titles["assistant"], True))
    return _Rendering(tuple(piece for piece in segments if piece.text), "plain", False)


def _system_modes(messages: Sequence[Message]) -> list[tuple[list[Message], bool]]:
    modes = [(list(messages), False)]
    if any(m.role == "system" for m in messages):
        modes.append((merge_system(messages), True))
    return modes


def _placeholder(index: int, role: str) -> Message:
    return Message(role, f"{_PAD}{_MARK_OPEN}{index}{_TRICKY}{_MARK_CLOSE}{_PAD}")


def _cut(text: str, messages: Sequence[Message]) -> tuple[Segment, ...] | None:
    """Cut a rendering at its placeholders; None unless each message stands in it once, in order, unchanged.

    The blanks around a placeholder show whether the template trims contents; the real ones are trimmed alike.
    """
    if not messages:
        return None
    segments: list[Segment] = []
    rest = text
    for index, message in enumerate(messages):
        before, mark, rest = rest.partition(f"{_MARK_OPEN}{index}{_TRICKY}{_MARK_CLOSE}")
        if not mark:
            return None
        content = message.content
        if before.endswith(_PAD):
            before = before[: -len(_PAD)]
        else:
            content = content.lstrip()
        if rest.startswith(_PAD):
            rest = rest[len(_PAD) :]
        else:
            content = content.rstrip()
        segments += [Segment(before, True), Segment(content, False)]
    segments.append(Segment(rest, True))
    if any(mark in piece.text for piece in segments if piece.special for mark in (_MARK_OPEN, _MARK_CLOSE, _PAD)):
        return None
    return tuple(piece for piece in segments if piece.text)


def _defuse(content: str, special_texts: tuple[str, ...]) -> str:
    if special_texts:
        spelled = re.compile("|".join(map(re.escape, special_texts)), re.IGNORECASE)
        content = spelled.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", content)
    return _LOOKS_SPECIAL.sub(lambda match: match[0] + "\u200b", content)


def _recognisable(content: str, text: str) -> bool:
    """Whether a content can have reached the text: most of its words stand in it."""
    words = re.findall(r"\w+", content.casefold())[:200]
    folded = text.casefold()
    return not words or sum(word in folded for word in words) >= 0.8 * len(words)


def _closed_thought(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Close a thought that the template has opened for the model: the grammar starts with the scene."""
    if segments and segments[-1].special:
        last = segments[-1].text.rstrip()
        for opened, closed in _THOUGHTS.items():
            if last.endswith(opened):
                return (*segments[:-1], Segment(last + closed, True))
    return segments
