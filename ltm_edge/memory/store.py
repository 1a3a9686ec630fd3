"""The store of record: every scene of a memory with its words, links and events, in one SQLite file."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ltm_edge.errors import InputError, LtmError, MemoryStoreError
from ltm_edge.memory.database import Database
from ltm_edge.memory.records import SCENE, Link, StoredScene
from ltm_edge.memory.words import WORDS_VERSION, index_text
from ltm_edge.scene.record import Scene, split_names
from ltm_edge.scene.words import content_stems, stems

__all__ = ["STORE_NAME", "SceneStore", "fingerprint", "new_uid"]

STORE_NAME = "scenes.sqlite"

_VARIABLES = 500  # values bound in one statement; old SQLite takes 999

_COLUMNS = (
    "id, uid, record, text, keys, level, session, template, phase, provenance, created, strength, strengthened, "
    "pinned, echo, superseded_by, superseded_at"
)


def new_uid() -> str:
    """A name for a new scene, unlike any other's."""
    return secrets.token_hex(16)


@functools.lru_cache(maxsize=4)  # looked for first and stored then
def fingerprint(text: str, response: str) -> bytes:
    """The same for scenes that say the same words: of what was said, or of the response where nothing was."""
    words = " ".join(sorted(set(content_stems(text or response))))
    return hashlib.blake2b(words.encode("utf-8"), digest_size=8).digest()


class SceneStore:
    """What a memory holds, in rows.

    Belongs to one thread at a time (the facade sees to that); other processes may use the same file, see
    :class:`~ltm_edge.memory.database.Database`, whose transactions and statements this passes on.
    """

    def __init__(self, path: Path, *, timeout: float = 10.0, read_only: bool = False) -> None:
        """Open the store, making it if it isn't there.

        Raises:
            MemoryStoreError: no store, damaged, of another program or a newer version, or in use for too long.
        """
        db = self._db = Database(path, timeout=timeout, read_only=read_only)
        self.transaction, self.rows, self.run, self.run_many = db.transaction, db.rows, db.run, db.run_many
        self.fact, self.set_fact, self.newest_generation = db.fact, db.set_fact, db.newest_generation
        self.checkpoint, self.copy_to, self.close = db.checkpoint, db.copy_to, db.close
        try:
            if self.writable and int(self.fact("words_version")) != WORDS_VERSION:
                self.rebuild_words()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._db.path

    @property
    def writable(self) -> bool:
        """False where the folder can't be written; then reading is all that works."""
        return self._db.writable

    @property
    def generation(self) -> int:
        """Number of the last committed change that this object has seen."""
        return self._db.generation

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
        """Store a scene and its words; returns its id. It begins a chain until a link joins it to another."""
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
        if level == SCENE:
            self.run("UPDATE scenes SET chain = id WHERE id = ?", (number,))
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
        wanted = list(dict.fromkeys(_id(number) for number in numbers))
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
        if link.kind in ("predecessor", "supersedes"):
            self._join_chains(link)
        return True

    def _join_chains(self, link: Link) -> None:
        """Let both ends of a link be of one chain, if it is of those that make chains (``memory/counting.py``)."""
        (first, second, provenance), *_ = self.rows(
            "SELECT a.chain, b.chain, a.provenance FROM scenes a, scenes b WHERE a.id = ? AND b.id = ?",
            (link.source, link.target),
        )
        if None in (first, second) or first == second or (link.kind == "supersedes" and provenance != "edited"):
            return
        self.run("UPDATE scenes SET chain = ? WHERE chain = ?", (min(first, second), max(first, second)))

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

    # The store as a whole.

    def compact(self) -> None:
        """Rewrite the file without what was deleted, and empty the log.

        Raises:
            MemoryStoreError: another process is reading or writing, or there is no room for a second copy.
        """
        with self.transaction():
            self.run("INSERT INTO words (words) VALUES ('optimize')")
            self.run("DELETE FROM gone WHERE generation <= ?", (self.generation,))
            self.set_fact("gone_floor", self.generation)
        self._db.vacuum()
        self.checkpoint()

    def integrity(self, *, quick: bool = False) -> list[str]:
        """What is wrong in the store; nothing where all is well."""
        try:
            problems = self._db.integrity(quick=quick)
            indexed = self.rows("SELECT count(*) FROM words_docsize")[0][0]
            scenes = self.rows("SELECT count(*) FROM scenes")[0][0]
        except MemoryStoreError as error:
            return [str(error)]
        if indexed != scenes:
            problems.append(f"the full-text index has {indexed} scenes, the store {scenes}")
        return problems


def _id(number: object) -> int:
    try:
        whole = operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"a scene's id is a whole number, found {number!r}") from None
    if not -(1 << 63) <= whole < 1 << 63:
        raise InputError(f"no scene has an id of {whole.bit_length()} bits")
    return whole


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
        keys=tuple(json.loads(keys)) if keys != _NO_KEYS else (),
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


_NO_KEYS = "[]"
_read_json = json.JSONDecoder().raw_decode  # json.loads looks for blanks around it besides, which takes as long


def _scene(number: int, record: str) -> Scene:
    """A stored record as a scene. It was checked when it was stored; a recall reads hundreds and can't check again."""
    try:
        data, end = _read_json(record)
        if end != len(record):
            raise ValueError(f"something stands behind it at character {end}")
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
