"""Overlay, field architecture, curriculum, template: defaults, bounds, and all problems at once."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from ltm_edge.errors import SchemaError
from ltm_edge.schemas.curriculum import parse_curriculum
from ltm_edge.schemas.field import ChannelZone, WillZone, parse_field
from ltm_edge.schemas.overlay import parse_overlay
from ltm_edge.schemas.template import BlockSpec, ChoiceSpec, parse_template

OVERLAY = """\
ltm_overlay:
  version: 1
  name: ltm-vortex-135m
  self_loop: {enabled: true, max_passes: 2, accept: 0.6}
  critics:
    insight_seeker: {enabled: true, threshold: 0.5}
    obstructio:     {enabled: true, threshold: 0.2, refuse_below: 0.02}
    recursia:       {enabled: true, max_similarity: 0.92, max_depth: 3}
  consilium: {enabled: auto, channels: 4, entropy: 0.85}
  routing:   {temperature: 0.1, step: 0.25, inputs: true, heads: true}
  memory:    {recall: 4, chain_depth: 2, budget_tokens: 384, half_life_days: 30,
              weights: {meaning: .61, words: .13, tension: .09, center: .04, archetype: .08, recency: .03,
                        strength: .02}}
  response:  {form: auto, self_commentary: auto}
  sampling:  {temperature: 0.7, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.1, max_tokens: 320, seed: null}
  embedder:  {file: embedder.gguf}
"""

FIELD = """\
field:
  version: 1
  zones:
    logician:  {kind: channel, directive: "Count.", anchors: ["how many", "prove"], adapter: channels/logician.gguf,
                max_scale: 1.0, sampling: {temperature: 0.3}}
    poet:      {kind: channel, directive: {en: "Sing.", ru: "Пой."}, anchors: {en: ["a song"], ru: ["песня"]}}
    memory:    {kind: memory}
    will:      {kind: will, decay: 0.9}
  links: [{from: memory, to: poet, weight: 0.4}, {from: will, to: logician, weight: 0.3}]
  archetypes:
    initiator: {anchors: ["beginning something"], names: {ru: "инициатор"}}
    inner_child: {anchors: {ru: ["детство"]}}
  phases: {myth: {anchors: ["something begins"]}}
  wishes: {en: [I want to]}
  dynamics: {gravity: 0.2}
"""

CURRICULUM = """\
curriculum:
  version: 1
  phases:
    - {phase: myth, archetypes: [pilgrim], tasks: {restore: 0.6, create: 0.3, hold: 0.1}, learning_rate: 1e-5}
    - {phase: irony}
  data: [scenes/myth.yaml, scenes/*.yaml]
"""

TEMPLATE = """\
version: 1
name: initiation
about: a threshold; something begins or is refused
phases: [myth, drama]
archetypes: [initiator, pilgrim, guardian]
fields:
  actors:           {kind: roles, min: 1, max: 4, max_chars: 60}
  tension:          {kind: poles, max_chars: 48}
  archetype:        {kind: choice, from: archetypes, min: 1, max: 2}
  resonance_center: {kind: line, max_chars: 90}
  self_commentary:  {kind: line, max_chars: 120, optional: true}
  response:         {kind: block, min_lines: 1, max_lines: 6, max_chars: 240}
anchors: [I want to begin]
directive: {en: Write well., ru: Пиши хорошо.}
examples:
  - pvq: Хочу начать, но боюсь.
    scene: {actors: [{you: новичок}], tension: "шаг vs страх", archetype: шут, resonance_center: шаг, response: Иди.}
  - pvq: {text: "I am tired.", phase: drama}
    scene: {actors: [{you: walker}], tension: "go vs rest", archetype: pilgrim, resonance_center: rest, response: Rest.}
"""


def test_overlay() -> None:
    overlay = parse_overlay(OVERLAY)
    assert overlay.memory.weights.meaning == 0.61
    assert overlay.sampling.seed is None
    assert overlay.embedder.file == "embedder.gguf"
    bare = parse_overlay("ltm_overlay: {version: 1, name: x}")
    assert (bare.critics, bare.memory, bare.consilium) == (overlay.critics, overlay.memory, overlay.consilium)
    assert parse_overlay("ltm_overlay: {version: 1, name: x, consilium: {enabled: false}}").consilium.enabled == "never"
    with pytest.raises(FrozenInstanceError):
        overlay.name = "y"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(overlay)) == overlay


def test_field() -> None:
    field = parse_field(FIELD)
    assert list(field.channels) == ["logician", "poet"]
    poet, will = field.zones["poet"], field.zones["will"]
    assert isinstance(poet, ChannelZone)
    assert poet.directive["ru"] == "Пой."
    assert field.channels["logician"].anchors == {"en": ("how many", "prove")}
    assert field.channels["logician"].sampling.to_dict() == {"temperature": 0.3}
    assert isinstance(will, WillZone)
    assert (field.links[0].source, field.links[0].target, field.links[0].weight) == ("memory", "poet", 0.4)
    assert field.archetype_names("ru") == {"initiator": "инициатор", "inner_child": "inner child"}
    assert field.phases["myth"].anchors == {"en": ("something begins",)}
    assert field.wishes == {"en": ("I want to",)}
    assert (field.dynamics.gravity, field.dynamics.rate, field.decay) == (0.2, 0.5, 0.9)
    assert pickle.loads(pickle.dumps(field)) == field


def test_the_packaged_field_says_what_is_built_in() -> None:
    text = (Path(__file__).parents[2] / "ltm_edge" / "overlay" / "field_architecture.yaml").read_text("utf-8")
    field = parse_field(text)
    built_in = parse_field("field: {version: 1, zones: {memory: {kind: memory}}}")
    assert (field.dynamics, field.routes, field.choosing) == (built_in.dynamics, built_in.routes, built_in.choosing)
    assert built_in.decay == 0.0
    for part in (field.dynamics, field.routes, field.choosing):
        assert all(f"    {key}: " in text for key in part.__slots__)


def test_curriculum() -> None:
    curriculum = parse_curriculum(CURRICULUM)
    assert curriculum.phases[0].learning_rate == 1e-5
    assert curriculum.phases[1].tasks.create == 0.5
    assert curriculum.data == ("scenes/myth.yaml", "scenes/*.yaml")


def test_template() -> None:
    template = parse_template(TEMPLATE)
    assert list(template.fields) == [
        "actors", "tension", "archetype", "resonance_center", "self_commentary", "response",
    ]  # fmt: skip
    response, archetype = template.fields["response"], template.fields["archetype"]
    assert isinstance(response, BlockSpec)
    assert not response.code
    assert isinstance(archetype, ChoiceSpec)
    assert archetype.source == "archetypes"
    assert template.anchors == {"en": ("I want to begin",)}
    assert template.examples["ru"][0].pvq.text == "Хочу начать, но боюсь."
    assert template.examples["en"][0].pvq.phase == "drama"
    assert template.languages == ("en", "ru")
    assert pickle.loads(pickle.dumps(template)) == template


Parse = Callable[[str, str], object]

# (parser, text, place and beginning of each problem, in order)
BAD: list[tuple[Parse, str, list[str]]] = [
    (
        parse_overlay,
        """\
ltm_overlay:
  version: 1
  name: x
  self_lop: {}
  critics:
    recursia: {enabled: yes, max_depht: 3}
    obstructio: {threshold: 0.01}
  sampling: {temperature: hot, seed: -1, max_tokens: 1.5}
  memory: {weights: {meaning: 0.9}}
  embedder: {file: ../x}
  routing: 5
""",
        [
            "4:3: ltm_overlay.self_lop: unknown key; did you mean 'self_loop'?",
            "6:16: ltm_overlay.critics.recursia.enabled: found 'yes'; expected true or false",
            "6:30: ltm_overlay.critics.recursia.max_depht: unknown key; did you mean 'max_depth'?",
            "7:5: ltm_overlay.critics.obstructio: refuse_below 0.02 is over threshold 0.01",
            "8:14: ltm_overlay.sampling.temperature: found 'hot'; expected a number",
            "8:32: ltm_overlay.sampling.seed: found -1; must be at least 0",
            "8:42: ltm_overlay.sampling.max_tokens: found 1.5; expected a whole number",
            "9:12: ltm_overlay.memory.weights: the weights sum to 1.29; they must sum to 1",
            "10:14: ltm_overlay.embedder.file: '../x' must be a path inside the bundle",
            "11:3: ltm_overlay.routing: found 5; expected a mapping",
        ],
    ),
    (parse_overlay, "ltm_overlay: {version: 2, name: x}", ["1:15: ltm_overlay.version: version 2 is newer than"]),
    (parse_overlay, "ltm_overlay: {version: one, name: x}", ["1:15: ltm_overlay.version: found 'one'"]),
    (parse_overlay, "ltm_overlay: {name: x}", ["1:1: ltm_overlay.version: missing; write version: 1"]),
    (parse_overlay, "ltm_overlay: {version: 1}", ["1:1: ltm_overlay.name: missing; it is required"]),
    (parse_overlay, "ltm_overlya: {version: 1}", ["1:1: ltm_overlya: unknown key", "1:1: the key ltm_overlay"]),
    (parse_overlay, "- 1", ["1:1: found a list; expected a mapping with the key ltm_overlay"]),
    (parse_overlay, "", ["found nothing"]),
    (
        parse_overlay,
        "ltm_overlay: {version: 1, name: x, sampling: {temperature: .nan}}",
        ["1:47: ltm_overlay.sampling"],
    ),
    (
        parse_field,
        """\
field:
  version: 1
  zones:
    poet: {kind: chanel}
    Bad Name: {kind: memory}
    odd: {directive: x}
    will: {kind: will, decay: 2, dekay: 1}
    ironist: {kind: channel, directive: {english: x}, adapter: /etc/passwd, sampling: {temprature: 1}}
  links: [{from: will, to: poet, weight: heavy}, {source: will, to: poet, weight: 1}]
  archetypes:
    fool: {names: {ru: "шут, дурак"}}
""",
        [
            "4:5: field.zones.poet: kind: found 'chanel'; did you mean 'channel'?",
            "5:5: field.zones.Bad Name",
            "6:5: field.zones.odd: kind: missing",
            "7:24: field.zones.will.decay: found 2; must be at most 1",
            "7:34: field.zones.will.dekay: unknown key; did you mean 'decay'?",
            "8:",
            "8:",
            "8:",
            "9:",
            "9:",
            "9:",
            "11:12: field.archetypes.fool.names: the name 'шут, дурак' has a comma in it",
        ],
    ),
    (
        parse_field,
        "field: {version: 1, zones: {will: {kind: will}}, links: [{from: wil, to: will, weight: 1}]}",
        ["1:59: field.links[0].from: no zone named 'wil'; did you mean 'will'?"],
    ),
    (
        parse_field,
        """\
field:
  version: 1
  zones: {poet: {kind: channel, archetypes: {sage: 2}}}
  phases: {mith: {anchors: {en: [x]}}}
  dynamics: {rate: 2, gravitation: 1}
  routes: {steps: 17}
  choosing: {nearest: 0}
""",
        [
            "3:46: field.zones.poet.archetypes.sage: found 2; must be at most 1",
            "4:12: field.phases.mith: ",
            "5:14: field.dynamics.rate: found 2; must be at most 1",
            "5:23: field.dynamics.gravitation: unknown key; did you mean 'gravity'?",
            "6:12: field.routes.steps: found 17; must be at most 16",
            "7:14: field.choosing.nearest: found 0; must be at least 1",
        ],
    ),
    (
        parse_field,
        "field: {version: 1, zones: {poet: {kind: channel, archetypes: {sag: 1}}}, archetypes: {sage: {}}}",
        ["1:64: field.zones.poet.archetypes.sag: no archetype named 'sag'; did you mean 'sage'?"],
    ),
    (
        parse_curriculum,
        "curriculum: {version: 1, phases: [{phase: mith, tasks: {restore: 1}}], data: []}",
        [
            "1:36: curriculum.phases[0].phase: found 'mith'; did you mean 'myth'?",
            "1:49: curriculum.phases[0].tasks: the shares sum to 1.7",
            "1:72: curriculum.data: 0 entries; must be at least 1",
        ],
    ),
]


@pytest.mark.parametrize(("parse", "text", "expected"), BAD, ids=range(len(BAD)))
def test_all_problems_with_places(parse: Parse, text: str, expected: list[str]) -> None:
    with pytest.raises(SchemaError) as caught:
        parse(text, "f.yaml")
    found = [str(problem).removeprefix("f.yaml:").strip() for problem in caught.value.problems]
    assert len(found) == len(expected), found
    for one, start in zip(found, expected, strict=True):
        assert one.startswith(start), found


TEMPLATE_BAD = [
    ("max: 4, max_chars: 60", "max: 0, max_chars: 60", "fields.actors.max: found 0; must be at least 1"),
    ("min: 1, max: 4", "min: 5, max: 4", "fields.actors: min 5 is over max 4"),
    ("kind: poles", "kind: pole", "fields.tension: kind: found 'pole'; did you mean 'poles'?"),
    ("kind: poles", "kind: line", "fields.tension.kind: found 'line'; tension is of kind poles"),
    ("from: archetypes", "from: somewhere", "fields.archetype.from: found 'somewhere'; known are archetypes, any"),
    ("from: archetypes", "source: any", "fields.archetype.source: unknown key"),
    ("max_lines: 6", "max_lines: 6000", "fields.response.max_lines: found 6000; must be at most 100"),
    ("max_chars: 240", "max_chars: 2000", "fields.response.max_chars: found 2000; must be at most 1000"),
    ("  tension:          {kind: poles, max_chars: 48}\n", "", "fields.tension: missing; it is required"),
    (
        "  resonance_center:",
        "  resonance_centre:",
        "fields.resonance_centre: unknown field; did you mean 'resonance_center'?",
    ),
    ("kind: poles, max_chars: 48", "kind: poles, optional: true", "fields.tension.optional: found true"),
    ("archetypes: [initiator, pilgrim, guardian]", "archetypes: []", "fields.archetype.from: chooses from archetypes"),
    ("[initiator, pilgrim,", "[initiator, initiator,", "archetypes[1]: 'initiator' is listed twice"),
    ("phases: [myth, drama]", "phases: [myth, tragedy]", "phases[1]: found 'tragedy'"),
    ("name: initiation", "name: Über", "name: found 'Über'; expected a name of small Latin letters"),
    ("version: 1", "version: 3", "version: version 3 is newer than this release can read (1); update ltm-edge"),
    ("about: a threshold; something begins or is refused\n", "", "about: missing; it is required"),
    ("directive: {en: Write", "directive: {English: Write", "directive.English"),
    ("response: Rest.", "respond: Rest.", "examples[1].scene.respond: unknown key; did you mean 'response'?"),
    ("response: Rest.", "response: 5", "examples[1].scene.response: found 5; expected text, so put it in quotes"),
    ('"go vs rest"', '"go or rest"', "examples.tension: has no two poles"),
    ("phase: drama}", "phase: dramma}", "examples[1].pvq.phase: found 'dramma'; did you mean 'drama'?"),
    ("pvq: Хочу начать, но боюсь.", "pvq: ''", "examples[0].pvq: the request is empty"),
]


@pytest.mark.parametrize(("old", "new", "message"), TEMPLATE_BAD, ids=range(len(TEMPLATE_BAD)))
def test_template_problems(old: str, new: str, message: str) -> None:
    assert old in TEMPLATE
    with pytest.raises(SchemaError) as caught:
        parse_template(TEMPLATE.replace(old, new), "t.yaml")
    assert any(f": {message}" in str(problem) for problem in caught.value.problems), caught.value.problems
    assert all(problem.line for problem in caught.value.problems)


def test_template_problems_come_together() -> None:
    text = TEMPLATE
    for old, new, _ in (TEMPLATE_BAD[0], TEMPLATE_BAD[6], TEMPLATE_BAD[19], TEMPLATE_BAD[21]):
        text = text.replace(old, new)
    with pytest.raises(SchemaError) as caught:
        parse_template(text)
    assert len(caught.value.problems) == 4


PIECES = [
    "{", "}", "[", "]", ":", ": ", "- ", "\n", "  ", "'", '"', "|", "&a ", "*a", "!x ", "#", "? ", ">", "%", "@", "`",
    "\t", "\x00", "é", "1e5", "true", "null", "~", "-", ",", "...", "---\n", "\x85", "\u2028", "\ud800", "9" * 70,
    "enabled", "version", "<<", "",
]  # fmt: skip


def test_damaged_files_raise_nothing_but_schema_errors() -> None:
    rng = random.Random(4)
    files = [(parse_overlay, OVERLAY), (parse_field, FIELD), (parse_template, TEMPLATE), (parse_curriculum, CURRICULUM)]
    for i in range(1200):
        parse, text = files[i % len(files)]
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(PIECES) + text[at + rng.choice([0, 0, 1, 3, 10]) :]
        try:
            parse(text, "f.yaml")  # type: ignore[operator]
        except SchemaError as error:
            assert error.problems
            assert "\n" not in str(error)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "ltm_edge" / "overlay").rglob("*.yaml")), ids=str)
def test_packaged_files_load(file: Path) -> None:
    raw = file.read_bytes()
    if file.parent.name == "scene_templates":
        assert parse_template(raw, str(file)).name == file.stem
    elif file.name == "field_architecture.yaml":
        assert {"logician", "poet", "archetype", "ironist"} <= set(parse_field(raw, str(file)).channels)
    elif file.name == "ltm_overlay_config.yaml":
        parse_overlay(raw, str(file))
