"""What a person would miss: scenes come back, whole, newest first, in their chains, and go when they are to go."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ltm_edge.errors import InputError, MemoryStoreError, SchemaError
from ltm_edge.memory.integration_log import LOG_NAME
from ltm_edge.memory.records import Policy
from ltm_edge.memory.store import STORE_NAME
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory, memory_folder

from .conftest import Opener, scene
from .hashed import HashedEmbedder

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def texts(memory: SceneMemory, query: str, **options: object) -> list[str]:
    return [hit.scene.text for hit in memory.recall(query, **options)]


def test_a_scene_comes_back_days_later_with_its_score_explained(opener: Opener):
    with opener() as memory:
        memory.add(scene("What a lovely name."), text="My dog is called Rex.", session="a", at=START)
        memory.add(scene("Soup then."), text="I cooked lentil soup.", session="a", at=START)
    with opener() as memory:
        hits = memory.recall("how is my puppy doing", 1, at=START + 9 * DAY, chain_depth=0)
        assert [hit.scene.text for hit in hits] == ["My dog is called Rex."]
        parts = hits[0].parts
        assert set(parts) >= {"meaning", "recency", "strength"}
        assert parts["meaning"] > 0.3
        assert parts["recency"] == pytest.approx(0.5 ** (9 / 30), abs=1e-3)
        policy, weights = memory.policy, memory.policy.weights
        own = sum(weights[name] * parts[name] for name in weights if name in parts)
        own /= sum(weights[name] for name in weights if name in parts)
        assert set(parts) - set(weights) <= {"context", "asked"}
        total = own + policy.context * parts["context"] + parts.get("asked", 0.0)
        assert hits[0].score == pytest.approx(total / (1 + policy.context + policy.later + policy.now), abs=1e-4)


def test_names_that_vectors_miss_are_found_by_words(memory: SceneMemory):
    for i in range(30):
        memory.add(scene(f"Answer {i}."), text=f"thing number {i} happened")
    memory.add(scene("Noted."), text="the ticket is QX-7741")
    assert texts(memory, "QX-7741", k=1, chain_depth=0) == ["the ticket is QX-7741"]


def test_russian_words_are_found_in_other_forms(memory: SceneMemory):
    memory.add(scene("Хорошо."), text="У моей собаки сегодня день рождения")
    memory.add(scene("Ладно."), text="Купил новый велосипед")
    assert texts(memory, "расскажи про собаку", k=1, chain_depth=0) == ["У моей собаки сегодня день рождения"]


def test_chains_come_along_and_the_budget_holds(memory: SceneMemory):
    first = memory.add(scene("One."), text="we planned the garden", session="s").id
    second = memory.add(scene("Two."), text="zucchini seeds were bought", session="s").id
    third = memory.add(scene("Three."), text="they sprouted quickly", session="s").id
    hits = memory.recall("zucchini", 1, chain_depth=1)
    assert [(hit.scene.id, hit.via, hit.of) for hit in hits] == [
        (second, "found", second), (first, "predecessor", second), (third, "successor", second),
    ]  # fmt: skip
    assert [one.id for one in memory.chain(second).scenes] == [first, second, third]
    tight = memory.recall("zucchini", 1, chain_depth=1, budget_tokens=hits[0].tokens)
    assert [hit.scene.id for hit in tight] == [second]
    assert memory.recall("zucchini", 3, count_tokens=lambda text: 1000) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("I live in London.", "I moved to Paris."),
        ("My dog is called Rex.", "My dog is called Bruno."),
        ("The meeting is at 5.", "The meeting was moved to 6 pm."),
        ("I work at Acme.", "I don't work at Acme anymore."),
        ("My phone number is 555 1234.", "My phone number is 555 9999."),
        ("Я живу в Москве.", "Я переехал в Казань."),
        ("Мою собаку зовут Рекс.", "Мою собаку зовут Бим."),
        ("Мой любимый цвет — синий.", "Мой любимый цвет теперь зелёный."),
    ],
)
def test_a_contradiction_supersedes(memory: SceneMemory, old: str, new: str):
    before = memory.add(scene("I see."), text=old, session="a", at=START)
    after = memory.add(scene("Oh."), text=new, session="b", at=START + DAY)
    assert after.superseded == (before.id,)
    kept = memory.get(before.id)
    assert kept is not None and kept.text == old and kept.superseded_by == after.id
    assert kept.superseded_at is not None
    assert old not in texts(memory, old, k=5)
    assert old in texts(memory, old, k=5, history=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("My sister lives in Oslo.", "I live in Rome."),
        ("I bought apples.", "I bought pears."),
        ("My cat is called Tom.", "My dog is called Rex."),
        ("The train leaves at 9.", "The train leaves on Monday at 9."),
        ("I live in London.", "Do you think I should move to Paris?"),
        ("Anna lives in Berlin.", "Boris lives in Bonn."),
        ("My favourite colour is blue.", "My favourite film is Alien."),
    ],
)
def test_what_is_no_contradiction_supersedes_nothing(memory: SceneMemory, old: str, new: str):
    memory.add(scene("I see."), text=old)
    assert memory.add(scene("Well then."), text=new).superseded == ()
    assert memory.stats().superseded == 0


def test_the_same_again_strengthens_instead_of_adding(memory: SceneMemory):
    first = memory.add(scene("Nice."), text="My bike is green and has a bell.", at=START)
    again = memory.add(scene("You said so."), text="my bike is green, and has a bell!", at=START)
    assert (again.id, again.status) == (first.id, "strengthened")
    assert memory.stats().scenes == 1
    stronger = memory.get(first.id)
    assert stronger is not None and stronger.strength == pytest.approx(0.5 + 0.5 * memory.policy.growth)


def test_a_question_asked_again_is_a_new_turn_if_the_answer_is_new(memory: SceneMemory):
    memory.add(scene("Take the bus number nine."), text="How do I get to the harbour?")
    assert memory.add(scene("The ferry goes hourly."), text="How do I get to the harbour?").status == "added"


def test_recalled_text_is_never_stored_as_new(memory: SceneMemory):
    fact = memory.add(scene("The spare key hangs behind the blue door."), text="Where did we put the spare key?")
    turn = memory.add(
        scene("The spare key hangs behind the blue door."), text="Any idea about that lost thing?", recalled=[fact.id]
    )
    repeated = memory.get(turn.id)
    assert repeated is not None and repeated.echo  # the turn is kept, its repetition isn't a memory
    for query in ("spare key blue door", "any idea about that lost thing"):
        hits = memory.recall(query, 5, chain_depth=0)
        assert [hit.scene.id for hit in hits if "blue door" in hit.scene.scene.response] == [fact.id]
    again = memory.add(
        scene("The spare key hangs behind the blue door."), text="where did we put the spare key", recalled=[fact.id]
    )
    assert (again.id, again.status) == (fact.id, "echo")
    assert memory.stats().scenes == 2


def test_a_hundred_turns_about_one_fact_leave_no_junk(memory: SceneMemory):
    fact = memory.add(scene("Noted, peanuts are out."), text="I am allergic to peanuts.")
    for i in range(100):
        hits = memory.recall(f"What can I eat, take {i}?", 3)
        memory.add(scene("I am allergic to peanuts."), text="What can I eat?", recalled=[hit.scene.id for hit in hits])
    assert memory.stats().scenes <= 2
    assert memory.recall("peanuts", 1)[0].scene.id == fact.id


def test_strength_decays_and_grows_with_use_and_the_log_is_json(memory: SceneMemory):
    used = memory.add(scene("Green tea it is."), text="I like tea best", at=START)
    other = memory.add(scene("Fine."), text="unrelated remark", at=START)
    memory.add(
        scene("Some green tea, as you like."), text="what shall I drink", recalled=[used.id, other.id], at=START + DAY
    )
    one, two = memory.get(used.id), memory.get(other.id)
    assert one is not None and two is not None
    assert one.strength > 0.5 and two.strength == 0.5
    memory.weaken([used.id], by="test", at=START + 31 * DAY)
    weak = memory.get(used.id)
    assert weak is not None and weak.strength == pytest.approx(one.strength / 4, rel=1e-6)
    memory.close()
    log = json.loads((memory.folder / LOG_NAME).read_text(encoding="utf-8"))
    assert (log["format"], log["version"]) == ("ltm-integration-log", 1)
    assert [(e["what"], e["by"], e["scene"]) for e in log["entries"] if e["what"] != "accepted"] == [
        ("strengthened", "use", used.id), ("weakened", "test", used.id),
    ]  # fmt: skip


def test_the_log_grows_by_appending_and_a_cut_one_is_repaired(opener: Opener):
    with opener() as memory:
        one = memory.add(scene("A."), text="first thing").id
        memory.strengthen([one])
    path = memory.folder / LOG_NAME
    before = path.read_bytes()
    with opener() as memory:
        memory.strengthen([one])
    after = path.read_bytes()
    kinds = [entry["what"] for entry in json.loads(after)["entries"]]
    assert after.startswith(before[:-3]) and kinds == ["accepted", "accepted", "strengthened", "strengthened"]
    path.write_bytes(after[:-20])
    with opener() as memory:
        memory.strengthen([one])
    kinds = [entry["what"] for entry in json.loads(path.read_bytes())["entries"]]
    assert kinds == ["accepted", "accepted", "strengthened", "strengthened", "strengthened"]


def test_pinned_scenes_keep_their_strength_and_are_always_candidates(memory: SceneMemory):
    number = memory.add(scene("Call the doctor at once."), text="fever rule", at=START - 3000 * DAY).id
    memory.pin(number)
    for i in range(400):
        memory.add(scene(f"Reply {i}"), text=f"weather talk {i}", at=START)
    hits = memory.recall("weather", 400, at=START, budget_tokens=0, chain_depth=0)
    assert number in [hit.scene.id for hit in hits]
    memory.pin(number, False)
    found = memory.get(number)
    assert found is not None and not found.pinned


def test_an_edit_is_a_new_version_in_the_old_place(memory: SceneMemory):
    first = memory.add(scene("One."), text="start of it", session="s", at=START).id
    second = memory.add(scene("Two."), text="the middle part", session="s", at=START + DAY).id
    third = memory.add(scene("Three."), text="and its end", session="s", at=START + 2 * DAY).id
    new = memory.edit(second, text="the corrected middle").id
    assert [one.id for one in memory.chain(third).scenes] == [first, new, third]
    assert [one.text for one in memory.chain(new).scenes][:2] == ["start of it", "the corrected middle"]
    with pytest.raises(InputError, match=f"superseded by scene {new}"):
        memory.edit(second, text="again")
    with pytest.raises(InputError, match="nothing was changed"):
        memory.edit(new, text="the corrected middle")
    gone = memory.forget(new)
    assert {one.id for one in gone.all} == {new, second}  # an edit's older words go with it


def test_forgetting_closes_the_chain_and_takes_the_summaries(memory: SceneMemory):
    numbers = [memory.add(scene(f"Part {i}."), text=f"garden story part {i}", session="s").id for i in range(4)]
    (arc,) = memory.consolidate()
    going = memory.forget(numbers[1], dry_run=True)
    assert [one.id for one in going.summaries] == [arc.id] and memory.get(numbers[1]) is not None
    memory.forget(numbers[1])
    assert memory.get(arc.id) is None and memory.get(numbers[1]) is None
    assert [one.id for one in memory.chain(numbers[0]).scenes] == [numbers[0], *numbers[2:]]
    assert memory.verify() == []


def test_forget_by_query_date_and_session(memory: SceneMemory):
    memory.add(scene("A."), text="the secret garden", session="x", at=START)
    memory.add(scene("B."), text="the garden fence", session="y", at=START + DAY)
    memory.add(scene("C."), text="an old secret", session="y", at=START + 2 * DAY)
    with pytest.raises(InputError, match="say what"):
        memory.forget()
    with pytest.raises(InputError, match="empty"):
        memory.forget(query=" ")
    assert len(memory.forget(query="secret garden", dry_run=True).scenes) == 1
    assert len(memory.forget(query="secret", before=START + DAY, dry_run=True).scenes) == 1
    assert len(memory.forget(session="y", before=START + 2 * DAY, dry_run=True).scenes) == 1
    memory.forget(session="y")
    assert memory.stats().scenes == 1


@pytest.mark.parametrize("word", ["zanzibarquux", "секретнослово"])
def test_after_compact_no_file_holds_a_forgotten_word(opener: Opener, word: str):
    memory = opener()
    for i in range(50):
        memory.add(scene(f"Filler {i} about tea."), text=f"talk about tea number {i}", session="s")
    kept = memory.add(scene(f"Yes, {word} indeed."), text=f"I love {word}", session="s", keys=[word])
    memory.add(scene(f"Yes, {word} indeed."), text="what do I love most?", session="s", recalled=[kept.id])
    memory.edit(kept.id, text=f"I truly love {word}")
    memory.consolidate()
    memory.recall(word)
    assert len(memory.forget(query=word).all) >= 3
    memory.compact()
    for moment in ("open", "closed"):
        for path in memory.folder.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            for spelling in (word.encode(), word[:-1].encode(), word[:8].encode(), word.encode("utf-16-le")):
                assert spelling not in data, (moment, path.name)
        memory.close()
    db = sqlite3.connect(memory.folder / STORE_NAME)
    db.execute("CREATE VIRTUAL TABLE temp.v USING fts5vocab(main, words, row)")
    assert db.execute("SELECT count(*) FROM temp.v WHERE term LIKE ?", (word[:6] + "%",)).fetchone() == (0,)
    db.close()


def test_compact_makes_the_files_smaller(memory: SceneMemory):
    for i in range(300):
        memory.add(scene(f"Reply {i} " * 20), text=f"note {i} about thing {i * 7}", session="s")
    memory.compact()
    full = memory.stats().bytes
    memory.forget(session="s")
    memory.compact()
    assert memory.stats().bytes < full / 2
    assert memory.verify() == []


def test_consolidate_makes_arcs_and_sagas_once_and_deletes_nothing(memory: SceneMemory):
    for session in ("one", "two"):
        for i in range(4):
            memory.add(scene(f"Roses {i}."), text=f"garden roses {session} bloom {i}", session=session)
    made = memory.consolidate()
    assert [one.level for one in made] == [1, 1, 2]
    assert {one.provenance for one in made} == {"summary"}
    assert memory.consolidate() == []
    stats = memory.stats()
    assert (stats.scenes, stats.arcs, stats.sagas) == (8, 2, 1)
    arc = made[0]
    members = memory.chain(arc.id).scenes
    assert len(members) == 4
    assert all(one.text.split(".")[0] in arc.scene.response for one in members)
    assert [one.id for one in memory.chain(members[0].id).summaries] == [arc.id, made[2].id]
    hits = memory.recall("roses one bloom", 1, chain_depth=1, budget_tokens=0)
    assert "arc" in {hit.via for hit in hits} or hits[0].scene.level > 0


def test_a_model_may_write_the_summaries(memory: SceneMemory):
    for i in range(3):
        memory.add(scene(f"Tea {i}."), text=f"tea ceremony step {i}", session="s")

    def summarise(members: object) -> Scene:
        return scene(f"A ceremony in {len(list(members))} steps.", center="patience")  # type: ignore[call-overload]

    (arc,) = memory.consolidate(summarise=summarise)
    assert arc.scene.resonance_center == "patience" and arc.scene.response == "A ceremony in 3 steps."


def test_a_pvq_asks_with_its_tension_goal_and_archetypes(memory: SceneMemory):
    one = memory.add(scene("A.", center="learning patience", tension="haste vs calm", archetype="sage"), text="day one")
    memory.add(scene("B.", center="buying bread", tension="price vs taste", archetype="trader"), text="day two")
    pvq = Pvq("day", scene={"tension": "haste vs calm"}, goal="learning patience", archetype=("sage",))
    hits = memory.recall(pvq, 2, chain_depth=0)
    assert hits[0].scene.id == one.id
    assert hits[0].parts["tension"] > 0.99 and hits[0].parts["centre"] > 0.99 and hits[0].parts["archetype"] == 1.0
    assert hits[1].parts["archetype"] == 0.0


def test_archetypes_of_two_languages_count_as_one(opener: Opener):
    memory = opener(archetype_ids={"sage": "sage", "мудрец": "sage"})
    memory.add(scene("A.", archetype="мудрец"), text="day one")
    assert memory.recall(Pvq("day", archetype=("sage",)), 1)[0].parts["archetype"] == 1.0


def test_what_the_embedder_cannot_represent_is_said_once_and_found(opener: Opener):
    said: list[str] = []
    latin = HashedEmbedder(latin_only=True)
    memory = opener(embedder=latin, notice=said.append)
    for i in range(3):
        memory.add(scene("Хорошо."), text=f"Мою черепаху зовут Тортила {i}")
    assert len(said) == 1 and "can't represent" in said[0]
    assert memory.stats().unembedded == 3
    assert memory.recall("черепаха", 1, chain_depth=0)[0].parts["words"] == 1.0
    memory.close()
    said.clear()
    both = opener(embedder=latin, fallback=HashedEmbedder(32, "multi"), notice=said.append)
    both.add(scene("Good."), text="My turtle eats salad")
    assert both.stats().unembedded == 0
    assert dict(both.stats().embedders) == {"hashed-64": 1, "multi-32": 3}
    assert both.recall("зовут черепаху", 1, chain_depth=0)[0].parts["meaning"] > 0
    assert both.recall("turtle salad", 1, chain_depth=0)[0].scene.text == "My turtle eats salad"
    assert len(said) == 1 and "a space of their own" in said[0]


def test_a_memory_of_another_embedder_is_embedded_again_not_mixed(opener: Opener):
    with opener(embedder=HashedEmbedder(64, "old")) as memory:
        for i in range(150):
            memory.add(scene(f"R{i}."), text=f"topic{i} words{i}")
    seen: list[tuple[int, int]] = []
    with opener(embedder=HashedEmbedder(48, "new"), progress=lambda done, todo: seen.append((done, todo))) as memory:
        assert memory.recall("topic7", 1, chain_depth=0)[0].scene.text == "topic7 words7"
        assert seen[-1] == (150, 150) and len(seen) == 3
        assert dict(memory.stats().embedders) == {"old-64": 150, "new-48": 150}
        memory.compact()
        assert dict(memory.stats().embedders) == {"new-48": 150}
        assert memory.verify() == []


def test_one_name_for_two_dimensions_is_refused_and_costs_no_turn(opener: Opener):
    with opener(embedder=HashedEmbedder(64)) as memory:
        memory.add(scene("A."), text="one")
    other = HashedEmbedder(32)
    other.id = "hashed-64"
    said: list[str] = []
    memory = opener(embedder=other, notice=said.append)
    assert memory.add(scene("B."), text="two").status == "added"
    assert len(said) == 1 and "64 components, it gives 32" in said[0]


@pytest.mark.parametrize("fault", ["nan", "zero", "short", "raises"])
def test_a_bad_embedder_costs_vectors_not_turns(opener: Opener, fault: str):
    class Bad(HashedEmbedder):
        broken = True

        def embed(self, texts: list[str]):  # type: ignore[no-untyped-def]
            good = super().embed(texts)
            if not self.broken:
                return good
            if fault == "raises":
                raise MemoryStoreError("the embedder failed")
            return {"nan": good * float("nan"), "zero": good * 0, "short": good[:, :-1]}[fault]

    bad = Bad()
    said: list[str] = []
    memory = opener(embedder=bad, notice=said.append)
    memory.add(scene("A."), text="the quince tree", session="s")
    assert memory.recall("quince", 1)[0].scene.text == "the quince tree"
    assert said and memory.stats().unembedded == 1
    bad.broken = False
    assert memory.fill() == 1
    assert memory.stats().unembedded == 0 and memory.verify() == []


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "foreign", "empty"])
def test_a_damaged_index_is_built_again(opener: Opener, damage: str):
    with opener() as memory:
        for i in range(20):
            memory.add(scene(f"R{i}."), text=f"topic{i} words{i}")
    path = memory.folder / "scene_embeddings.index"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
    elif damage == "foreign":
        path.write_bytes(b"\x7fELF" + bytes(1000))
    else:
        path.write_bytes(b"")
    with opener() as memory:
        assert texts(memory, "topic7", k=1, chain_depth=0) == ["topic7 words7"]
        assert memory.verify() == []


def test_two_open_memories_see_each_others_changes(opener: Opener):
    one, two = opener(), opener()
    first = one.add(scene("A."), text="apricot jam")
    assert texts(two, "apricot", k=1) == ["apricot jam"]
    two.add(scene("B."), text="walnut bread")
    assert texts(one, "walnut", k=1, chain_depth=0) == ["walnut bread"]
    two.forget(first.id)
    assert "apricot jam" not in texts(one, "apricot", k=5)
    assert one.verify() == [] and two.verify() == []


def test_threads_may_share_a_memory(memory: SceneMemory):
    failed: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for i in range(20):
                memory.add(scene(f"R {n} {i}."), text=f"thread{n} item{i}", session=f"t{n}")
                memory.recall(f"thread{n}", 2)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and memory.stats().scenes == 80 and memory.verify() == []
    for n in range(4):
        last = memory.scenes(session=f"t{n}", limit=1)[0]
        assert len(memory.chain(last.id).scenes) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_memory_does_not_survive_a_fork(memory: SceneMemory):
    memory.add(scene("A."), text="one")
    child = os.fork()
    if child == 0:
        try:
            memory.stats()
        except MemoryStoreError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_closed_memory_says_so(memory: SceneMemory):
    memory.close()
    memory.close()
    with pytest.raises(MemoryStoreError, match="closed"):
        memory.stats()


@pytest.mark.parametrize("query", ["", "   ", "\ufeff", '"', "* OR NEAR(", "-", "a" * 20000, "🦊", "\ud800"])
def test_any_query_is_answered(memory: SceneMemory, query: str):
    memory.add(scene("A."), text="one fox 🦊")
    memory.recall(query, 3)
    assert memory.recall(query, 0) == []


def test_what_is_no_scene_is_refused_and_nothing_is_stored(memory: SceneMemory):
    with pytest.raises(SchemaError):
        memory.add(scene("x" * 10_000_000), text="ten megabytes")
    with pytest.raises(SchemaError):
        memory.add(scene(""))
    with pytest.raises(InputError, match="bytes"):
        memory.add(scene("A."), text="x" * 10_000_000)
    with pytest.raises(InputError, match="session"):
        memory.add(scene("A."), session="a\nb")
    with pytest.raises(InputError, match="time zone"):
        memory.add(scene("A."), at=datetime(2026, 1, 1))
    with pytest.raises(InputError, match="not a number"):
        memory.add(scene("A."), at=float("nan"))
    assert memory.stats().scenes == 0


def test_ids_uids_and_prefixes_name_scenes(memory: SceneMemory):
    number = memory.add(scene("A."), text="one").id
    found = memory.get(number)
    assert found is not None
    assert memory.get(str(number)) == memory.get(found.uid) == memory.get(found.uid[:8]) == found
    assert memory.get("zz") is None and memory.get(10**30) is None and memory.get("") is None


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a..b", "x" * 65, "a\n"])
def test_a_memory_name_stays_in_its_folder(name: str):
    with pytest.raises(InputError):
        memory_folder(name)


def test_pack_and_seed_carry_a_memory_to_a_bundle_and_back(opener: Opener, tmp_path: Path):
    memory = opener()
    one = memory.add(scene("A."), text="first", session="s").id
    memory.add(scene("B."), text="second", session="s")
    assert memory.pack(tmp_path / "bundle" / "memory") == 2
    assert sorted(p.name for p in (tmp_path / "bundle" / "memory").iterdir()) == ["meta.json", STORE_NAME]
    with pytest.raises(MemoryStoreError, match="exists already"):
        memory.pack(tmp_path / "bundle" / "memory")
    before = (tmp_path / "bundle" / "memory" / STORE_NAME).read_bytes()
    fresh = opener(tmp_path / "fresh")
    assert fresh.seed(tmp_path / "bundle" / "memory") == 2
    assert fresh.seed(tmp_path / "bundle" / "memory") == 0
    assert texts(fresh, "first", k=1, chain_depth=0) == ["first"]
    assert len(fresh.chain(one).scenes) == 2
    assert (tmp_path / "bundle" / "memory" / STORE_NAME).read_bytes() == before


def test_the_policy_comes_from_the_overlay():
    from ltm_edge.bundle import load_overlay

    policy = Policy.from_overlay(load_overlay().overlay.memory)
    assert policy.budget_tokens == load_overlay().overlay.memory.budget_tokens
    assert sum(policy.weights.values()) == pytest.approx(1.0)


def test_export_is_text_for_any_scene(memory: SceneMemory):
    memory.add(scene("Line one\n  indented\n\nlast 🦊"), text='quote " and \\ and \u2028 kept')
    out = io.StringIO()
    memory.export(out)
    assert all(json.loads(line) for line in out.getvalue().split("\n") if line)


class Blunt(HashedEmbedder):
    """Finds all texts alike."""

    def embed(self, texts: list[str]):
        return super().embed(["all the same"] * len(texts))


def test_a_scene_told_in_the_very_words_asked_for_stands_first(tmp_path: Path):
    """Also where it stands alone, and others as like it in meaning stand among their kin."""
    with SceneMemory.open(tmp_path, Blunt()) as memory:
        for n in range(12, 40):
            text = f"row {n}0{n}, seat {n}1{n}"
            memory.add(scene(f"Reply to {text}."), text=text, session="kin", at=START + n * DAY)
        memory.add(scene("Reply to row 7077, seat 7177."), text="row 7077, seat 7177", at=START)
        assert texts(memory, "Row 7077,  seat 7177", k=3, at=START + 40 * DAY)[0] == "row 7077, seat 7177"
