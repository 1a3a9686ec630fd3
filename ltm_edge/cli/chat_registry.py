"""The registry of the chat's slash commands: what there is, what runs, what completes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltm_edge.cli import console
from ltm_edge.errors import InputError

if TYPE_CHECKING:
    from ltm_edge.cli.chat_loop import Chat

__all__ = ["COMMANDS", "Command", "command", "complete", "dispatch", "is_command", "print_lines", "say"]

Run = Callable[["Chat", str], None]
Words = Callable[["Chat"], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command.

    Attributes:
        names: its name and its other spellings, without the slash.
        usage: what may follow it.
        about: what it does, for ``/?``.
        run: called with the chat and the rest of the line.
        words: what its argument may be, for completion.
    """

    names: tuple[str, ...]
    usage: str
    about: str
    run: Run
    words: Words


COMMANDS: dict[str, Command] = {}


def is_command(text: str) -> bool:
    """Whether a request is meant for the chat itself. A leading blank sends it to the model."""
    return text.startswith("/")


def dispatch(chat: Chat, text: str) -> None:
    """Run a slash command.

    Raises:
        InputError: there is no such command, or not with this argument.
        Leave: the chat is to end.
        LtmError: the command failed.
    """
    name, _, rest = text[1:].partition(" ")
    found = COMMANDS.get(name.strip().lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean /{near[0]}?" if near else "/? lists all"
        raise InputError(f"unknown command /{name}; {hint} (a blank before the slash sends it as text)")
    found.run(chat, rest.strip())


def complete(chat: Chat, text: str) -> list[str]:
    """Completions of the last word of a line that may be a slash command."""
    if not text.startswith("/"):
        return []
    name, blank, rest = text[1:].partition(" ")
    if not blank:
        return [f"/{known}" for known in COMMANDS if known.startswith(name.lower())]
    found = COMMANDS.get(name.lower())
    if found is None or " " in rest:
        return []
    return [word for word in found.words(chat) if word.startswith(rest)]


def _nothing(chat: Chat) -> Iterable[str]:
    return ()


def command(*names: str, usage: str = "", about: str, words: Words = _nothing) -> Callable[[Run], Run]:
    """Register what follows as a slash command."""

    def add(run: Run) -> Run:
        COMMANDS.update(dict.fromkeys(names, Command(names, usage, about, run, words)))
        return run

    return add


def print_lines(lines: Iterable[str]) -> None:
    """Print lines whose text may come from anywhere."""
    for line in lines:
        console.write_out(console.printable(line) + "\n")


def say(text: str) -> None:
    """Say quietly what a command did."""
    console.write_out(console.dim(console.one_line(text)) + "\n")
