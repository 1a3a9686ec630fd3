"""Numbered migrations of the store of record. Applied numbers stand in the database; a step is never edited later."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

__all__ = ["MIGRATIONS", "accepted_turns", "first_tables"]


def first_tables(db: sqlite3.Connection) -> None:
    """Scenes, links, embedding spaces, events, full-text index."""
    for statement in (
        # value has no type: numbers stay numbers
        "CREATE TABLE facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        """CREATE TABLE scenes (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            uid TEXT NOT NULL UNIQUE,
            record TEXT NOT NULL,
            text TEXT NOT NULL,
            keys TEXT NOT NULL DEFAULT '[]',
            fingerprint BLOB NOT NULL,
            level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 2),
            session TEXT NOT NULL,
            template TEXT NOT NULL,
            phase TEXT,
            provenance TEXT NOT NULL,
            created INTEGER NOT NULL,
            strength REAL NOT NULL CHECK (strength BETWEEN 0 AND 1),
            strengthened INTEGER NOT NULL,
            pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
            echo INTEGER NOT NULL DEFAULT 0 CHECK (echo IN (0, 1)),
            superseded_by INTEGER REFERENCES scenes (id) ON DELETE SET NULL,
            superseded_at INTEGER
        )""",
        "CREATE INDEX scenes_session ON scenes (session, level, created, id)",
        "CREATE INDEX scenes_created ON scenes (created)",
        "CREATE INDEX scenes_fingerprint ON scenes (fingerprint)",
        "CREATE INDEX scenes_pinned ON scenes (id) WHERE pinned = 1",
        "CREATE INDEX scenes_superseded ON scenes (superseded_by) WHERE superseded_by IS NOT NULL",
        """CREATE TABLE links (
            source INTEGER NOT NULL REFERENCES scenes (id) ON DELETE CASCADE,
            target INTEGER NOT NULL REFERENCES scenes (id) ON DELETE CASCADE,
            kind TEXT NOT NULL CHECK (kind IN ('predecessor', 'recalled', 'part_of', 'supersedes')),
            weight REAL NOT NULL CHECK (weight BETWEEN 0 AND 1),
            PRIMARY KEY (source, kind, target),
            CHECK (source <> target)
        ) WITHOUT ROWID""",
        "CREATE INDEX links_target ON links (target, kind)",
        """CREATE TABLE spaces (
            id INTEGER PRIMARY KEY,
            embedder TEXT NOT NULL UNIQUE,
            dim INTEGER NOT NULL CHECK (dim > 0),
            index_generation INTEGER
        )""",
        # float16, little-endian, of length 1
        """CREATE TABLE embeddings (
            id INTEGER PRIMARY KEY,
            space INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
            scene INTEGER NOT NULL REFERENCES scenes (id) ON DELETE CASCADE,
            meaning BLOB NOT NULL,
            tension BLOB NOT NULL,
            centre BLOB NOT NULL,
            generation INTEGER NOT NULL,
            UNIQUE (scene, space)
        )""",
        "CREATE INDEX embeddings_generation ON embeddings (space, generation, scene)",
        # Numbers of scenes that are gone, so that index files and other processes can follow.
        "CREATE TABLE gone (scene INTEGER PRIMARY KEY, generation INTEGER NOT NULL)",
        "CREATE INDEX gone_generation ON gone (generation)",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            kind TEXT NOT NULL,
            scene INTEGER,
            detail TEXT NOT NULL DEFAULT '{}'
        )""",
        "CREATE INDEX events_scene ON events (scene)",
        # Contentless: the words stand in `scenes` once, and stems are what is indexed.
        "CREATE VIRTUAL TABLE words USING fts5 (said, response, keys, rest, content = '', tokenize = 'unicode61')",
        "INSERT INTO facts VALUES ('generation', 0), ('gone_floor', 0), ('words_version', 0)",
    ):
        db.execute(statement)


def accepted_turns(db: sqlite3.Connection) -> None:
    """Accepted turns by scene, and the chain of every scene; both are filled from what the store knows."""
    for statement in (
        """CREATE TABLE acceptances (
            id INTEGER PRIMARY KEY,
            scene INTEGER NOT NULL REFERENCES scenes (id) ON DELETE CASCADE,
            at INTEGER NOT NULL,
            score REAL CHECK (score BETWEEN 0 AND 1)
        )""",
        "CREATE INDEX acceptances_scene ON acceptances (scene)",
        # The archetypes of the scene that holds the turn, case folded: what counters are read from.
        """CREATE TABLE accepted_archetypes (
            archetype TEXT NOT NULL,
            acceptance INTEGER NOT NULL REFERENCES acceptances (id) ON DELETE CASCADE,
            PRIMARY KEY (archetype, acceptance)
        ) WITHOUT ROWID""",
        "CREATE INDEX accepted_archetypes_acceptance ON accepted_archetypes (acceptance)",
        # The number of the first scene of the chain; none for arcs and sagas.
        "ALTER TABLE scenes ADD COLUMN chain INTEGER",
        "CREATE INDEX scenes_chain ON scenes (chain) WHERE chain IS NOT NULL",
    ):
        db.execute(statement)
    _fill_chains(db)
    _fill_acceptances(db)


def _fill_chains(db: sqlite3.Connection) -> None:
    chain = {row[0]: row[0] for row in db.execute("SELECT id FROM scenes WHERE level = 0")}

    def first(number: int) -> int:
        while chain[number] != number:
            chain[number] = number = chain[chain[number]]
        return number

    for source, target in db.execute(
        "SELECT source, target FROM links JOIN scenes ON scenes.id = source "
        "WHERE kind = 'predecessor' OR (kind = 'supersedes' AND provenance = 'edited')"
    ):
        if source in chain and target in chain:
            low, high = sorted((first(source), first(target)))
            chain[high] = low
    db.executemany("UPDATE scenes SET chain = ? WHERE id = ?", [(first(number), number) for number in chain])


def _fill_acceptances(db: sqlite3.Connection) -> None:
    """One turn for every scene that was told, one more for every repetition; of edited scenes the newest has them."""
    newer = dict(
        db.execute(
            "SELECT old.id, new.id FROM scenes old JOIN scenes new ON new.id = old.superseded_by "
            "WHERE new.provenance = 'edited'"
        )
    )
    names = {}
    turns = []
    for number, record, provenance, created in db.execute(
        "SELECT id, record, provenance, created FROM scenes WHERE level = 0 ORDER BY id"
    ):
        try:
            archetype = json.loads(record)["archetype"].split(",")
        except (ValueError, KeyError, TypeError, AttributeError):
            archetype = []  # a damaged record, which `verify` names
        names[number] = dict.fromkeys(name.strip().casefold() for name in archetype if name.strip())
        if provenance not in ("card", "lorebook", "imported", "edited"):
            turns.append((number, created))
    for number, at, detail in db.execute("SELECT scene, at, detail FROM events WHERE kind = 'strengthened'"):
        if number in names and json.loads(detail).get("by") == "repetition":
            turns.append((number, at))
    for number, at in turns:
        seen = {number}
        while number in newer and newer[number] not in seen:
            number = newer[number]
            seen.add(number)
        key = db.execute("INSERT INTO acceptances (scene, at) VALUES (?, ?)", (number, at)).lastrowid
        db.executemany("INSERT INTO accepted_archetypes VALUES (?, ?)", [(name, key) for name in names[number]])


MIGRATIONS: list[tuple[int, str, Callable[[sqlite3.Connection], None]]] = [
    (1, "first tables", first_tables),
    (2, "accepted turns", accepted_turns),
]
