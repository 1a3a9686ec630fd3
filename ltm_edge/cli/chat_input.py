"""Reading requests: a line editor with history and completion in a terminal, plain lines from a pipe."""

from __future__ import annotations

import io
import locale
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ltm_edge.cli import console

if TYPE_CHECKING:
    from prompt_toolkit.history import History

__all__ = ["MAX_LINE", "Block", "PromptReader", "decode", "piped_lines"]

MAX_LINE = 8 * 1024 * 1024
QUOTES = '"""'

Complete = Callable[[str], Iterable[str]]


class Block:
    """Puts together a request that was typed as several lines.

    ``\"\"\"`` opens a block and ``\"\"\"`` at the end of a line closes it; outside of one, a trailing backslash goes
    on with the next line.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._quoted = False

    @property
    def open(self) -> bool:
        """Whether more lines are needed."""
        return self._quoted or bool(self._lines)

    def feed(self, line: str) -> str | None:
        """Take a line; the whole request once it is complete, None until then."""
        if self._quoted:
            if line.rstrip().endswith(QUOTES):
                return self._done(line.rstrip()[: -len(QUOTES)])
            self._lines.append(line)
            return None
        if not self._lines and line.lstrip().startswith(QUOTES):
            line = line.lstrip()[len(QUOTES) :]
            self._quoted = True
            return self.feed(line) if line else None
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            self._lines.append(line[:-1])
            return None
        return self._done(line)

    def flush(self) -> str:
        """The lines so far as a request: the input has ended."""
        return self._done("")

    def _done(self, last: str) -> str:
        text = "\n".join([*self._lines, last])
        self._lines, self._quoted = [], False
        return text.strip("\n")


class PromptReader:
    """Reads requests with prompt_toolkit.

    Args:
        complete: gives completions for the text left of the cursor.
        history: file that keeps what was typed between chats; None keeps nothing.
        private: while it says so, the prompt does too, and nothing that is typed is kept.
    """

    def __init__(self, complete: Complete, history: Path | None, private: Callable[[], bool] = lambda: False) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import create_output

        self._interrupts = 0
        self._private = private
        self._session: PromptSession[str] = PromptSession(
            history=_history(history, private),
            completer=_completer(complete),
            complete_while_typing=False,
            enable_open_in_editor=False,
            output=create_output(always_prefer_tty=True),  # `ltm-edge chat | tee log` still has its prompt
        )

    def read(self) -> str | None:
        """The next request; None when the user leaves with Ctrl-D. Ctrl-C clears what was typed."""
        block = Block()
        while True:
            try:
                mark = "(private) " if self._private() else ""
                line = self._session.prompt(mark + ("... " if block.open else ">>> "))
            except KeyboardInterrupt:
                self._interrupts += 1
                block = Block()
                if self._interrupts >= 2:
                    console.notice("(Ctrl-D or /bye leaves)")
                continue
            except EOFError:
                if block.open:
                    return block.flush()
                return None
            self._interrupts = 0
            text = block.feed(line)
            if text is not None:
                return text

    def confirm(self, question: str) -> bool:
        """Whether the person says yes; nothing and Ctrl-C are a no."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import create_output

        asking: PromptSession[str] = PromptSession(output=create_output(always_prefer_tty=True))
        try:
            return asking.prompt(question).strip().lower() in ("y", "yes", "д", "да")
        except (KeyboardInterrupt, EOFError):
            return False


def piped_lines(stream: IO[bytes] | None = None) -> Iterator[str | None]:
    """The lines of stdin without their ends; None stands for a line that is too long.

    Raises:
        KeyboardInterrupt: Ctrl-C while waiting for input.
    """
    source: Any = stream if stream is not None else getattr(sys.stdin, "buffer", None)
    if source is None:  # a text stream that was put in place of stdin
        source = io.BytesIO(sys.stdin.read().encode("utf-8", "surrogatepass"))
    first = True
    while line := source.readline(MAX_LINE + 2):
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            while (rest := source.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield None
            continue
        text = decode(line.rstrip(b"\r\n") if line.endswith(b"\n") else line)
        yield text.removeprefix("\ufeff") if first else text
        first = False


def decode(data: bytes) -> str:
    """Text from bytes: UTF-8; else UTF-16 with its mark; else the system's code page; else what can be saved of it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and len(data) % 2 == 0:
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    for encoding in _code_pages():
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    console.notice("the input is not UTF-8; what can't be read is replaced by \ufffd")
    return data.decode("utf-8", "replace")


def _code_pages() -> list[str]:
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        return [f"cp{kernel.GetConsoleCP() or kernel.GetOEMCP()}", f"cp{kernel.GetACP()}"]
    encoding = locale.getpreferredencoding(False)
    # Every byte is a character in Latin-1: as a guess it would hide that the text can't be read.
    return [] if encoding.lower().replace("_", "-") in ("utf-8", "ascii", "iso-8859-1", "latin-1") else [encoding]


def _history(path: Path | None, private: Callable[[], bool] = lambda: False) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if path is None:
        return InMemoryHistory()

    class SafeHistory(FileHistory):
        """A full or read-only disk costs the history, not the chat."""

        def store_string(self, string: str) -> None:
            if private():
                return
            try:
                super().store_string(string)
            except (OSError, UnicodeError):
                return

        def load_history_strings(self) -> Iterable[str]:
            try:
                return list(super().load_history_strings())
            except OSError:
                return []

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return SafeHistory(str(path))


def _completer(complete: Complete) -> Any:
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document

    class SlashCompleter(Completer):
        def get_completions(self, document: Document, complete_event: object) -> Iterator[Completion]:
            text = document.text_before_cursor
            word = text.rpartition(" ")[2]
            for candidate in complete(text):
                yield Completion(candidate, start_position=-len(word))

    return SlashCompleter()
