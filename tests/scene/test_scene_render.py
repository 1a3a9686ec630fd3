"""Renderings: well-formed whatever the text, everything of the scene in them, nothing outside the paper."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from ltm_edge.scene.measure import ems, text_width, wrap
from ltm_edge.scene.record import Scene
from ltm_edge.scene.render import card_lines, render_form, scene_text
from ltm_edge.scene.svg import scene_svg

SCENE = Scene(
    actors=(("you", "архитектор"), ("inner_voice", "тревога")),
    tension="уверенность vs усталость",
    archetype=("инициатор", "пилигрим"),
    resonance_center="воля продолжать",
    response='Ты не знаешь — это честно.\n\n    if a < b && c > d:\n        print("x")',
    self_commentary="Я ответил страху.",
)
NS = "{http://www.w3.org/2000/svg}"


def lines_of(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{NS}text")]


def test_svg_holds_the_scene() -> None:
    svg = scene_svg(SCENE, "ru")
    lines = lines_of(svg)
    for text in ("you", "inner voice", "архитектор", "тревога", "уверенность", "усталость", "инициатор", "пилигрим"):
        assert text in lines
    assert "воля" in " ".join(lines)
    assert '        print("x")' in lines
    assert "prefers-color-scheme: dark" in svg
    assert ElementTree.fromstring(svg).find(f"{NS}title").text == "сцена: уверенность ⟷ усталость"  # type: ignore[union-attr]
    assert not any(word in svg for word in ("<script", "href", "<image", "url("))


def extent(node: ElementTree.Element) -> tuple[float, float]:
    """Left and right end of a line of text."""
    room = ems(node.text or "", node.attrib["font-weight"] == "600") * float(node.attrib["font-size"])
    x = float(node.attrib["x"])
    left = {"start": x, "middle": x - room / 2, "end": x - room}[node.attrib["text-anchor"]]
    return left, left + room


HOSTILE = [
    Scene((("a", "<b>&\"'"),) * 16, "<x> vs ]]>", ("&amp;", "<!--"), "<![CDATA[", "</svg><script>alert(1)</script>"),
    Scene((("x" * 64, "y" * 4000),), "p" * 3000, ("n" * 100,) * 8, "c" * 4000, "r" * 20_000),
    Scene((("a", "漢" * 300),), "水 vs 火", ("あ",), "🚀" * 50, "한국어 " * 500),
    Scene((("a", "\x01\ufffe\ud800\x85b"),), "\u202ea vs b", ("q",), "\u0300\u0301", "\tx\n\n\n y"),
    Scene((), "", (), "", ""),
]


@pytest.mark.parametrize("scene", HOSTILE, ids=range(len(HOSTILE)))
def test_svg_is_well_formed_and_inside_its_paper(scene: Scene) -> None:
    svg = scene_svg(scene)
    svg.encode()
    root = ElementTree.fromstring(svg)
    assert [child.tag for child in root.iter() if child.tag not in {NS + tag for tag in (
        "svg", "title", "desc", "style", "rect", "line", "circle", "text")}] == []  # fmt: skip
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert height < 12_000
    for node in root.iter(f"{NS}text"):
        size = float(node.attrib["font-size"])
        y = float(node.attrib["y"])
        left, right = extent(node)
        assert left >= -1, node.text
        assert right <= width + 1, node.text
        assert y - 0.8 * size > 0 and y + 0.25 * size <= height
    for node in root.iter(f"{NS}rect"):
        assert float(node.attrib.get("x", 0)) >= 0
        assert float(node.attrib.get("x", 0)) + float(node.attrib["width"]) <= width
    assert len(svg) < 200_000


LONG = Scene(
    actors=(
        ("you", "someone who has been building the same machine for eleven years without showing it to anybody"),
        ("inner_voice", "an old teacher who never praised anything finished and never blamed anything begun"),
        ("машина", "тёплая, молчит на столе и ждёт причины, которой нет ни на одном чертеже"),
    ),
    tension="the certainty that only the next and final revision will at last be worth showing vs the fatigue of a "
    "body that has stopped believing in final revisions altogether, and says so every single evening",
    archetype=("initiator of long works", "pilgrim", "guardian of the threshold", "хранитель порога"),
    resonance_center="the will to continue even when nobody has asked for it, and to stop when stopping is the honest "
    "thing to do, whatever was said before",
    response="You do not know whether it is worth it. " * 8,
    self_commentary="I answered the fear and not the question. " * 3,
)
CROWD = Scene(
    tuple((f"role_{i}", ("x", "a longer description of what somebody does")[i % 2]) for i in range(16)),
    "one vs many", ("crowd",) * 8, "who speaks first", "All at once.",
)  # fmt: skip
WIDE = Scene(
    (("👩‍🚀 pilot", "🚀 она летит 👨‍👩‍👧‍👦"), ("船", "漢字の長い説明文がここに入りますのでとても長くなります")),
    "🔥 fire 火 vs 水 water 💧", ("🧙‍♂️ wizard", "道化師"), "心 — the centre 🎯 全ての中心", "打ち上げ。한국어 문장.",
)  # fmt: skip
WORDS = Scene(
    (("x" * 64, "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen"),),
    "Rechtsschutzversicherungsgesellschaften vs достопримечательность", ("Lebensversicherungsgesellschaft",),
    "человеконенавистничество и высокопревосходительство", "https://example.org/" + "a/" * 60,
)  # fmt: skip


@pytest.mark.parametrize("scene", [SCENE, LONG, CROWD, WIDE, WORDS], ids=["scene", "long", "crowd", "wide", "words"])
def test_svg_cuts_nothing_and_nothing_overlaps(scene: Scene) -> None:
    root = ElementTree.fromstring(scene_svg(scene))
    nodes = list(root.iter(f"{NS}text"))
    shown = "".join("".join((node.text or "").split()) for node in nodes)
    for text in (*(who for _, who in scene.actors), *scene.poles, *scene.archetype, scene.resonance_center,
                 scene.response, scene.self_commentary or ""):  # fmt: skip
        assert "".join(text.split()) in shown
    assert "…" not in shown
    texts = []
    for node in nodes:
        size, y = float(node.attrib["font-size"]), float(node.attrib["y"])
        if (node.text or "").strip():
            texts.append((*extent(node), y - 0.75 * size, y + 0.2 * size))
    for i, (left, right, top, bottom) in enumerate(texts):
        for other in texts[i + 1 :]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top, (i, other)
    shapes = []
    for rect in root.iter(f"{NS}rect"):
        if rect.attrib["class"] in ("node", "tag", "core"):
            x, y = float(rect.attrib["x"]), float(rect.attrib["y"])
            shapes.append((x, x + float(rect.attrib["width"]), y, y + float(rect.attrib["height"])))
    for circle in root.iter(f"{NS}circle"):
        if circle.attrib["class"] == "core":
            x, y, r = (float(circle.attrib[name]) for name in ("cx", "cy", "r"))
            shapes.append((x - r, x + r, y - r, y + r))
            for left, right, top, bottom in texts:
                near = min(abs(top - y), abs(bottom - y)) if not top <= y <= bottom else 0.0
                if near < r and left < x < right:  # the centre's own words: all corners inside the circle
                    far = max(abs(top - y), abs(bottom - y))
                    assert far**2 + ((right - left) / 2) ** 2 <= r**2
    for left, right, top, bottom in texts:  # a text stands in a shape or beside it, never across its edge
        for x1, x2, y1, y2 in shapes:
            apart = right <= x1 or x2 <= left or bottom <= y1 or y2 <= top
            assert apart or (x1 <= left and right <= x2 and y1 <= top and bottom <= y2)


# What DejaVu Sans 2.37 and its bold face take, in ems (from the fonts' own tables).
FONT = [
    ("The quick brown fox jumps over the lazy dog.", 22.86, 25.72),
    ("WITH CAPITALS ONLY, 1234567890", 17.75, 19.85),
    ("if a < b && c > d: print(x)", 12.90, 14.38),
    ("Съешь ещё этих мягких французских булок, да выпей чаю.", 31.64, 34.93),
    ("ШИРОКАЯ ЭЛЕКТРИФИКАЦИЯ ЮЖНЫХ ГУБЕРНИЙ", 26.09, 29.47),
    ("wwwmmm www.example.org/mmm", 18.02, 19.94),
    ("illicit still filling", 7.45, 8.82),
    ("человеконенавистничество", 14.63, 15.95),
]


@pytest.mark.parametrize(("text", "regular", "bold"), FONT)
def test_a_text_is_never_measured_too_short(text: str, regular: float, bold: float) -> None:
    assert regular <= ems(text) <= 1.16 * regular
    assert bold <= ems(text, bold=True) <= 1.16 * bold


def test_forms() -> None:
    assert render_form(SCENE, "text") == render_form(SCENE, "auto") == scene_text(SCENE)
    assert scene_text(SCENE).startswith("Ты не знаешь")
    assert scene_text(SCENE).endswith("(Я ответил страху.)")
    assert Scene.from_dict(yaml.safe_load(render_form(SCENE, "yaml"))) == SCENE
    assert Scene.from_dict(json.loads(render_form(SCENE, "json"))) == SCENE
    assert render_form(SCENE, "image").startswith("<svg ")
    with pytest.raises(ValueError, match="unknown form"):
        render_form(SCENE, "poem")


def test_card() -> None:
    assert card_lines(SCENE.to_dict()) == [
        "actors     you: архитектор · inner voice: тревога",
        "tension    уверенность vs усталость",
        "archetype  инициатор, пилигрим",
        "centre     воля продолжать",
        "aside      Я ответил страху.",
    ]
    assert card_lines({"tension": "one two three vs four five", "response": "x"}, 32) == [
        "tension    one two three vs four",
        "           five",
    ]
    for scene in HOSTILE:
        assert all(text_width(line) <= 76 for line in card_lines(scene.to_dict()))


def test_wrap() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("  code here", 20) == ["  code here"]
    assert wrap("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrap("漢字漢字", 4) == ["漢字", "漢字"]
    assert wrap("👩‍🚀👩‍🚀e\u0301e\u0301", 3) == ["👩‍🚀", "👩‍🚀e\u0301", "e\u0301"]
    assert wrap("a\n\nb", 9) == ["a", "", "b"]
    assert wrap("one two three four", 8, 2) == ["one two", "three…"]
    assert wrap("", 5) == [""]
