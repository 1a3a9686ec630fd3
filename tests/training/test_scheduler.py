"""CurriculumScheduler and FieldDataLoader: every scene as often as it is said, in the order that is said."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.bundle import load_overlay
from ltm_edge.errors import TrainingError
from ltm_edge.schemas.curriculum import Curriculum, CurriculumPhase, TaskShares, parse_curriculum
from ltm_edge.training.course import Course
from ltm_edge.training.packing import Row, pack
from ltm_edge.training.scheduler import CurriculumScheduler
from ltm_edge.training.stories import load_stories
from ltm_edge.training.tasks import Example, Line

from . import small

BUNDLE = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m"
OVERLAY = load_overlay(BUNDLE)
STORIES = load_stories(BUNDLE / "data" / "stories", OVERLAY.templates, OVERLAY.archetype_names())
PHASES = ("myth", "drama", "logic", "irony")


def plan(*phases: CurriculumPhase, **more) -> CurriculumScheduler:
    return CurriculumScheduler(Curriculum(1, phases, ("x",), **more), STORIES, ("one", "two"))


def scenes_of(phase: str) -> int:
    return sum(scene.pvq.phase == phase for story in STORIES for scene in story.scenes)


def test_every_scene_comes_once_an_epoch_and_phases_follow_each_other():
    found = plan(*(CurriculumPhase(phase, epochs=2.0) for phase in PHASES))
    assert [unit.section for unit in found.units] == sorted(unit.section for unit in found.units)
    for number, phase in enumerate(PHASES):
        units = [unit for unit in found.units if unit.section == number]
        assert {unit.phase for unit in units} == {phase}
        half = len(units) // 2
        for epoch in (units[:half], units[half:]):
            assert len({unit.place for unit in epoch}) == len(epoch) == scenes_of(phase)


def test_overlap_mixes_neighbours_and_replay_and_chat_are_strewn_in():
    first = CurriculumPhase("myth", overlap=0.25)
    second = CurriculumPhase("drama", replay=0.2, chat=0.1)
    units = plan(first, second).units
    myth, drama = scenes_of("myth"), scenes_of("drama")
    kinds = Counter((unit.section, unit.phase) for unit in units)
    assert kinds == {
        (0, "myth"): myth,
        (1, "drama"): drama,
        (1, "myth"): round(0.2 * drama),
        (1, ""): round(0.1 * drama),
    }
    start = next(at for at, unit in enumerate(units) if unit.section == 1)
    end = max(at for at, unit in enumerate(units) if unit.section == 0)
    assert myth - round(0.25 * myth) == start or start == myth - round(0.25 * myth) + 1
    assert end - start == pytest.approx(2 * round(0.25 * myth), abs=2)
    # Strewn, not heaped: every quarter of the phase has its share.
    tail = [unit.phase for unit in units[end + 1 :]]
    quarters = [tail[len(tail) * i // 4 : len(tail) * (i + 1) // 4] for i in range(4)]
    counts = [sum(phase != "drama" for phase in quarter) for quarter in quarters]
    assert max(counts) - min(counts) <= 2, counts
    assert all({"myth", ""} <= set(quarter) for quarter in quarters)
    replayed = [unit.place for unit in units if (unit.section, unit.phase) == (1, "myth")]
    assert len(set(replayed)) == len(replayed), "no scene comes again before all have come"


def test_a_phase_that_comes_again_replays_the_others_only():
    units = plan(CurriculumPhase("myth"), CurriculumPhase("logic"), CurriculumPhase("myth", replay=0.5)).units
    last = Counter(unit.phase for unit in units if unit.section == 2)
    assert last == {"myth": scenes_of("myth"), "logic": round(0.5 * scenes_of("myth"))}


def test_no_more_is_mixed_in_than_the_next_phase_has():
    units = plan(CurriculumPhase("myth", overlap=0.5), CurriculumPhase("drama", epochs=0.05)).units
    few = round(0.05 * scenes_of("drama"))
    assert 0 < few < 0.25 * scenes_of("myth")
    sections = [unit.section for unit in units]
    assert sections.index(1) == scenes_of("myth") - few and Counter(sections) == {0: scenes_of("myth"), 1: few}


def test_archetypes_are_spread_evenly():
    units = plan(CurriculumPhase("logic")).units
    archetypes = {unit.archetype for unit in units}
    half, shift = len(units) // 2, len(archetypes) // 2

    def differences(cut: int) -> list[int]:
        one, other = (Counter(unit.archetype for unit in part) for part in (units[:cut], units[cut:]))
        return [abs(one[archetype] - other[archetype]) for archetype in archetypes]

    # Half the way is where each archetype's scenes stand half before, half behind; it need not be half of all units.
    assert any(max(differences(cut)) <= 1 for cut in range(half - shift, half + shift + 1))


def test_tasks_come_in_their_shares():
    phase = CurriculumPhase("drama", tasks=TaskShares(0.25, 0.25, 0.5), judgements=0.2, epochs=20.0)
    units = plan(phase).units
    counts = Counter(unit.task for unit in units)
    later = sum(unit.place.index > 0 for unit in units) / len(units)
    assert counts["judge"] / len(units) == pytest.approx(0.2, abs=0.02)
    assert counts["restore"] / len(units) == pytest.approx(0.8 * 0.25, abs=0.02)
    assert counts["hold"] / len(units) == pytest.approx(0.8 * 0.5 * later, abs=0.02)
    assert all(unit.place.index > 0 for unit in units if unit.task == "hold")


def test_shuffled_has_the_same_units_in_another_order():
    curriculum = Curriculum(1, tuple(CurriculumPhase(phase) for phase in PHASES), ("x",))
    straight = CurriculumScheduler(curriculum, STORIES).units
    shuffled = CurriculumScheduler(curriculum, STORIES, shuffled=True).units
    assert straight != shuffled
    assert Counter(straight) == Counter(shuffled)


def test_the_learning_rate_rises_holds_and_falls():
    found = plan(CurriculumPhase("myth", learning_rate=0.1), warmup=0.1, decay=0.4)
    rates = [found.learning_rate(step, 100, 0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * (step + 1) for step in range(10)])
    assert rates[10:60] == pytest.approx([0.1] * 50)
    assert all(a > b for a, b in itertools.pairwise(rates[60:]))
    assert rates[-1] == pytest.approx(0.1 * (0.1 + 0.9 / 40))


def test_what_the_data_lacks_is_said():
    with pytest.raises(
        TrainingError, match=r"phases\[0\] \(myth\): no scene has the archetype 'wizard'; there are: .*host"
    ):
        plan(CurriculumPhase("myth", archetypes=("wizard",)))
    only_logic = [story for story in STORIES if all(scene.pvq.phase == "logic" for scene in story.scenes)]
    curriculum = Curriculum(1, (CurriculumPhase("irony"),), ("x",))
    with pytest.raises(TrainingError, match=r"phases\[0\] \(irony\): the data has no scene"):
        CurriculumScheduler(curriculum, only_logic)
    with pytest.raises(TrainingError, match="ordinary exchanges"):
        CurriculumScheduler(Curriculum(1, (CurriculumPhase("myth", chat=0.1),), ("x",)), STORIES)


def test_the_bundles_own_curriculum_is_sound():
    curriculum = parse_curriculum((BUNDLE / "curriculum.yaml").read_bytes())
    found = CurriculumScheduler(curriculum, STORIES, ("one",))
    assert [phase.phase for phase in curriculum.phases[:4]] == list(PHASES)
    assert {unit.task for unit in found.units} == {"restore", "create", "hold", "judge", "chat"}


def test_the_loader_feeds_each_unit_once_whatever_the_order_of_asking(tmp_path: Path):
    found: Course = small.course(tmp_path)
    loader = found.loader(small.Pieces())
    batches = [loader.batch(number) for number in range(len(loader))]
    fed = Counter(example.name for batch in batches for row in batch.rows for example in row.examples)
    assert fed == Counter(loader.example(unit).name for unit in loader.scheduler.units)
    again = found.loader(small.Pieces())
    for number in reversed(range(len(again))):
        rows = again.batch(number).rows
        assert len(rows) == len(batches[number].rows)
        for one, other in zip(rows, batches[number].rows, strict=True):
            assert np.array_equal(one.tokens, other.tokens) and np.array_equal(one.weights, other.weights)


tokens = st.lists(st.integers(0, 3), min_size=2, max_size=9)


@settings(max_examples=200)
@given(st.lists(st.lists(tokens, min_size=1, max_size=3), min_size=1, max_size=5), st.integers(4, 40))
def test_rows_hold_every_text_whole(texts: list[list[list[int]]], limit: int):
    examples = [
        Example(
            str(number),
            "create",
            "myth",
            "host",
            "tale",
            tuple(Line(np.array(line, np.int32), np.arange(1, len(line) + 1, dtype=np.float32)) for line in lines),
        )
        for number, lines in enumerate(texts)
    ]
    rows = pack(examples, limit)
    assert Counter(example.name for row in rows for example in row.examples) == Counter(
        str(i) for i in range(len(texts))
    )
    for row in rows:
        # One that brings nothing new may stand in a row that is full.
        assert len(row) <= limit or len(row) == max(len(Row.of([example])) for example in row.examples)
        assert_holds(row)


def assert_holds(row: Row) -> None:
    """Each prediction is read behind exactly the text that stands before it, at the right places, once each."""
    predicted = Counter()
    for at, target, weight, owner in zip(row.at, row.targets, row.weights, row.owner, strict=True):
        seen = np.flatnonzero(row.sees[at])
        order = seen[np.argsort(row.positions[seen])]
        assert row.positions[order].tolist() == list(range(len(order)))
        predicted[(int(owner), tuple(row.tokens[order].tolist()), int(target), float(weight))] += 1
    wanted = Counter(
        (number, tuple(line.tokens[:place].tolist()), int(line.tokens[place]), float(line.weights[place]))
        for number, example in enumerate(row.examples)
        for line in example.lines
        for place in range(1, len(line.tokens))
    )
    assert predicted == wanted
