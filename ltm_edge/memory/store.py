"""The store of record: one SQLite file that holds every scene, link, vector and event of a memory.

Durability: write-ahead log with ``synchronous=FULL``. A write that has returned survives ``kill -9`` and a power cut
(with ``NORMAL`` a power cut could take back the last turns); it costs one fsync of the log per transaction.
``secure_delete`` overwrites what is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ltm_edge.errors import LtmError, MemoryStoreError
from ltm_edge.files import sync_folder
from ltm_edge.memory import migrations
from ltm_edge.memory.records import Link, StoredScene, microseconds, to_iso
from ltm_edge.memory.words import WORDS_VERSION, content_stems, index_text, stems
from ltm_edge.scene.record import Scene, split_names

__all__ = ["STORE_NAME", "SceneStore", "fingerprint", "new_uid"]

STORE_NAME = "scenes.sqlite"

APPLICATION_ID = 0x4C544D4D  # "LTMM"
PAGE_SIZE = 8192  # three float16 vectors of 384 take 2.3 kB: three rows to a page rather than one
_VARIABLES = 500  # values bound in one statement; old SQLite takes 999

_COLUMNS = (
    "id, uid, record, text, keys, level, session, template, phase, provenance, created, strength, strengthened, "
    "pinned, echo, superseded_by, superseded_at"
)


def new_uid() -> str:
    """A name for a new scene, unlike any other's."""
    return secrets.token_hex(16)


def fingerprint(text: str, response: str) -> bytes:
    """The same for scenes that say the same words: of what was said, or of the response where nothing was."""
    import hashlib

    words = " ".join(sorted(set(content_stems(text or response))))
    return hashlib.blake2b(words.encode("utf-8"), digest_size=8).digest()


class SceneStore:
    """The SQLite file and what may be done with it.

    One connection, used by one thread at a time (the facade sees to that). Other processes may use the same file: reads
    never wait, writes wait for each other up to ``timeout`` seconds.

    Attributes:
        path: the file.
        writable: False where the folder can't be written; then reading is all that works.
        generation: number of the last committed change that this object has seen.
    """

    def __init__(self, path: Path, *, timeout: float = 10.0, read_only: bool = False) -> None:
        """Open the store, making it if it isn't there.

        Raises:
            MemoryStoreError: no store, damaged, of another program or a newer version, or in use for too long.
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
                else:
                    self._check_version()
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
        if int(self.fact("words_version")) != WORDS_VERSION:
            self.rebuild_words()

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

    def _check_version(self) -> None:
        found, known = self._version(), len(migrations.MIGRATIONS)
        if found > known:
            raise MemoryStoreError(
                f"{self.path}: made by a newer version of ltm-edge (format {found}, this one reads up to {known}); "
                "update ltm-edge"
            )
        if found < known and not self.writable:
            raise MemoryStoreError(
                f"{self.path}: of an older format ({found}, now {known}) and can't be written; make it writable once"
            )

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
        if code in (11, 26) or (code is None and ("malformed" in text or "not a database" in text)):
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

    # Scenes.

    def insert(
        self,
        scene: Scene,
        *,
        text: str,
        session: str,
        template: str,
        phase: str | None,
        provenance: str,
        created: int,
        strength: float,
        uid: str = "",
        keys: Sequence[str] = (),
        level: int = 0,
        strengthened: int | None = None,
        pinned: bool = False,
        echo: bool = False,
    ) -> int:
        """Store a scene and its words; returns its id."""
        cursor = self.run(
            "INSERT INTO scenes (uid, record, text, keys, fingerprint, level, session, template, phase, provenance, "
            "created, strength, strengthened, pinned, echo) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                uid or new_uid(),
                json.dumps(scene.to_dict(), ensure_ascii=False, separators=(",", ":")),
                text,
                json.dumps(list(keys), ensure_ascii=False),
                fingerprint(text, scene.response),
                level,
                session,
                template,
                phase,
                provenance,
                created,
                strength,
                created if strengthened is None else strengthened,
                pinned,
                echo,
            ),
        )
        number = int(cursor.lastrowid or 0)
        self.run(
            "INSERT INTO words (rowid, said, response, keys, rest) VALUES (?, ?, ?, ?, ?)",
            (number, *_indexed(text, scene, keys, echo)),
        )
        return number

    def get(self, number: int) -> StoredScene | None:
        """A scene by its id, or None."""
        found = self.get_many([number])
        return found[0] if found else None

    def get_many(self, numbers: Iterable[int]) -> list[StoredScene]:
        """Scenes by their ids, in the order asked for; unknown ids are left out."""
        wanted = list(dict.fromkeys(int(number) for number in numbers))
        found: dict[int, StoredScene] = {}
        for i in range(0, len(wanted), _VARIABLES):
            part = wanted[i : i + _VARIABLES]
            marks = ",".join("?" * len(part))
            for row in self.rows(f"SELECT {_COLUMNS} FROM scenes WHERE id IN ({marks})", part):
                found[row[0]] = stored(row)
        return [found[number] for number in wanted if number in found]

    def by_uid(self, prefix: str, limit: int = 2) -> list[StoredScene]:
        """Scenes whose uid begins so."""
        if not prefix or any(char not in "0123456789abcdef" for char in prefix):
            return []
        rows = self.rows(
            f"SELECT {_COLUMNS} FROM scenes WHERE uid >= ? AND uid < ? LIMIT ?", (prefix, prefix + "g", limit)
        )
        return [stored(row) for row in rows]

    def select(
        self,
        where: str = "1",
        values: Sequence[Any] = (),
        *,
        order: str = "id",
        limit: int = -1,
    ) -> list[StoredScene]:
        """Scenes that a condition picks. ``where`` and ``order`` are this program's own text, never a user's."""
        rows = self.rows(f"SELECT {_COLUMNS} FROM scenes WHERE {where} ORDER BY {order} LIMIT ?", [*values, limit])
        return [stored(row) for row in rows]

    def alike(self, text: str, response: str, limit: int) -> list[StoredScene]:
        """Scenes of the same words, but for their order and common words."""
        return self.select("fingerprint = ? AND superseded_by IS NULL", (fingerprint(text, response),), limit=limit)

    def uids(self, numbers: Iterable[int]) -> dict[int, str]:
        """Uids by id."""
        wanted = list(dict.fromkeys(numbers))
        found: dict[int, str] = {}
        for i in range(0, len(wanted), _VARIABLES):
            part = wanted[i : i + _VARIABLES]
            marks = ",".join("?" * len(part))
            found.update(self.rows(f"SELECT id, uid FROM scenes WHERE id IN ({marks})", part))
        return found

    def unreadable(self) -> Iterator[tuple[int, str]]:
        """Scenes whose record is no scene, and why."""
        last = 0
        while rows := self.rows("SELECT id, record, keys FROM scenes WHERE id > ? ORDER BY id LIMIT 1000", (last,)):
            for number, record, keys in rows:
                try:
                    Scene.from_dict(json.loads(record), "record")
                    json.loads(keys)
                except (ValueError, RecursionError, LtmError) as error:
                    yield number, str(error)
            last = rows[-1][0]

    def delete(self, scene: StoredScene) -> None:
        """Remove a scene with its words, vectors and links; its number stays known as gone."""
        self.run(
            "INSERT INTO words (words, rowid, said, response, keys, rest) VALUES ('delete', ?, ?, ?, ?, ?)",
            (scene.id, *_indexed(scene.text, scene.scene, scene.keys, scene.echo)),
        )
        self.run("DELETE FROM scenes WHERE id = ?", (scene.id,))
        self.run("INSERT OR REPLACE INTO gone VALUES (?, ?)", (scene.id, self.generation))

    def supersede(self, old: int, new: int, at: int) -> None:
        """Let ``new`` take the place of ``old``, which stays as it is."""
        self.run("UPDATE scenes SET superseded_by = ?, superseded_at = ? WHERE id = ?", (new, at, old))
        self.link(Link(new, old, "supersedes"))

    # Links.

    def link(self, link: Link) -> bool:
        """Add a link; False where it would close a circle (or is one)."""
        if link.source == link.target or (
            link.kind != "recalled" and self.reaches(link.target, link.source, link.kind)
        ):
            return False
        self.run(
            "INSERT INTO links VALUES (?, ?, ?, ?) ON CONFLICT (source, kind, target) DO UPDATE SET weight = "
            "max(weight, excluded.weight)",
            (link.source, link.target, link.kind, link.weight),
        )
        return True

    def reaches(self, start: int, goal: int, kind: str) -> bool:
        """Whether links of a kind lead from one scene to another."""
        if not self.rows("SELECT 1 FROM links WHERE target = ? AND kind = ? LIMIT 1", (goal, kind)):
            return False  # nothing leads there; the usual case of a new scene
        found = self.rows(
            "WITH RECURSIVE way (id) AS (SELECT ? UNION SELECT target FROM links JOIN way ON source = way.id "
            "WHERE kind = ?) SELECT 1 FROM way WHERE id = ? LIMIT 1",
            (start, kind, goal),
        )
        return bool(found)

    def links(self, number: int | None = None) -> list[Link]:
        """Links from and to a scene, or all links."""
        if number is None:
            rows = self.rows("SELECT source, target, kind, weight FROM links ORDER BY source, kind, target")
        else:
            rows = self.rows(
                "SELECT source, target, kind, weight FROM links WHERE source = ?1 OR target = ?1 "
                "ORDER BY source, kind, target",
                (number,),
            )
        return [Link(*row) for row in rows]

    def links_by_uid(self) -> Iterator[list[tuple[str, str, str, float]]]:
        """All links in batches, as (source's uid, target's uid, kind, weight)."""
        last: tuple[Any, ...] = (0, "", 0)
        while rows := self.rows(
            "SELECT l.source, l.kind, l.target, l.weight, a.uid, b.uid FROM links l JOIN scenes a ON a.id = l.source "
            "JOIN scenes b ON b.id = l.target WHERE (l.source, l.kind, l.target) > (?, ?, ?) "
            "ORDER BY l.source, l.kind, l.target LIMIT 1000",
            last,
        ):
            last = tuple(rows[-1][:3])
            yield [(source, target, kind, weight) for _, kind, _, weight, source, target in rows]

    def targets(self, source: int, kind: str) -> list[int]:
        """Where links of a kind lead from a scene."""
        return [row[0] for row in self.rows("SELECT target FROM links WHERE source = ? AND kind = ?", (source, kind))]

    def sources(self, target: int, kind: str) -> list[int]:
        """Where links of a kind to a scene come from."""
        return [row[0] for row in self.rows("SELECT source FROM links WHERE target = ? AND kind = ?", (target, kind))]

    def last_of_session(self, session: str) -> int | None:
        """The latest scene of a session, or None."""
        found = self.rows(
            "SELECT id FROM scenes WHERE session = ? AND level = 0 ORDER BY created DESC, id DESC LIMIT 1", (session,)
        )
        return found[0][0] if found else None

    def event(self, kind: str, scene: int | None, at: int, **detail: Any) -> None:
        """Note what happened. Events hold numbers and names, never a scene's words."""
        text = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
        self.run("INSERT INTO events (at, kind, scene, detail) VALUES (?, ?, ?, ?)", (at, kind, scene, text))

    # Words.

    def match(self, query: str, limit: int, *, where: str = "", values: Sequence[Any] = ()) -> list[tuple[int, float]]:
        """Ids and BM25 scores (higher is better) of scenes with any of the query's words, best first.

        Args:
            query: as :func:`ltm_edge.memory.words.match_query` makes it.
            limit: rows, at most.
            where: further condition on ``scenes``, this program's own text.
            values: its values.
        """
        if not query:
            return []
        query = f"{{said response keys}} : ({query})"
        # What a person said weighs twice what was answered.
        if where:
            sql = (
                "SELECT words.rowid, -bm25(words, 2.0, 1.0, 2.0, 0.0) AS score FROM words JOIN scenes ON scenes.id = "
                f"words.rowid WHERE words MATCH ? AND {where} ORDER BY score DESC, words.rowid LIMIT ?"
            )
        else:
            sql = (
                "SELECT rowid, -bm25(words, 2.0, 1.0, 2.0, 0.0) AS score FROM words WHERE words MATCH ? "
                "ORDER BY score DESC, rowid LIMIT ?"
            )
        return [(int(row[0]), float(row[1])) for row in self.rows(sql, [query, *values, limit])]

    def with_words(self, text: str) -> list[int]:
        """Ids of all scenes in which all of the text's words stand, in whatever field."""
        words = list(dict.fromkeys(stems(text)))
        if not words:
            return []
        query = " AND ".join(f'"{word}"' for word in words)
        return [row[0] for row in self.rows("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid", (query,))]

    def rebuild_words(self, *, force: bool = False) -> None:
        """Index the words of all scenes again, if they were indexed by another version (or in any case)."""
        with self.transaction():
            if int(self.fact("words_version")) == WORDS_VERSION and not force:
                return  # another process was quicker
            self.run("INSERT INTO words (words) VALUES ('delete-all')")
            last = 0
            while rows := self.select("id > ?", (last,), limit=500):
                self.run_many(
                    "INSERT INTO words (rowid, said, response, keys, rest) VALUES (?, ?, ?, ?, ?)",
                    [(row.id, *_indexed(row.text, row.scene, row.keys, row.echo)) for row in rows],
                )
                last = rows[-1].id
            self.set_fact("words_version", WORDS_VERSION)

    # The file as a whole.

    def compact(self) -> None:
        """Rewrite the file without what was deleted, and empty the log.

        Raises:
            MemoryStoreError: another process is reading or writing, or there is no room for a second copy.
        """
        with self.transaction():
            self.run("INSERT INTO words (words) VALUES ('optimize')")
            self.run("DELETE FROM gone WHERE generation <= ?", (self.generation,))
            self.set_fact("gone_floor", self.generation)
        with self._guard():
            self._db.execute("PRAGMA temp_store = MEMORY")  # no copy of the words outside the folder
            self._db.execute("VACUUM")
        self.checkpoint()

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
        """What is wrong in the file; nothing where all is well."""
        try:
            found = [row[0] for row in self.rows(f"PRAGMA {'quick' if quick else 'integrity'}_check")]
            problems = [text for text in found if text != "ok"]
            for table, _, parent, _ in self.rows("PRAGMA foreign_key_check")[:20]:
                problems.append(f"a row of {table} points to nothing in {parent}")
            if self.writable and not quick:
                with self._guard():  # spelled as a write, and changes nothing
                    self._db.execute("BEGIN")
                    try:
                        self._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
                    finally:
                        self._db.execute("ROLLBACK")
            indexed = self.rows("SELECT count(*) FROM words_docsize")[0][0]
            scenes = self.rows("SELECT count(*) FROM scenes")[0][0]
            if indexed != scenes:
                problems.append(f"the full-text index has {indexed} scenes, the store {scenes}")
        except MemoryStoreError as error:
            problems = [str(error)]
        return problems

    def copy_to(self, path: Path) -> None:
        """Write a clean copy of the store to a new file, without a log beside it."""
        with self._guard():
            self._db.execute("VACUUM INTO ?", (os.fspath(path),))

    def close(self) -> None:
        """Close the file; the last process to do so empties the log."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _indexed(text: str, scene: Scene, keys: Sequence[str], echo: bool) -> tuple[str, str, str, str]:
    """Columns of the full-text index. The last one is for finding every scene that holds a word, not for ranking."""
    told = f"{scene.resonance_center} {scene.response}"
    rest = [part for actor in scene.actors for part in actor]
    rest += [scene.tension, *scene.archetype, scene.self_commentary or ""]
    if echo:  # what a response repeats from memory is found where it was told first
        rest.append(told)
    return index_text(text), "" if echo else index_text(told), index_text(" ".join(keys)), index_text(" ".join(rest))


def stored(row: Sequence[Any]) -> StoredScene:
    """A row of ``scenes`` as a record."""
    (number, uid, record, text, keys, level, session, template, phase, provenance, created, strength, strengthened,
     pinned, echo, superseded_by, superseded_at) = row  # fmt: skip
    return StoredScene(
        id=number,
        uid=uid,
        scene=_scene(number, record),
        text=text,
        keys=tuple(json.loads(keys)),
        level=level,
        session=session,
        template=template,
        phase=phase,
        provenance=provenance,
        created=created,
        strength=strength,
        strengthened=strengthened,
        pinned=bool(pinned),
        echo=bool(echo),
        superseded_by=superseded_by,
        superseded_at=superseded_at,
    )


def _scene(number: int, record: str) -> Scene:
    """A stored record as a scene. It was checked when it was stored; a recall reads hundreds and can't check again."""
    try:
        data = json.loads(record)
        return Scene(
            actors=tuple(pair for actor in data["actors"] for pair in actor.items()),
            tension=data["tension"],
            archetype=split_names(data["archetype"]),
            resonance_center=data["resonance_center"],
            response=data["response"],
            self_commentary=data.get("self_commentary"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MemoryStoreError(
            f"scene {number}: its record is damaged ({error}); forget it or import an export"
        ) from None


def _writable(path: Path) -> bool:
    target = path if path.exists() else path.parent
    effective = os.access in os.supports_effective_ids
    return os.access(path.parent, os.W_OK | os.X_OK, effective_ids=effective) and os.access(
        target, os.W_OK, effective_ids=effective
    )
