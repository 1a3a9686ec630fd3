"""The scene memory of a chat: opened if it can be, and done without if it can't."""

from __future__ import annotations

import logging
import os
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ltm_edge.cli import console
from ltm_edge.cli.options import MemoryOptions
from ltm_edge.cli.session_api import ChatBundle
from ltm_edge.errors import Cancelled, InputError, LtmError

if TYPE_CHECKING:
    from ltm_edge.scene_memory import SceneMemory

__all__ = ["CLOCK", "ChatMemory", "clock", "memory_path"]

CLOCK = "LTM_EDGE_NOW"
"""Name of the environment variable that gives the time scenes are stored with, such as 2026-01-31T09:30:00+00:00."""

_PATIENCE = 3.0  # seconds that another process may keep an answer waiting

_log = logging.getLogger(__name__)


def memory_path(name: str) -> Path:
    """The folder that ``--memory`` names: a name in the user's data folder, or a path, which has a slash in it.

    Raises:
        InputError: it is neither.
    """
    from ltm_edge.scene_memory import memory_folder

    separators = {"/", os.sep, os.altsep or "/"}
    if name.startswith(("~", ".")) or any(mark in name for mark in separators):
        return Path(name).expanduser()
    return memory_folder(name)


def clock() -> datetime | None:
    """The moment that the environment gives; None: the machine's own.

    Raises:
        InputError: it gives something else than a time with its zone.
    """
    from ltm_edge.memory.records import read_iso

    text = os.environ.get(CLOCK, "")
    if not text:
        return None
    try:
        moment: datetime | None = read_iso(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InputError(f"{CLOCK}={text}: not a time with its zone, such as 2026-01-31T09:30:00+00:00")
    return moment


class ChatMemory:
    """What a chat knows of its scene memory.

    Attributes:
        opened: the memory; None while there is none.
    """

    def __init__(
        self, bundle: ChatBundle, options: MemoryOptions, *, required: bool = False, private: bool = False
    ) -> None:
        """Open the memory that was asked for.

        Args:
            bundle: whose overlay says how it works.
            options: which one.
            required: one that can't be opened is an error; else it is said and there is none.
            private: none is made where there is none.

        Raises:
            LtmError: it is required and can't be opened.
        """
        self.opened: SceneMemory | None = None
        self._bundle = bundle
        self._name = options.memory
        self._said: list[str] = []
        self._warming: threading.Thread | None = None
        self._leaving = False
        if not options.off:
            try:
                if not private or memory_path(self._name).is_dir():
                    self.open()
            except LtmError as error:
                if required:
                    raise
                console.notice(f"memory: {error}; the chat goes on without it")

    def open(self) -> SceneMemory:
        """Open the memory if it isn't open.

        Raises:
            LtmError: it can't be opened; says why.
        """
        if self.opened is None:
            clock()
            folder = memory_path(self._name)
            self.opened = self._bundle.open_memory(folder, notice=self._said.append, timeout=_PATIENCE, fill=False)
            if not self.opened.writable:
                console.notice(f"memory: {self.opened.folder} can't be written; scenes are recalled and none is stored")
            self._warm(self.opened)
        return self.opened

    def notices(self) -> list[str]:
        """What the memory had to say since this was last asked."""
        said, self._said[:] = list(self._said), []
        return said

    def close(self) -> None:
        """Close the memory. What was stored is safe already."""
        self._leaving = True
        if self._warming is not None:
            self._warming.join()
            self._warming = None
        if self.opened is not None:
            self.opened.close()
            self.opened = None

    def _warm(self, opened: SceneMemory) -> None:
        """Load the embedder, and embed what lacks vectors, while the person types; nothing waits for it but an end.

        An answer that comes before is done goes by what there is, and leaving stops it: the next chat goes on there.
        """

        def tell(done: int, todo: int) -> None:
            if self._leaving:
                raise Cancelled("left")
            _progress(done, todo)

        def work() -> None:
            try:
                opened.fill(tell)
            except Cancelled:
                return
            except LtmError as error:  # the first turn meets it again and says it
                _log.info("%s: %s", opened.folder, error)

        self._warming = threading.Thread(target=work, name="ltm-edge-memory")
        self._warming.start()


def _progress(done: int, todo: int) -> None:
    if todo > 64 and sys.stderr.isatty():
        sys.stderr.write(f"\rembedding scenes: {done} of {todo}" + ("\n" if done >= todo else ""))
        sys.stderr.flush()
