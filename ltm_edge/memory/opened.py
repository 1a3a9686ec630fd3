"""The parts of one opened memory, and how long they may be used."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltm_edge.errors import MemoryStoreError
from ltm_edge.memory import folders
from ltm_edge.memory.adding import SceneWriter
from ltm_edge.memory.counting import Counters
from ltm_edge.memory.integration_log import IntegrationLog
from ltm_edge.memory.integrator import Integrator
from ltm_edge.memory.protocols import Notice, Progress
from ltm_edge.memory.recall import Recaller
from ltm_edge.memory.records import Policy
from ltm_edge.memory.store import STORE_NAME, SceneStore
from ltm_edge.memory.vectors import BATCH, MakesEmbedder, Vectors

__all__ = ["OpenedMemory"]


class OpenedMemory:
    """The store of a folder and what reads and writes it; whoever uses a part holds the lock and has checked.

    Args:
        folder: it is made if it isn't there.
        embedders: turn texts into vectors, the fallback last.
        policy: numbers.
        archetype_ids: archetype id by name, over all languages.
        notice: gets sentences for the user.
        timeout: seconds to wait for another process that writes.
        progress: gets (done, all) while scenes are embedded again.
        fill: embed scenes that have no vectors when the embedder is first needed; else only :meth:`fill` does.

    Attributes:
        lock: of all parts.
        store, vectors, recaller, counters, integrator, writer, log: the parts.

    Raises:
        MemoryStoreError: can't be read, damaged, of a newer version, or in use for too long.
    """

    def __init__(
        self,
        folder: Path,
        embedders: Sequence[MakesEmbedder],
        policy: Policy,
        archetype_ids: Mapping[str, str],
        notice: Notice,
        *,
        timeout: float,
        progress: Progress | None = None,
        fill: bool = True,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MemoryStoreError(f"{folder}: can't be made: {error.strerror}; name another folder") from None
        lost = folders.lost(folder, folder / STORE_NAME)
        folded = {name.casefold(): key for name, key in archetype_ids.items()}
        self.folder = folder
        self.lock = threading.RLock()
        self.store = SceneStore(folder / STORE_NAME, timeout=timeout)
        self.vectors = Vectors(self.store, folder, embedders, policy, notice, progress, fill)
        self.recaller = Recaller(self.store, policy, folded)
        self.counters = Counters(self.store, folded)
        self.integrator = Integrator(self.store, policy, self.counters)
        self.writer = SceneWriter(self.store, policy, self.vectors, self.integrator)
        self.log = IntegrationLog(folder)
        self._notice = notice
        if lost:
            notice(lost)
        self._progress = progress
        self._pid = os.getpid()
        self._closed = False

    def check(self) -> None:
        """Refuse to go on after closing or a fork.

        Raises:
            MemoryStoreError: the parts may not be used any more.
        """
        if self._closed:
            raise MemoryStoreError(f"{self.folder}: this memory is closed; open it again")
        if os.getpid() != self._pid:
            raise MemoryStoreError(f"{self.folder}: this memory was opened before a fork; open it again in the child")

    def fill(self, progress: Progress | None = None) -> int:
        """See ``SceneMemory.fill``; the lock is taken batch by batch."""
        with self.lock:
            self.check()
            todo = self.vectors.missing()
        tell = progress or self._progress or (lambda done, todo: None)
        for start in range(0, len(todo), BATCH):
            with self.lock:
                self.check()
                if not self.vectors.embed_missing(todo[start : start + BATCH]):
                    return start
            tell(min(start + BATCH, len(todo)), len(todo))
        return len(todo)

    def close(self) -> None:
        """Save the index, bring the log up to date and close the files. May be called more than once."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            if os.getpid() != self._pid:
                return
            try:
                if self.store.writable:
                    self.vectors.close()
                    self.log.follow(self.store)
                    folders.write_meta(self.store, self.folder)
            except MemoryStoreError as error:
                self._notice(f"{error} (what was stored is safe)")
            finally:
                self.store.close()
