"""What every command does with the terminal: encodings, one-line errors, notices, nothing that moves the cursor."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TextIO

import click

__all__ = [
    "close_stdout",
    "coloured",
    "dim",
    "error",
    "notice",
    "one_line",
    "printable",
    "set_up_streams",
    "write_out",
]

_ESCAPES = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0)) if n not in (0x09, 0x0A)}


def set_up_streams() -> None:
    """Make stdout and stderr take any text.

    Pipes and files get UTF-8 with bare line feeds whatever the code page is, so that the same request gives the
    same bytes everywhere; a terminal keeps its own encoding. What can't be encoded becomes a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if stream.isatty():
            stream.reconfigure(errors="replace")
        elif stream is sys.stdout:
            stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")
        else:
            stream.reconfigure(encoding="utf-8", errors="replace")


def printable(text: str) -> str:
    """The text with control characters spelled out, so that nothing in it can steer the terminal."""
    return text.translate(_ESCAPES)


def one_line(text: str) -> str:
    """The text as a single printable line."""
    return printable(" ".join(text.split()))


def coloured(stream: TextIO | None) -> bool:
    """Whether to colour what goes to this stream: a capable terminal, and no ``NO_COLOR`` (https://no-color.org).

    A stream that was closed before the program began is None.
    """
    return (
        stream is not None and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def dim(text: str, stream: TextIO | None = None) -> str:
    """The text in a quiet tone, where the stream (stdout by default) shows tones."""
    return click.style(text, dim=True) if coloured(stream or sys.stdout) else text


def error(message: str) -> None:
    """Say on stderr what failed, in one line."""
    line = f"error: {one_line(message)}"
    _say(click.style(line, fg="red") if coloured(sys.stderr) else line)


def notice(message: str) -> None:
    """Say something on stderr that the user should know, in one line."""
    _say(dim(one_line(message), sys.stderr))


def write_out(text: str) -> None:
    """Write to stdout at once.

    Raises:
        BrokenPipeError: the reader has gone.
        OSError: stdout is closed, or its disk is full.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "is closed", "stdout")
    try:
        click.echo(text, nl=False)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from None


def close_stdout() -> None:
    """Turn stdout into a sink: its reader has gone, and the interpreter's last flush must not complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


def _say(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads stderr: nothing more to be done
        click.echo(message, err=True)
