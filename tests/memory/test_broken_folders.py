"""Folders that somebody's hands or disk have been at: one line says what is the matter, and nothing else is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ltm_edge.errors import InputError, MemoryStoreError
from ltm_edge.memory.store import STORE_NAME
from ltm_edge.scene_memory import SceneMemory

from .conftest import scene
from .hashed import HashedEmbedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A memory of two scenes, closed."""
    with SceneMemory.open(tmp_path / "memory", HashedEmbedder()) as memory:
        memory.add(scene("The kiln cracked in the third firing.", "the kiln"), text="the kiln cracked")
        memory.add(scene("The boat leaks at the keel.", "the boat"), text="the boat leaks")
    return tmp_path / "memory"


@pytest.mark.parametrize("name", ["meta.json", "integration_log.json", "scene_embeddings.index"])
def test_a_circle_of_links_costs_only_that_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    with SceneMemory.open(folder, HashedEmbedder()) as memory:
        assert memory.recall("the kiln")[0].scene.text == "the kiln cracked"
        memory.add(scene("The oars are new.", "the oars"), text="new oars")
    with SceneMemory.open(folder, HashedEmbedder()) as memory:
        assert len(memory.scenes()) == 3


@pytest.mark.parametrize("gone", [True, False])
def test_scenes_that_are_gone_are_not_gone_silently(folder: Path, gone: bool) -> None:
    store = folder / STORE_NAME
    store.unlink()
    if not gone:
        store.touch()
    told: list[str] = []
    with SceneMemory.open(folder, HashedEmbedder(), notice=told.append) as memory:
        assert memory.scenes() == []
    what = "is gone" if gone else "is empty"
    assert told == [
        f"{store}: {what}, 2 scenes stood in it; an empty memory begins; put the file back, or import an export of it"
    ]
    with SceneMemory.open(folder, HashedEmbedder(), notice=told.append):
        pass
    assert len(told) == 1


def test_a_new_memory_says_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    with SceneMemory.open(tmp_path / "new", HashedEmbedder(), notice=told.append):
        pass
    assert told == []


def test_a_missing_table_is_damage(folder: Path) -> None:
    with sqlite3.connect(folder / STORE_NAME) as database:
        database.execute("DROP TABLE links")
    database.close()
    with (
        pytest.raises(MemoryStoreError, match=r"damaged or not a memory .no such table: links.; move it away"),
        SceneMemory.open(folder, HashedEmbedder()) as memory,
    ):
        memory.recall("the kiln")
        memory.links()


def test_what_sqlite_says_of_damage_is_one_line_each(folder: Path) -> None:
    with sqlite3.connect(folder / STORE_NAME) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'events'")
    database.close()
    try:
        with SceneMemory.open(folder, HashedEmbedder()) as memory:
            found = memory.verify()
    except MemoryStoreError as error:
        found = [str(error)]
    assert found and not any("\n" in line for line in found)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "has no meta.json, so it is no FAISS folder"),
        (lambda path: SceneMemory.open(path, HashedEmbedder()).close(), "is a memory itself; import what"),
    ],
)
def test_folders_that_hold_nothing_to_import(tmp_path: Path, folder: Path, make, words: str) -> None:
    make(tmp_path / "other")
    with SceneMemory.open(folder, HashedEmbedder()) as memory, pytest.raises(InputError, match=words):
        memory.import_path(tmp_path / "other")


def test_a_line_without_end_is_refused_at_its_limit(folder: Path) -> None:
    class Endless:
        def readline(self, most: int) -> bytes:
            assert most > 1 << 16, "the rest of an endless line is being read"
            return b"\0" * most

    with SceneMemory.open(folder, HashedEmbedder()) as memory, pytest.raises(InputError, match="not an export"):
        memory.import_(Endless())
