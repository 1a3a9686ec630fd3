"""The SQLite file of a memory: opening it safely, migrations, transactions, errors in plain words.

Durability: write-ahead log with ``synchronous=FULL``. A write that has returned survives ``kill -9`` and a power cut
(with ``NORMAL`` a power cut could take back the last turns); it costs one fsync of the log per transaction.
``secure_delete`` overwrites what is deleted.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ltm_edge.errors import LtmError, MemoryStoreError
from ltm_edge.files import sync_folder
from ltm_edge.memory import migrations
from ltm_edge.memory.records import microseconds, to_iso

__all__ = ["Database"]

APPLICATION_ID = 0x4C544D4D  # "LTMM"
PAGE_SIZE = 8192  # three float16 vectors of 384 take 2.3 kB: three rows to a page rather than one


class Database:
    """One SQLite file and one connection to it.

    Used by one thread at a time (the facade sees to that). Other processes may use the same file: reads never wait,
    writes wait for each other up to ``timeout`` seconds.

    Attributes:
        path: the file.
        writable: False where the folder can't be written; then reading is all that works.
        generation: number of the last committed change that this object has seen.
    """

    def __init__(self, path: Path, *, timeout: float = 10.0, read_only: bool = False) -> None:
        """Open the file, making it if it isn't there.

        Raises:
            MemoryStoreError: no memory, damaged, of another program or a newer version, or in use for too long.
        """
        self.path = path
        self.generation = 0
        self._depth = 0
        self._timeout = timeout
        existing = path.exists()
        self.writable = not read_only and _writable(path)
        if not existing and not self.writable:
            raise MemoryStoreError(f"{path}: no memory there, and the folder can't be written; name another folder")
        if existing and not path.is_file():
            raise MemoryStoreError(f"{path}: not a file; move it away or name another folder")
        self._db = self._connect()
        try:
            with self._guard():
                self._check_owner()
                if self.writable:
                    self._prepare()
                elif self._check_version():
                    self._migrate_copy()
                self.generation = int(self.fact("generation"))
        except BaseException:
            self._db.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        # Reading through a log needs a file beside it. Without a log there is nothing to miss, and nothing is written.
        log = self.path.with_name(self.path.name + "-wal")
        logged = log.exists() and log.stat().st_size > 0
        if self.writable:
            mode = "rwc"
        elif logged and not _writable(self.path):
            raise MemoryStoreError(
                f"{self.path}: was not closed properly and its folder can't be written; make it writable once"
            )
        else:
            mode = "ro" if logged else "ro&immutable=1"
        try:
            return sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise MemoryStoreError(f"{self.path}: can't be opened: {error}; check the folder's permissions") from None

    def _check_owner(self) -> None:
        self._db.execute("BEGIN")  # one look at both: another process may be making the tables
        found = self._db.execute("PRAGMA application_id").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        self._db.execute("COMMIT")
        if found != APPLICATION_ID and (found or tables):
            raise MemoryStoreError(f"{self.path}: a SQLite file of another program; name another folder")

    def _prepare(self) -> None:
        db = self._db
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        self._use_log()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA journal_size_limit = 8388608")
        if self._version() != len(migrations.MIGRATIONS):
            self._migrate()

    def _use_log(self) -> None:
        """Switch to the write-ahead log; SQLite doesn't wait for others here, so this does."""
        end = time.monotonic() + self._timeout
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.02)

    def _version(self) -> int:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
            return 0
        return int(self._db.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0])

    def _check_version(self) -> bool:
        """Whether the file is of an older format."""
        found, known = self._version(), len(migrations.MIGRATIONS)
        if found > known:
            raise MemoryStoreError(
                f"{self.path}: made by a newer version of ltm-edge (format {found}, this one reads up to {known}); "
                "update ltm-edge"
            )
        return found < known

    def _migrate_copy(self) -> None:
        """Go on with a copy in memory, in today's format: a bundle's store is never changed."""
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.backup(copy)
        self._db.close()
        self._db = copy
        self._migrate()

    def _migrate(self) -> None:
        db = self._db
        self._check_version()
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(
                "CREATE TABLE IF NOT EXISTS migrations "
                "(number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied TEXT NOT NULL)"
            )
            done = self._version()  # again, under the lock: another process may have been quicker
            for number, name, step in migrations.MIGRATIONS:
                if number > done:
                    step(db)
                    db.execute("INSERT INTO migrations VALUES (?, ?, ?)", (number, name, to_iso(microseconds(None))))
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        if self.writable:
            sync_folder(self.path.parent)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def _explain(self, error: sqlite3.Error) -> MemoryStoreError:
        # Python 3.10 doesn't carry SQLite's codes yet; there the text is all that tells the cases apart.
        code = getattr(error, "sqlite_errorcode", None)
        code = code & 0xFF if code is not None else None
        text = str(error)
        if code in (5, 6) or (code is None and "locked" in text):
            return MemoryStoreError(
                f"{self.path}: in use by another process for more than {self._timeout:g} s; try again when it is done"
            )
        if code == 13 or (code is None and "full" in text):
            return MemoryStoreError(f"{self.path}: the disk is full; nothing was stored; free some space")
        if code == 10 or (code is None and "I/O" in text):
            return MemoryStoreError(
                f"{self.path}: reading or writing failed ({text}); nothing was stored; check the disk"
            )
        if code == 8 or (code is None and "readonly" in text):
            return MemoryStoreError(f"{self.path}: can't be written; make the folder writable or name another one")
        if (
            code in (11, 26)
            or text.startswith("no such ")
            or (code is None and ("malformed" in text or "not a database" in text))
        ):
            return MemoryStoreError(
                f"{self.path}: damaged or not a memory ({text}); move it away and import an export of it"
            )
        if code == 14:
            return MemoryStoreError(f"{self.path}: can't be opened; check the folder and its permissions")
        return MemoryStoreError(f"{self.path}: {text}")

    # Transactions.

    @contextlib.contextmanager
    def transaction(self) -> Iterator[int]:
        """One change, whole or not at all; yields its generation. Inner ones join the outer one.

        Raises:
            MemoryStoreError: read-only, disk full, or in use by another process for too long. Nothing is changed then.
        """
        if self._depth:
            self._depth += 1
            try:
                yield self.generation
            finally:
                self._depth -= 1
            return
        if not self.writable:
            raise MemoryStoreError(f"{self.path}: can't be written; make the folder writable or name another one")
        before = self.generation
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                self._db.execute("UPDATE facts SET value = value + 1 WHERE key = 'generation'")
                self.generation = int(self.fact("generation"))
                yield self.generation
                self._db.execute("COMMIT")
            except BaseException:
                self.generation = before
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        with self._guard():
            return self._db.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute a statement that changes something, inside a transaction."""
        if not self._depth:
            raise LtmError("a change outside a transaction")
        with self._guard():
            return self._db.execute(sql, values)

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Execute a statement for many values, inside a transaction."""
        if not self._depth:
            raise LtmError("a change outside a transaction")
        with self._guard():
            self._db.executemany(sql, values)

    def fact(self, key: str) -> Any:
        """A single value that the store keeps about itself; None where it has none."""
        found = self.rows("SELECT value FROM facts WHERE key = ?", (key,))
        return found[0][0] if found else None

    def set_fact(self, key: str, value: Any) -> None:
        """Keep a value, inside a transaction."""
        self.run("INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    def newest_generation(self) -> int:
        """Generation of the last change by any process."""
        if not self._depth:
            self.generation = int(self.fact("generation"))
        return self.generation

    # The file as a whole.

    def vacuum(self) -> None:
        """Rewrite the file without what was deleted.

        Raises:
            MemoryStoreError: another process is reading or writing, or there is no room for a second copy.
        """
        with self._guard():
            self._db.execute("PRAGMA temp_store = MEMORY")  # no copy of the words outside the folder
            self._db.execute("VACUUM")

    def checkpoint(self) -> None:
        """Move the log into the file and empty it.

        Raises:
            MemoryStoreError: another process is reading, so that the log can't be emptied.
        """
        with self._guard():
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise MemoryStoreError(
                f"{self.path}: another process is reading it, so that the log couldn't be emptied; "
                "run compact again when it is done"
            )

    def integrity(self, *, quick: bool = False) -> list[str]:
        """What is wrong in the file; nothing where all is well.

        Raises:
            MemoryStoreError: it is too damaged to be looked at.
        """
        found = self.rows(f"PRAGMA {'quick' if quick else 'integrity'}_check")
        problems = [" ".join(row[0].split()) for row in found if row[0] != "ok"]
        for table, _, parent, _ in self.rows("PRAGMA foreign_key_check")[:20]:
            problems.append(f"a row of {table} points to nothing in {parent}")
        if self.writable and not quick:
            with self._guard():  # spelled as a write, and changes nothing
                self._db.execute("BEGIN")
                try:
                    self._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
                finally:
                    self._db.execute("ROLLBACK")
        return problems

    def copy_to(self, path: Path) -> None:
        """Write a clean copy of the store to a new file, without a log beside it."""
        with self._guard():
            self._db.execute("VACUUM INTO ?", (os.fspath(path),))

    def close(self) -> None:
        """Close the file; the last process to do so empties the log."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _writable(path: Path) -> bool:
    target = path if path.exists() else path.parent
    effective = os.access in os.supports_effective_ids
    return os.access(path.parent, os.W_OK | os.X_OK, effective_ids=effective) and os.access(
        target, os.W_OK, effective_ids=effective
    )
