"""``ltm-edge stdio``: a bundle for programs in other languages, by JSON-RPC over stdin and stdout."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import FileIO

import click

__all__ = ["stdio"]


@click.command(short_help="Serve programs in other languages: JSON-RPC over stdin and stdout.")
def stdio() -> None:
    """Serve programs in other languages: JSON-RPC 2.0 over stdin and stdout, one message a line, UTF-8.

    Methods: open, send, cancel, recall, memory.*, inspect, close, shutdown. docs/stdio.md says what they do, and
    docs/stdio.schema.json what they take and give. Nothing but messages goes to stdout.
    """
    from ltm_edge.cli.answering import terminable
    from ltm_edge.errors import InputError
    from ltm_edge.server.connection import serve

    if sys.stdin is None or sys.stdout is None:
        raise InputError("stdin or stdout is closed; messages come and go there: leave both open")
    sink = _own_stdout()
    _wait_for(0)
    with terminable():
        serve(sys.stdin.buffer, sink)


def _own_stdout() -> FileIO:
    """Stdout for messages alone: whatever else the process writes there, native code too, goes to stderr from now."""
    sys.stdout.flush()
    own = os.dup(1)
    with suppress(OSError):  # stderr is closed: what would go there is lost
        os.dup2(2, 1)
    _wait_for(own)
    return FileIO(own, "wb")


def _wait_for(stream: int) -> None:
    """Let reads and writes wait: a parent that doesn't has made it so for both where they share a pipe's end."""
    if sys.platform != "win32":  # pipes there always wait, and older Pythons can't be asked
        os.set_blocking(stream, True)
