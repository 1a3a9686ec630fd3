"""What a scene lent to those it took up goes with it: they are as strong as if it had never been."""

from __future__ import annotations

import random

import pytest

from ltm_edge.scene_memory import SceneMemory

from .conftest import Opener, scene

START, DAY = 1_767_261_600.0, 86_400.0

HALF_LIFE = 30 * DAY
ASKS = ("what shall I drink", "and in the evening", "something for the guests", "now the tea is cold", "once more")


def drinks(memory: SceneMemory) -> int:
    return memory.add(scene("Green tea it is."), text="I like tea best", at=START).id


def takes_up(memory: SceneMemory, known: int, number: int, at: float) -> int:
    added = memory.add(
        scene(f"Some green tea, {number} cups."), text=ASKS[number], session=f"s{number}", recalled=[known], at=at
    )
    assert added.status == "added" and added.strengthened == (known,)
    return added.id


def strength(memory: SceneMemory, number: int) -> float:
    found = memory.get(number)
    assert found is not None
    return found.strength


def aged(memory: SceneMemory, number: int, at: float) -> float:
    """A scene's strength at a moment: it is kept as it was when it changed last."""
    found = memory.get(number)
    assert found is not None
    return found.strength * 0.5 ** ((at - found.strengthened / 1e6) / HALF_LIFE)


def test_what_a_forgotten_scene_lent_is_gone_and_the_log_says_so(memory: SceneMemory) -> None:
    known = drinks(memory)
    other = takes_up(memory, known, 0, START + DAY)
    assert strength(memory, known) > 0.5
    memory.forget(other)
    assert strength(memory, known) == pytest.approx(0.5 * 0.5 ** (DAY / HALF_LIFE), abs=1e-5)
    kept = [(entry.what, entry.scene, entry.by) for entry in memory.log() if entry.what != "accepted"]
    assert kept == [("strengthened", known, "use"), ("weakened", known, "forgotten"), ("forgotten", other, "")]


def test_each_order_of_going_leaves_what_those_that_stay_lent(opener: Opener, tmp_path_factory: pytest.TempPathFactory):
    """Against the slow way: a memory in which what was forgotten never was."""
    rng = random.Random(4)
    for round_ in range(4):
        gone = rng.sample(range(len(ASKS)), rng.randint(1, len(ASKS) - 1))
        early = gone[0]
        with (
            opener(tmp_path_factory.mktemp(f"all{round_}")) as memory,
            opener(tmp_path_factory.mktemp(f"some{round_}")) as fresh,
        ):
            known, same = drinks(memory), drinks(fresh)
            added = {}
            for number in range(len(ASKS)):
                at = START + (number + 1) * 3 * DAY
                added[number] = takes_up(memory, known, number, at)
                if number not in gone:
                    takes_up(fresh, same, number, at)
                if number == early:  # and more follows
                    memory.forget(added.pop(number))
                if number == 2:  # a person says that it was no help
                    memory.weaken([known], by="test", at=at + DAY)
                    fresh.weaken([same], by="test", at=at + DAY)
            for number in gone[1:]:
                memory.forget(added[number])
            now = START + 100 * DAY
            assert aged(memory, known, now) == pytest.approx(aged(fresh, same, now), abs=1e-5)


def test_an_answer_given_again_strengthens_once(memory: SceneMemory) -> None:
    known = drinks(memory)
    first = takes_up(memory, known, 0, START + DAY)
    once = strength(memory, known)
    for _ in range(3):
        first = memory.add(
            scene("Some green tea, by all means."), text=ASKS[0], recalled=[known], replaces=first, at=START + DAY
        ).id
    assert strength(memory, known) == pytest.approx(once, abs=1e-5)
