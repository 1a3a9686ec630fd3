"""The terminal picture: boxes whose sides meet whatever the script, inside the width, for any scene."""

from __future__ import annotations

import re

import pytest
import wcwidth
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.scene.record import Scene
from ltm_edge.scene.terminal_picture import draw

RUSSIAN = Scene(
    (("ты", "архитектор"), ("внутренний_голос", "тревога")),
    "уверенность vs усталость", ("инициатор", "пилигрим"), "воля продолжать", "Ты не знаешь.",
)  # fmt: skip
LONG = Scene(
    (("you", "someone who has built the same machine for eleven years without showing it"),
     ("inner_voice", "an old teacher who never praised anything that was finished"),
     ("the machine", "silent, warm, humming on the table, waiting for a reason")),
    "the certainty that the next revision will be worth showing to those who ask vs the fatigue of a body",
    ("initiator of long works", "guardian of the threshold"),
    "the will to continue when nobody has asked for it, and to stop when that is honest", "x",
)  # fmt: skip
CROWD = Scene(
    tuple((f"role_{i}", "someone with a part" if i % 3 else "x") for i in range(16)),
    "one vs many", ("crowd",) * 8, "who speaks first", "x",
)  # fmt: skip
WIDE = Scene(
    (("👩‍🚀 pilot", "🚀 she flies 👨‍👩‍👧‍👦"), ("船", "漢字の長い説明文がここに入りますのでとても長くなります"),
     ("❤️", "🇷🇺🇯🇵 e\u0301te\u0301")),
    "🔥 fire 火 vs 水 water 💧", ("🧙‍♂️ wizard", "道化師"), "心 — the centre 🎯 全ての中心", "x",
)  # fmt: skip
WORDS = Scene(
    (("x" * 64, "Donaudampfschifffahrtsgesellschaft"),),
    "Rechtsschutzversicherungsgesellschaften vs достопримечательность",
    ("Lebensversicherungsgesellschaft",), "человеконенавистничество и высокопревосходительство", "x",
)  # fmt: skip
ONE = Scene((("you", "x"),), "only one pole", ("host",), "c", "r")
SCENES = {"russian": RUSSIAN, "long": LONG, "crowd": CROWD, "wide": WIDE, "words": WORDS, "one": ONE}
WIDTHS = (24, 31, 60, 61, 80, 97, 120)


def cells(lines: list[str]) -> dict[tuple[int, int], str]:
    """What stands in each cell, by row and column."""
    found = {}
    for row, line in enumerate(lines):
        column = 0
        for cluster in wcwidth.iter_graphemes(line):
            found[row, column] = cluster
            column += wcwidth.width(cluster)
    return found


def boxes(lines: list[str]) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom, right of every box, each side followed from corner to corner."""
    at = cells(lines)
    found = []
    for (top, left), char in at.items():
        if char != "╭":
            continue
        right = left + 1
        while at.get((top, right)) in ("─", "┴"):
            right += 1
        assert at.get((top, right)) == "╮"
        bottom = top + 1
        while at.get((bottom, left)) in ("│", "┤"):
            assert at.get((bottom, right)) in ("│", "├"), lines[bottom]
            bottom += 1
        assert (at.get((bottom, left)), at.get((bottom, right))) == ("╰", "╯")
        assert all(at.get((bottom, x)) in ("─", "┬") for x in range(left + 1, right))
        found.append((top, left, bottom, right))
    return found


def test_a_russian_scene() -> None:
    assert draw(RUSSIAN, 60) == [
        "         ╭──────────────────╮  ╭──────────────────╮",
        "         │        ты        │  │ внутренний голос │",
        "         │    архитектор    │  │     тревога      │",
        "         ╰─────────┬────────╯  ╰─────────┬────────╯",
        "                   ╰──────────┬──────────╯",
        "                     ╭────────┴────────╮",
        "●────────────────────┤ воля продолжать ├───────────────────●",
        "уверенность          ╰─────────────────╯           усталость",
        "",
        "                   ‹инициатор›  ‹пилигрим›",
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCENES)
def test_every_actor_and_the_centre_stand_in_a_whole_box(name: str, width: int) -> None:
    scene = SCENES[name]
    lines = draw(scene, width)
    found = boxes(lines)
    assert len(found) == len(scene.actors) + 1
    for i, (top, left, bottom, right) in enumerate(found):
        for other in found[i + 1 :]:
            assert bottom < other[0] or other[2] < top or right < other[1] or other[3] < left
    assert max(wcwidth.width(line) for line in lines) <= width
    top, left, bottom, right = found[-1]
    at = cells(lines)
    (axis,) = [row for row in range(top, bottom) if at[row, left] == "┤"]
    assert at[axis, 0] == "●" and all(at[axis, x] == "─" for x in (*range(1, left), *range(right + 1, width - 1)))
    assert (at[axis, width - 1] == "●") == bool(scene.poles[1])


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", SCENES)
def test_nothing_of_an_ordinary_scene_is_cut(name: str, width: int) -> None:
    scene = SCENES[name]
    lines = draw(scene, width)
    text = "".join("".join(re.sub("[╭╮╰╯│┤├┬┴┼─●‹›]", " ", line).split()) for line in lines)
    for part in (
        *(word for pair in scene.actors for word in pair),
        *scene.poles,
        *scene.archetype,
        scene.resonance_center,
    ):
        for word in part.replace("_", " ").split():
            assert word in text or len(word) > 15, word  # longer ones may be broken between two boxes
    assert "…" not in text


def test_colours_change_nothing_but_the_colour() -> None:
    for scene in SCENES.values():
        for width in WIDTHS:
            plain, coloured = draw(scene, width), draw(scene, width, colour=True)
            assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured] == plain
            assert any("\x1b[1;34m" in line for line in coloured)
            assert all(line.count("\x1b[0m") > 0 for line in coloured if "\x1b[" in line)
            assert all(
                line.endswith("\x1b[0m") for line in coloured if re.search("\x1b\\[[1-9][0-9;]*m[^\x1b]*$", line)
            )


ANY = st.text(st.characters(exclude_categories=()), max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    scene=st.builds(
        Scene,
        actors=st.lists(st.tuples(ANY, ANY), max_size=6).map(tuple),
        tension=st.one_of(ANY, st.tuples(ANY, ANY).map(" vs ".join)),
        archetype=st.lists(ANY, max_size=4).map(tuple),
        resonance_center=ANY,
        response=ANY,
    ),
    width=st.integers(-5, 200),
    colour=st.booleans(),
)
def test_no_scene_is_too_strange(scene: Scene, width: int, colour: bool) -> None:
    lines = draw(scene, width, colour)
    for line in lines:
        plain = re.sub("\x1b\\[[0-9;]*m", "", line)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", plain)
        assert wcwidth.width(plain) <= min(max(width, 24), 120)
        assert plain == plain.rstrip(" ")
    "\n".join(lines).encode()


def test_a_huge_scene_is_drawn_cut() -> None:
    scene = Scene(
        (("r" * 64, "word " * 800),) * 16, "p " * 2000 + "vs " + "q" * 3000, ("n" * 100,) * 8, "c " * 2000, "r"
    )
    lines = draw(scene, 80)
    assert len(lines) < 16 * 14 + 40 and any("…" in line for line in lines)
    assert len(boxes(lines)) == 17
