"""Template to GBNF: what it emits loads as it is spelled, what isn't right is refused, nothing is unbounded."""

from __future__ import annotations

import itertools
import random
import re
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from ltm_edge.errors import GrammarError
from ltm_edge.grammar import Grammar, template_gbnf
from ltm_edge.grammar.template import document_gbnf
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.field import parse_field
from ltm_edge.schemas.template import (
    Template,
    check_scene,
    parse_template,
    scene_document,
    smallest_document,
    smallest_scene,
)
from tests.gbnf_oracle import Oracle, Reader, mutations, sample_document

HERE = Path(__file__).parent
OVERLAY = HERE.parent / "ltm_edge" / "overlay"
GOLDEN = HERE / "golden"

DOCUMENTS = 22_000
MUTATIONS = 24_000

OWN_TEMPLATES = {
    "small-bounds": """
        actors: {kind: roles, min: 1, max: 1, max_chars: 1}
        tension: {kind: poles, max_chars: 6}
        archetype: {kind: choice, from: archetypes, min: 1, max: 1}
        resonance_center: {kind: line, max_chars: 2}
        response: {kind: block, min_lines: 1, max_lines: 1, max_chars: 1}
    """,
    "code-and-free-words": """
        archetype: {kind: choice, from: any, min: 2, max: 3, max_chars: 9}
        response: {kind: block, min_lines: 2, max_lines: 5, max_chars: 12, code: true}
        actors: {kind: roles, min: 2, max: 3, max_chars: 3}
        tension: {kind: poles, max_chars: 21}
        resonance_center: {kind: line, max_chars: 3}
        self_commentary: {kind: line, max_chars: 5, optional: true}
    """,
    "line-response": """
        response: {kind: line, max_chars: 200}
        self_commentary: {kind: line, max_chars: 40}
        archetype: {kind: choice, from: archetypes, min: 2, max: 3}
        tension: {kind: poles, max_chars: 60}
        actors: {kind: roles, min: 1, max: 8, max_chars: 20}
        resonance_center: {kind: line, max_chars: 1}
    """,
}


def own_template(name: str) -> Template:
    fields = OWN_TEMPLATES[name]
    return parse_template(
        f"version: 1\nname: {name}\nabout: a template of the tests\n"
        f"archetypes: [guard, guardian, child, fool]\nfields:\n{fields}"
    )


@lru_cache(maxsize=1)
def archetype_names() -> dict[str, dict[str, str]]:
    architecture = parse_field((OVERLAY / "field_architecture.yaml").read_bytes())
    return {lang: architecture.archetype_names(lang) for lang in ("en", "ru")}


PACKAGED = {file.stem: file for file in sorted((OVERLAY / "scene_templates").glob("*.yaml"))}
NAMES = [*PACKAGED, *OWN_TEMPLATES]


@lru_cache(maxsize=64)
def template(name: str) -> Template:
    return parse_template(PACKAGED[name].read_bytes(), name) if name in PACKAGED else own_template(name)


def names_in(name: str, lang: str) -> dict[str, str]:
    return archetype_names()[lang] if name in PACKAGED else {}


@lru_cache(maxsize=64)
def oracle(name: str, lang: str = "en") -> Oracle:
    return Oracle(template(name), names_in(name, lang))


def assert_loads_as_spelled(text: str, scene: Scene, spec: Template) -> object:
    block = spec.fields["response"].kind == "block"
    expected = {
        "actors": [{role: who} for role, who in scene.actors],
        "tension": scene.tension,
        "archetype": ", ".join(scene.archetype),
        "resonance_center": scene.resonance_center,
        "response": scene.response + "\n" if block else scene.response,
    }
    if scene.self_commentary is not None:
        expected["self_commentary"] = scene.self_commentary
    loaded = yaml.safe_load(text)
    assert loaded == {"scene": expected}, text
    assert list(loaded["scene"]) == [key for key in spec.fields if key in expected]
    return loaded


def test_there_are_templates_to_test() -> None:
    assert len(PACKAGED) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_random_documents_load_as_they_are_spelled(name: str) -> None:
    rng = random.Random(f"documents {name}")
    each = -(-DOCUMENTS // len(NAMES))
    for i in range(each):
        lang = ("en", "ru")[i % 2]
        edge = "longest" if i % 400 == 7 else "shortest" if i % 100 == 3 else "mixed"
        text, scene = sample_document(oracle(name, lang), rng, edge)
        loaded = assert_loads_as_spelled(text, scene, template(name))
        assert scene_document(template(name), scene) == text
        assert check_scene(template(name), scene, names_in(name, lang)) == []
        if i % 8 == 0:
            assert Scene.from_yaml(text) == scene
            assert oracle(name, lang).accepts(text)
        if i % 50 == 0:
            assert yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) == loaded


@pytest.mark.parametrize("name", NAMES)
def test_mutations_are_refused_or_load_to_what_the_schema_accepts(name: str) -> None:
    rng = random.Random(f"mutations {name}")
    each = -(-MUTATIONS // len(NAMES))
    accepted = done = 0
    while done < each:
        lang = ("en", "ru")[done % 2]
        text, _ = sample_document(oracle(name, lang), rng)
        source = mutations(text, rng)
        for _ in range(20):
            mutant = next(source)
            done += 1
            if not oracle(name, lang).accepts(mutant):
                continue
            accepted += 1
            scene = Scene.from_dict(yaml.safe_load(mutant))
            assert check_scene(template(name), scene, names_in(name, lang)) == [], mutant
            assert scene_document(template(name), scene) == mutant
    # Both outcomes must occur, or the test shows nothing.
    assert each * 0.01 < accepted < each * 0.7


@pytest.mark.parametrize("name", NAMES)
def test_longest_texts_keep_their_bounds(name: str) -> None:
    spec = template(name)
    _, scene = sample_document(oracle(name), random.Random(5), "longest")
    fields = spec.fields
    assert len(scene.actors) == fields["actors"].max
    assert all(len(who) == fields["actors"].max_chars and len(role) <= 24 for role, who in scene.actors)
    assert fields["tension"].max_chars - 1 <= len(scene.tension) <= fields["tension"].max_chars
    assert len(scene.resonance_center) == fields["resonance_center"].max_chars
    if fields["response"].kind == "block":
        lines = [line for line in scene.response.split("\n") if line]
        assert len(lines) == fields["response"].max_lines
        assert {len(line) for line in lines} == {fields["response"].max_chars}


@pytest.mark.parametrize("name", NAMES)
def test_one_more_than_the_bounds_is_refused(name: str) -> None:
    spec = template(name)
    text, scene = sample_document(oracle(name), random.Random(6), "longest")
    assert oracle(name).accepts(text)
    longer = {
        "actors": ((scene.actors[0][0], scene.actors[0][1] + "x"), *scene.actors[1:]),
        "resonance_center": scene.resonance_center + "x",
        "tension": scene.tension + "xx",
        "response": scene.response + "x",
    }
    from dataclasses import replace

    for key, value in longer.items():
        over = replace(scene, **{key: value})  # type: ignore[arg-type]
        assert not oracle(name).accepts(scene_document(spec, over)), key
        assert check_scene(spec, over, names_in(name, "en")), key
    more = replace(scene, actors=(*scene.actors, ("you", "x")))
    assert not oracle(name).accepts(scene_document(spec, more))


@pytest.mark.parametrize("name", NAMES)
def test_smallest_document(name: str) -> None:
    spec, names = template(name), names_in(name, "ru")
    text = smallest_document(spec, names)
    assert oracle(name, "ru").accepts(text)
    assert Scene.from_yaml(text) == smallest_scene(spec, names)
    rng = random.Random(9)
    shortest = min(len(sample_document(oracle(name, "ru"), rng, "shortest")[0].encode()) for _ in range(200))
    assert len(text.encode()) <= shortest


ROLES_REFUSED = [
    "yes", "no", "true", "false", "null", "on", "off", "y", "n", "", "_a", "a b", "A", "Yes", "no:", "-", "a-b", "é",
    "~", "1", "a1", "a.b", "x" * 25, "漢", "a\u00a0b", "ё" * 25, "nul l", "<<", "=", "да ",
]  # fmt: skip
ROLES_TAKEN = [
    "you", "inner_voice", "тревога", "внутренний_голос", "nope", "offer", "once", "ons", "one", "nulls", "nul", "yesno",
    "ye", "tru", "truth", "trues", "falsely", "fals", "f", "t", "o", "ya", "na", "ny", "yn", "no_", "off_", "on_off",
    "null_null", "ё", "їжак", "нет", "да", "a__", "nо",
]  # fmt: skip


def with_role(role: str) -> str:
    return smallest_document(template("initiation"), names_in("initiation", "en")).replace("- a:", f"- {role}:")


@pytest.mark.parametrize("role", ROLES_REFUSED)
def test_roles_that_yaml_would_read_otherwise_are_refused(role: str) -> None:
    assert not oracle("initiation").accepts(with_role(role))


@pytest.mark.parametrize("role", ROLES_TAKEN)
def test_roles_near_them_are_taken(role: str) -> None:
    text = with_role(role)
    assert oracle("initiation").accepts(text)
    assert yaml.safe_load(text)["scene"]["actors"] == [{role: "a"}]


EXCLUDED = [
    *range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
    0xE000, 0xF8FF, *range(0xFDD0, 0xFDF0), *range(0xFFF0, 0x10000),
    *(plane << 16 | end for plane in range(1, 17) for end in (0xFFFE, 0xFFFF)), 0xE0001, 0x10FFFD,
]  # fmt: skip


def test_excluded_characters_stand_nowhere() -> None:
    base = smallest_document(template("initiation"), names_in("initiation", "en"))
    spots = ['center: "a', "\n    a", '"a vs a', 'a: "a']
    for code in EXCLUDED:
        for spot in spots:
            if code == 0x0A and spot.startswith("\n"):
                continue
            mutant = base.replace(spot, spot + chr(code) + "a", 1)
            assert mutant != base
            assert not oracle("initiation").accepts(mutant), f"U+{code:04X} after {spot!r}"


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u1680", "\u2003", "\u200b", "\u200f", "\u202f", "\u205f", "\u3000"])
def test_no_text_begins_or_ends_with_a_blank(blank: str) -> None:
    base = smallest_document(template("initiation"), names_in("initiation", "en"))
    for old, new in [
        ('center: "a"', f'center: "{blank}a"'),
        ('center: "a"', f'center: "a{blank}"'),
        ('center: "a"', f'center: "{blank}"'),
        ('"a vs a"', f'"a{blank} vs a"'),
        ('"a vs a"', f'"a vs {blank}a"'),
        ("\n    a\n", f"\n    {blank}a\n"),
        ("\n    a\n", f"\n    a{blank}\n"),
        ("\n    a\n", f"\n    a\n    {blank}a\n"),
        ("\n    a\n", f"\n    a\n    {blank}\n"),
    ]:
        assert old in base
        assert not oracle("initiation").accepts(base.replace(old, new)), new
    inside = base.replace('center: "a"', f'center: "a{blank}a"')
    assert oracle("initiation").accepts(inside)
    assert yaml.safe_load(inside)["scene"]["resonance_center"] == f"a{blank}a"


CODE_BODIES = {
    "    a\n    b\n": "a\nb",
    "    a\n        b\n": "a\n    b",
    "    a\n\n    b\n": "a\n\nb",
    "    a\n\n            b\n    c\n": "a\n\n        b\nc",
    "    a\n    - b: c\n": "a\n- b: c",
    "    a\n    # no comment\n": "a\n# no comment",
    '    a\n    "\\n"\n': 'a\n"\\n"',
    "    ---\n    ...\n": "---\n...",
    "    %YAML\n    |\n": "%YAML\n|",
}


@pytest.mark.parametrize("body", CODE_BODIES)
def test_code_in_a_block(body: str) -> None:
    spec = template("code-and-free-words")
    text = smallest_document(spec).replace("    a\n    a\n", body)
    assert oracle("code-and-free-words").accepts(text)
    assert yaml.safe_load(text)["scene"]["response"] == CODE_BODIES[body] + "\n"


@pytest.mark.parametrize(
    "body",
    [
        "     a\n    b\n",
        "\n    a\n    b\n",
        "    a\n    b\n\n",
        "    a\n\n\n    b\n",
        "    a\n    \n    b\n",
        "    a\n",
    ],
)
def test_blocks_that_would_load_otherwise_are_refused(body: str) -> None:
    text = smallest_document(template("code-and-free-words")).replace("    a\n    a\n", body)
    assert not oracle("code-and-free-words").accepts(text)


def test_names_differ_and_are_those_of_the_language() -> None:
    base = smallest_document(own_template("line-response"))
    head = re.search(r'archetype: "(.*)"', base)
    assert head
    for value, right in {
        "guard, guardian": True,
        "guardian, guard, fool": True,
        "guard, guard": False,
        "guard": False,
        "guard, child, guard": False,
        "guard,child": False,
        "guard, child, fool, guardian": False,
    }.items():
        assert oracle("line-response").accepts(base.replace(head[1], value)) is right, value
    russian = template_gbnf(own_template("line-response"), {"guard": "страж", "fool": "страж"})
    assert '"страж"' in russian
    assert '"guard"' not in russian
    names = next(line for line in russian.splitlines() if line.startswith("names ::="))
    assert names.count('"страж"') == 1  # two ids of one name are offered once


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a, b", "", " a", "a\nb", "a\u2028b", "a\tb", "\ufeffa"])
def test_names_that_cannot_be_written_are_refused(name: str) -> None:
    with pytest.raises(GrammarError, match="archetype name"):
        template_gbnf(own_template("line-response"), {"guard": name})


def test_too_few_different_names_are_refused() -> None:
    same = dict.fromkeys(("guard", "guardian", "child", "fool"), "страж")
    with pytest.raises(GrammarError, match="1 different"):
        template_gbnf(own_template("line-response"), same)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", ["en", "ru"])
def test_the_form_of_the_grammar(name: str, lang: str) -> None:
    """Bounded, regular, kebab-case, every rule defined, used and defined once; within llama.cpp's limits."""
    text = oracle(name, lang).gbnf
    assert text == template_gbnf(template(name), names_in(name, lang))
    rules = Reader(text).rules
    used = {"root"}

    def visit(node: tuple, repeated: int) -> None:  # type: ignore[type-arg]
        if node[0] == "ref":
            used.add(node[1])
        elif node[0] in ("seq", "alt"):
            for item in node[1]:
                visit(item, repeated)
        elif node[0] == "rep":
            assert node[3] <= 2000
            assert node[1][0] in ("ref", "alt", "lit"), "a repeated group multiplies llama.cpp's rules"
            if node[1][0] != "ref":
                assert node[3] == 1
            visit(node[1], repeated * node[3])

    for rule, body in rules.items():
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", rule)
        visit(body, 1)
    assert used == set(rules)
    assert next(iter(rules)) == "root"
    assert len(text) < 16_000


@pytest.mark.parametrize("name", [*OWN_TEMPLATES, "golden-scene"])
def test_golden(name: str) -> None:
    """The grammar of a template is part of the format: a change of it is a change to be seen."""
    spec = parse_template((GOLDEN / "golden-scene.yaml").read_bytes()) if name == "golden-scene" else own_template(name)
    names = {"initiator": "инициатор", "pilgrim": "пилигрим"} if name == "golden-scene" else None
    assert template_gbnf(spec, names) == (GOLDEN / f"{name}.gbnf").read_text(encoding="utf-8")


def test_a_documents_own_grammar_accepts_it_alone() -> None:
    rng = random.Random(4)
    template = parse_template((OVERLAY / "scene_templates" / "refusal.yaml").read_text("utf-8"))
    said = [scene_document(template, answer) for answer in template.answer.values()]
    for text in (*said, 'a "b" \\ c\n\tñ\U0001f331'):
        grammar = Grammar.from_gbnf(document_gbnf(text))
        assert grammar.accepts(text.encode())
        changed = [other for other in itertools.islice(mutations(text, rng), 300) if other != text]
        assert not [other for other in changed if grammar.accepts(other.encode("utf-8", "surrogatepass"))]
