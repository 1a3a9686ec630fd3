"""Renderings: well-formed whatever the text, everything of the scene in them, nothing outside the paper."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from ltm_edge.scene.record import Scene
from ltm_edge.scene.render import card_lines, render_form, scene_svg, scene_text, text_width, wrap

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
        x, y, room = float(node.attrib["x"]), float(node.attrib["y"]), text_width(node.text or "") * size * 0.56
        left = {"start": x, "middle": x - room / 2, "end": x - room}[node.attrib["text-anchor"]]
        assert left >= -1, node.text
        assert left + room <= width + 1, node.text
        assert 0 < y <= height
    for node in root.iter(f"{NS}rect"):
        assert float(node.attrib.get("x", 0)) >= 0
        assert float(node.attrib.get("x", 0)) + float(node.attrib["width"]) <= width
    assert len(svg) < 200_000


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
    assert wrap("a\n\nb", 9) == ["a", "", "b"]
    assert wrap("one two three four", 8, 2) == ["one two", "three…"]
    assert wrap("", 5) == [""]
