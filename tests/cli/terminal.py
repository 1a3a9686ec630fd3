"""A real terminal in front of the command line, for tests."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FAKE = [str(ROOT / "tests" / "cli" / "fake_main.py")]
REAL = ["-m", "ltm_edge"]
READY = "\x1b[?2004h"  # the line editor switches bracketed paste on when it begins to read, and off when it has read
READ = "\x1b[?2004l"

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """A process of the command line at a pseudo-terminal.

    Args:
        args: arguments of the command.
        program: :data:`FAKE` or :data:`REAL`.
        seconds: how long to wait for anything.
    """

    def __init__(self, *args: str, program: list[str] | None = None, seconds: float = 300, **env: str) -> None:
        # Only the tests that need a terminal are skipped where there is none to have.
        self._pexpect = pytest.importorskip("pexpect", reason="needs a pseudo-terminal")
        self.child: Any = self._pexpect.spawn(
            sys.executable,
            [*(program or FAKE), *args],
            env=os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1"} | env,
            encoding="utf-8",
            timeout=seconds,
            dimensions=(50, 200),
            cwd=str(ROOT),
        )
        self.child.delaybeforesend = None

    def wait(self, text: str = READY) -> str:
        """Wait for the next prompt or another text; what came before it, without control codes."""
        self.child.expect_exact(text)
        return _CODES.sub("", self.child.before)

    def say(self, line: str, then: str = READY) -> str:
        """Type a line and wait for the next prompt (or another text); what was printed until then."""
        self.child.send(line + "\r")
        self.wait(READ)
        return self.wait(then)

    def key(self, letter: str) -> None:
        """Press Ctrl and a letter."""
        self.child.sendcontrol(letter)

    def end(self) -> tuple[int | None, str]:
        """Wait for the end: exit code and what was still printed."""
        self.child.expect(self._pexpect.EOF)
        rest = _CODES.sub("", self.child.before)
        self.child.close()
        return self.child.exitstatus, rest

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close(force=True)
