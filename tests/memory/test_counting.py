"""Counters of accepted turns: right after whatever happens to scenes, and gone with those that are forgotten."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from pathlib import Path

import pytest

from ltm_edge.errors import InputError
from ltm_edge.memory.database import APPLICATION_ID
from ltm_edge.memory.integration_log import LOG_NAME
from ltm_edge.memory.migrations import first_tables
from ltm_edge.memory.store import STORE_NAME
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory

from .conftest import Opener, scene
from .counts_oracle import quick_counts, slow_counts

AT = 1_767_261_600.0
SECOND = 1_000_000


def told(response: str, *archetypes: str) -> Scene:
    return Scene((("you", "guest"),), "work vs rest", archetypes, "an ordinary day", response)


def test_what_is_accepted_counts_for_its_archetypes_and_its_chain(memory: SceneMemory):
    one = memory.add(told("A.", "Pilgrim", "host"), text="the red kite", session="a", at=AT, score=0.5)
    memory.add(told("B.", "pilgrim"), text="an old bicycle", session="a", at=AT + 1, score=1.0)
    three = memory.add(told("C.", "guardian"), text="rain at noon", session="b", at=AT + 2)
    counted = {a.archetype: (a.accepted, a.last, a.score) for a in memory.archetypes()}
    start = int(AT) * SECOND
    assert counted == {
        "pilgrim": (2, start + SECOND, 0.75),
        "host": (1, start, 0.5),
        "guardian": (1, start + 2 * SECOND, None),
    }
    assert [(c.chain, c.scenes, c.accepted, c.score) for c in memory.chains()] == [
        (three.id, 1, 1, None), (one.id, 2, 2, 0.75),
    ]  # fmt: skip
    memory.close()
    entries = json.loads((memory.folder / LOG_NAME).read_text(encoding="utf-8"))["entries"]
    assert [(e["scene"], e.get("archetype", e.get("chain")), e["from"], e["to"], e.get("score")) for e in entries] == [
        (1, "pilgrim", 0, 1, 0.5), (1, "host", 0, 1, 0.5), (1, 1, 0, 1, 0.5),
        (2, "pilgrim", 1, 2, 1.0), (2, 1, 1, 2, 1.0),
        (3, "guardian", 0, 1, None), (3, 3, 0, 1, None),
    ]  # fmt: skip
    assert {(e["what"], e["by"]) for e in entries} == {("accepted", "use")}


def test_a_repetition_counts_for_the_scene_that_holds_it(memory: SceneMemory):
    one = memory.add(told("Noted.", "host"), text="My dog is called Rex.", session="a", at=AT)
    again = memory.add(told("Noted.", "poet"), text="My dog is called Rex.", session="b", at=AT + 1, score=0.4)
    assert (again.id, again.status) == (one.id, "strengthened")
    echo = memory.add(told("My dog is called Rex.", "poet"), text="", session="b", recalled=[one.id], at=AT + 2)
    assert (echo.id, echo.status) == (one.id, "echo")
    assert [(a.archetype, a.accepted, a.score) for a in memory.archetypes()] == [("host", 3, 0.4)]
    assert quick_counts(memory) == slow_counts(memory)


def test_lore_and_imports_are_no_turns(memory: SceneMemory):
    for provenance in ("card", "lorebook", "imported"):
        memory.add(scene(f"From {provenance}."), provenance=provenance)
    assert memory.archetypes() == [] and memory.chains() == [] and memory.log() == []


def test_names_of_one_archetype_count_as_one(opener: Opener):
    memory = opener(archetype_ids={"Initiator": "initiator", "Инициатор": "initiator"})
    memory.add(told("A.", "initiator", "Инициатор"), text="the red kite", at=AT)
    memory.add(told("Б.", "инициатор"), text="старый велосипед", at=AT)
    assert [(a.archetype, a.accepted) for a in memory.archetypes()] == [("initiator", 2)]
    assert [(e.before, e.after) for e in memory.log() if e.archetypes == ("initiator",)] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_that_is_none_is_refused_and_nothing_is_stored(memory: SceneMemory, score: float):
    with pytest.raises(InputError, match="score"):
        memory.add(scene("A."), text="one", score=score)
    assert memory.stats().scenes == 0 and memory.archetypes() == []


def test_forgetting_undoes_what_was_counted(memory: SceneMemory):
    for i in range(3):
        memory.add(told(f"Reply {i}.", "host", "poet"), text=f"topic number {i}", session="s", at=AT + i, score=0.2 * i)
    before = quick_counts(memory)
    extra = memory.add(told("More.", "poet", "guardian"), text="a storm is near", session="s", at=AT + 9, score=0.9)
    assert quick_counts(memory) != before
    memory.forget(extra.id)
    assert quick_counts(memory) == before == slow_counts(memory)
    assert [e.what for e in memory.log() if e.scene == extra.id] == ["forgotten"]


def test_an_answer_in_the_place_of_another_counts_once(memory: SceneMemory):
    first = memory.add(told("One way.", "host"), text="how do I begin?", session="s", at=AT)
    memory.add(told("The other.", "poet"), text="how do I begin?", session="s", at=AT, replaces=first.id)
    assert [(a.archetype, a.accepted) for a in memory.archetypes()] == [("poet", 1)]
    assert [c.accepted for c in memory.chains()] == [1]


def test_what_goes_with_a_replaced_answer_may_have_been_recalled(memory: SceneMemory):
    numbers = [memory.add(scene(f"Roses {i}."), text=f"garden roses bloom {i}", session="s").id for i in range(3)]
    (arc,) = memory.consolidate()
    last = memory.add(
        scene("Tulips."), text="garden tulips", session="s", recalled=[arc.id, *numbers], replaces=numbers[-1]
    )
    assert last.status == "added" and memory.get(arc.id) is None
    assert {link.target for link in memory.links(last.id) if link.kind == "recalled"} == set(numbers[:-1])


def test_an_edited_scene_keeps_its_turns_and_chain(memory: SceneMemory):
    numbers = [
        memory.add(told(f"Reply {i}.", "host"), text=f"topic number {i}", session="s", at=AT + i).id for i in range(3)
    ]
    new = memory.edit(numbers[0], told("Reply 0.", "poet")).id
    assert [(a.archetype, a.accepted) for a in memory.archetypes()] == [("host", 2), ("poet", 1)]
    assert [(c.chain, c.scenes, c.accepted) for c in memory.chains()] == [(numbers[0], 4, 3)]
    memory.forget(numbers[0])  # only the old version: what followed it hangs on nothing now
    assert {(c.chain, c.accepted) for c in memory.chains()} == {(numbers[1], 2), (new, 1)}
    assert quick_counts(memory) == slow_counts(memory) and memory.verify() == []


def test_a_chain_that_falls_apart_is_several(memory: SceneMemory):
    root = memory.add(scene("Root."), text="where it begins", at=AT).id
    branches = [
        memory.add(scene(f"Branch {i}."), text=f"branch number {i}", predecessor=root, at=AT).id for i in range(2)
    ]
    assert [(c.chain, c.scenes) for c in memory.chains()] == [(root, 3)]
    memory.forget(root)
    assert sorted((c.chain, c.scenes) for c in memory.chains()) == [(branches[0], 1), (branches[1], 1)]


@pytest.mark.parametrize("seed", range(12))
def test_counters_are_those_of_the_slow_count_whatever_happens(opener: Opener, tmp_path: Path, seed: int):
    rng = random.Random(seed)
    memory = opener()
    names = ["host", "Poet", "ГОСТЬ", "guardian"]
    for step in range(60):
        numbers = [one.id for one in memory.scenes(level=0)]
        current = [one.id for one in memory.scenes(level=0) if one.superseded_by is None]
        deed = rng.random()
        if deed < 0.6 or not current:
            text = rng.choice([f"word{step} seed{seed}", "word1 again", ""])
            memory.add(
                told(rng.choice([f"Reply {step}.", "Noted."]), *rng.sample(names, rng.randint(1, 3))),
                text=text,
                session=rng.choice(["a", "b", ""]),
                predecessor=rng.choice([None, *numbers[:5]]),
                recalled=rng.sample(numbers, min(len(numbers), rng.randint(0, 2))),
                replaces=rng.choice(numbers) if numbers and rng.random() < 0.15 else None,
                provenance=rng.choice(["said", "said", "given", "lorebook"]),
                at=AT + rng.randint(0, 1000),
                score=rng.choice([None, rng.random()]),
            )
        elif deed < 0.75:
            memory.edit(rng.choice(current), told(f"Edited {step}.", rng.choice(names)), at=AT + step)
        elif deed < 0.9:
            memory.forget(*rng.sample(numbers, min(len(numbers), rng.randint(1, 3))))
        elif deed < 0.95:
            memory.consolidate()
        else:
            memory.compact()
        if step % 10 == 9:
            assert quick_counts(memory) == slow_counts(memory)
            assert memory.verify() == []
    other = opener(tmp_path / "other")
    out = io.StringIO()
    memory.export(out)
    other.import_(io.BytesIO(out.getvalue().encode()))
    assert quick_counts(other)[0] == quick_counts(memory)[0]
    assert sorted(quick_counts(other)[1].values(), key=str) == sorted(quick_counts(memory)[1].values(), key=str)
    assert quick_counts(other) == slow_counts(other) and other.verify() == []


def test_a_packed_memory_takes_its_counters_along(memory: SceneMemory, opener: Opener, tmp_path: Path):
    memory.add(told("A.", "host"), text="the red kite", session="s", at=AT, score=0.5)
    memory.add(told("B.", "host"), text="an old bicycle", session="s", at=AT + 1)
    memory.pack(tmp_path / "bundle" / "memory")
    fresh = opener(tmp_path / "fresh")
    fresh.seed(tmp_path / "bundle" / "memory")
    assert quick_counts(fresh) == quick_counts(memory)


def test_verify_names_what_is_counted_wrong(memory: SceneMemory):
    for i in range(2):
        memory.add(told(f"Reply {i}.", "host"), text=f"topic number {i}", session="s")
    db = sqlite3.connect(memory.folder / STORE_NAME)
    db.execute("UPDATE scenes SET chain = 2 WHERE id = 2")
    db.execute("UPDATE accepted_archetypes SET archetype = 'poet' WHERE acceptance = 1")
    db.commit()
    db.close()
    assert memory.verify() == [
        "scene 2: is counted in chain 2, and belongs to chain 1",
        "scene 1: is counted for other archetypes than it has",
    ]


@pytest.mark.parametrize("word", ["zanzibarquux", "секретнослово"])
def test_a_forgotten_archetype_is_in_no_file_after_compact(opener: Opener, word: str):
    memory = opener()
    kept = memory.add(told("Kept.", "host"), text="the red kite", session="s", at=AT).id
    gone = memory.add(told("Gone.", word.title()), text="an old bicycle", session="s", at=AT).id
    memory.edit(gone, told("Gone too.", "host"))
    memory.close()
    assert word.encode() in (memory.folder / LOG_NAME).read_bytes()
    memory = opener()
    memory.forget(gone)
    memory.compact()
    memory.close()
    for path in memory.folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for spelling in (word.encode(), word.title().encode()):
            assert spelling not in data, path.name
    entries = json.loads((memory.folder / LOG_NAME).read_bytes())["entries"]
    assert [e["scene"] for e in entries if e["what"] == "accepted" and "archetype" in e] == [kept]


# A store of the first format -----------------------------------------------------------------------------------------


def as_first_format(source: Path, target: Path) -> None:
    """Write the rows of a store into one of the first format."""
    new = sqlite3.connect(target)
    first_tables(new)
    new.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    new.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied TEXT NOT NULL)")
    new.execute("INSERT INTO migrations VALUES (1, 'first tables', '2026-01-01T00:00:00+00:00')")
    new.execute("DELETE FROM facts")
    new.commit()
    new.execute("ATTACH ? AS old", (str(source),))
    for table in ("scenes", "links", "spaces", "embeddings", "gone", "events", "facts"):
        columns = ", ".join(row[1] for row in new.execute(f"PRAGMA main.table_info({table})"))
        new.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM old.{table}")
    new.execute("DELETE FROM events WHERE kind = 'accepted'")
    new.execute("UPDATE facts SET value = 0 WHERE key = 'words_version'")
    new.commit()
    new.close()


@pytest.fixture
def first_format(opener: Opener, tmp_path: Path) -> tuple[SceneMemory, Path]:
    """A memory with turns that bear no score, and a folder that holds it in the first format."""
    memory = opener(tmp_path / "now")
    numbers = [
        memory.add(told(f"Reply {i}.", "host", "Poet"), text=f"topic number {i}", session="s", at=AT + i).id
        for i in range(3)
    ]
    memory.add(told("Reply 0.", "host"), text="topic number 0", at=AT + 7)
    memory.edit(memory.edit(numbers[0], told("Edited.", "guardian"), at=AT + 8).id, text="edited twice", at=AT + 9)
    memory.add(scene("Lore."), provenance="lorebook", at=AT)
    memory.consolidate()
    folder = tmp_path / "then"
    folder.mkdir()
    as_first_format(memory.folder / STORE_NAME, folder / STORE_NAME)
    return memory, folder


def test_a_store_of_the_first_format_is_counted_when_it_is_opened(
    opener: Opener, first_format: tuple[SceneMemory, Path]
):
    memory, folder = first_format
    old = opener(folder)
    assert quick_counts(old) == quick_counts(memory) == slow_counts(old)
    assert old.verify() == []


def test_a_bundle_s_store_of_the_first_format_is_read_and_left_as_it_is(
    opener: Opener, first_format: tuple[SceneMemory, Path], tmp_path: Path
):
    memory, folder = first_format
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    fresh = opener(tmp_path / "fresh")
    assert fresh.seed(folder) == memory.stats().scenes + memory.stats().arcs
    assert quick_counts(fresh)[0] == quick_counts(memory)[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_export_of_the_first_version_is_counted(
    opener: Opener, first_format: tuple[SceneMemory, Path], tmp_path: Path
):
    memory, _ = first_format
    out = io.StringIO()
    memory.export(out)
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    records[0]["version"] = 1
    for one in records[1:]:
        one.pop("accepted", None)
    fresh = opener(tmp_path / "fresh")
    fresh.import_(io.BytesIO("\n".join(map(json.dumps, records)).encode()))
    counted = {a.archetype: a.accepted for a in fresh.archetypes()}
    assert counted == {"guardian": 1, "host": 2, "poet": 2}  # the repetition isn't in such an export
    assert fresh.verify() == []
