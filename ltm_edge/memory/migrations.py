"""Numbered migrations of the store of record. Applied numbers stand in the database; a step is never edited later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

__all__ = ["MIGRATIONS", "first_tables"]


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


MIGRATIONS: list[tuple[int, str, Callable[[sqlite3.Connection], None]]] = [
    (1, "first tables", first_tables),
]
