"""The scene template (форма мышления): fields of one kind of scene, their order and their bounds.

Bounds are strict: a text of a field is never longer than its `max_chars`, in characters (code points). For a block
`max_chars` bounds each line and `max_lines` the lines that aren't empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field

from ltm_edge.errors import Problem, SchemaError
from ltm_edge.scene.charset import EDGE, LINE, QUOTE_MARKS, first_outside, in_ranges, without
from ltm_edge.scene.language import detect_language
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.scene.yaml_io import path_parts, write_scene
from ltm_edge.schemas.check import (
    STRICT,
    Flag,
    LangText,
    LangTexts,
    Name,
    Text,
    Whole,
    check_record,
    check_version,
    nearest,
    show,
)
from ltm_edge.schemas.yaml import YamlDocument, load_yaml

__all__ = [
    "BlockSpec",
    "ChoiceSpec",
    "Example",
    "FieldSpec",
    "LineSpec",
    "PolesSpec",
    "RolesSpec",
    "Template",
    "answer_document",
    "check_scene",
    "choice_names",
    "name_problem",
    "parse_template",
    "scene_document",
    "smallest_document",
    "smallest_scene",
]

FIELD_KINDS = {
    "actors": ("roles",),
    "tension": ("poles",),
    "archetype": ("choice",),
    "resonance_center": ("line",),
    "self_commentary": ("line",),
    "response": ("block", "line"),
}
OPTIONAL_FIELDS = ("self_commentary",)

_QUOTED = without(LINE, QUOTE_MARKS)

MAX_KEY_CHARS = 24
"""Longest role that a model may write, in characters."""

MAX_UNIQUE_CHOICE = 3
MAX_CHOICE_NAMES = 24

Phase = Literal["myth", "drama", "logic", "irony"]
LineChars = Annotated[Whole, Field(ge=1, le=1000)]


def _ordered(low: int, high: int, what: str) -> None:
    if low > high:
        raise ValueError(f"min{what} {low} is over max{what} {high}")


@dataclass(frozen=True, slots=True)
class RolesSpec:
    """A list of roles, each with a few words on who it is."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["roles"]
    min: Annotated[Whole, Field(ge=1, le=8)] = 1
    max: Annotated[Whole, Field(ge=1, le=8)] = 4
    max_chars: LineChars = 60
    optional: Literal[False] = False

    def __post_init__(self) -> None:
        _ordered(self.min, self.max, "")


@dataclass(frozen=True, slots=True)
class PolesSpec:
    """Two poles around `` vs ``; `max_chars` bounds the whole, half of the rest for each pole."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["poles"]
    max_chars: Annotated[Whole, Field(ge=6, le=1000)] = 48
    optional: Literal[False] = False

    @property
    def pole_chars(self) -> int:
        """Longest pole, in characters."""
        return (self.max_chars - len(" vs ")) // 2


@dataclass(frozen=True, slots=True)
class ChoiceSpec:
    """One or several different names: of the template's archetypes, or (from: any) free words."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["choice"]
    source: Annotated[Literal["archetypes", "any"], Field(alias="from")] = "archetypes"
    min: Annotated[Whole, Field(ge=1, le=MAX_UNIQUE_CHOICE)] = 1
    max: Annotated[Whole, Field(ge=1, le=MAX_UNIQUE_CHOICE)] = 2
    max_chars: Annotated[Whole, Field(ge=1, le=60)] = 24
    optional: Literal[False] = False

    def __post_init__(self) -> None:
        _ordered(self.min, self.max, "")


@dataclass(frozen=True, slots=True)
class LineSpec:
    """One line of text in quotes."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["line"]
    max_chars: LineChars = 120
    optional: Flag = False


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """Lines of text; with `code`, lines after the first may be indented and empty lines stand between others."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["block"]
    min_lines: Annotated[Whole, Field(ge=1, le=100)] = 1
    max_lines: Annotated[Whole, Field(ge=1, le=100)] = 6
    max_chars: LineChars = 240
    code: Flag = False
    optional: Literal[False] = False

    def __post_init__(self) -> None:
        _ordered(self.min_lines, self.max_lines, "_lines")


FieldSpec: TypeAlias = RolesSpec | PolesSpec | ChoiceSpec | LineSpec | BlockSpec


@dataclass(frozen=True, slots=True)
class Example:
    """One few-shot pair: a request and the scene that answers it."""

    pvq: Pvq
    scene: Scene


@dataclass(frozen=True, slots=True)
class _File:
    """A template file as it stands, before its examples and its answer are read."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    version: Whole
    name: Name
    about: Text
    fields: Mapping[str, Annotated[FieldSpec, Field(discriminator="kind")]]
    phases: tuple[Phase, ...] = ()
    archetypes: Annotated[tuple[Name, ...], Field(max_length=MAX_CHOICE_NAMES)] = ()
    examples: Any = None
    anchors: LangTexts = field(default_factory=dict)
    directive: LangText = field(default_factory=dict)
    answer: Any = None


@dataclass(frozen=True, slots=True)
class Template:
    """A scene template (форма мышления): what one kind of scene holds.

    Attributes:
        name: its name, as people ask for it.
        about: one sentence for people.
        phases: phases it belongs to, of myth, drama, logic, irony.
        archetypes: ids of the archetypes it has an affinity to.
        fields: bounds by field name, in the order in which they are written.
        examples: few-shot pairs by language.
        anchors: short texts typical of requests it is for, by language.
        directive: how to write this kind of scene, by language.
        answer: the scene that every request gets in place of one that the model writes, by language.
    """

    name: str
    about: str
    fields: Mapping[str, FieldSpec]
    phases: tuple[str, ...] = ()
    archetypes: tuple[str, ...] = ()
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    anchors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    directive: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, Scene] = field(default_factory=dict)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that the template has any words in, in alphabetical order."""
        return tuple(sorted({*self.examples, *self.anchors, *self.directive}))

    def answer_in(self, lang: str) -> Scene | None:
        """The scene with which the template answers itself in a language, or in English; None: the model writes one."""
        return self.answer.get(lang) or self.answer.get("en")


def name_problem(name: str) -> str:
    """Why a model couldn't write `name` in a comma-separated list, or nothing."""
    if not name:
        return "empty"
    if "," in name:
        return "has a comma in it"
    bad = first_outside(name, _QUOTED)
    if bad is not None:
        return f"has the character U+{ord(bad):04X} in it"
    if not (in_ranges(ord(name[0]), EDGE) and in_ranges(ord(name[-1]), EDGE)):
        return "begins or ends with a blank"
    return ""


def choice_names(template: Template, names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What the archetype field offers: the template's archetypes, by their name in `names` where it has one."""
    offered = [(names or {}).get(name, name) for name in template.archetypes]
    return tuple(dict.fromkeys(offered))


def _text_problem(text: str, limit: int, *, quoted: bool = True, indented: bool = False) -> str:
    if not text:
        return "empty"
    if len(text) > limit:
        return f"{len(text)} characters; at most {limit}"
    bad = first_outside(text, _QUOTED if quoted else LINE)
    if bad is not None:
        return f"has the character {bad!r} (U+{ord(bad):04X}), which a scene isn't written with"
    if not ((indented or in_ranges(ord(text[0]), EDGE)) and in_ranges(ord(text[-1]), EDGE)):
        return "begins or ends with a blank"
    return ""


def _block_problem(text: str, spec: BlockSpec) -> str:
    lines = text.split("\n")
    full = [line for line in lines if line]
    if not spec.min_lines <= len(full) <= spec.max_lines:
        return f"{len(full)} lines; from {spec.min_lines} to {spec.max_lines} are allowed"
    if not lines[0] or not lines[-1] or "\n\n\n" in text or (len(full) < len(lines) and not spec.code):
        return "has an empty line where none is allowed"
    for i, line in enumerate(lines):
        if not line:
            continue
        if complaint := _text_problem(line, spec.max_chars, quoted=False, indented=spec.code and i > 0):
            return f"line {i + 1}: {complaint}"
    return ""


def check_scene(template: Template, scene: Scene, names: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Where `scene` leaves the bounds of `template`, as (key path, message).

    Args:
        names: archetype id to name; None leaves the names unchecked, since they depend on the language.
    """
    problems: list[tuple[str, str]] = []
    for name, spec in template.fields.items():
        if isinstance(spec, RolesSpec):
            if not spec.min <= len(scene.actors) <= spec.max:
                problems.append((name, f"{len(scene.actors)} entries; from {spec.min} to {spec.max} are allowed"))
            for role, who in scene.actors:
                if len(role) > MAX_KEY_CHARS:
                    problems.append((f"{name}.{role}", f"a role of {len(role)} characters; at most {MAX_KEY_CHARS}"))
                if complaint := _text_problem(who, spec.max_chars):
                    problems.append((f"{name}.{role}", complaint))
        elif isinstance(spec, PolesSpec):
            if not all(scene.poles):
                problems.append((name, 'has no two poles; write "one vs other"'))
            elif complaint := _text_problem(scene.tension, spec.max_chars):
                problems.append((name, complaint))
            elif long := next((pole for pole in scene.poles if len(pole) > spec.pole_chars), None):
                problems.append((name, f"the pole {long!r} has {len(long)} characters; at most {spec.pole_chars}"))
        elif isinstance(spec, ChoiceSpec):
            if not spec.min <= len(scene.archetype) <= spec.max:
                problems.append((name, f"{len(scene.archetype)} names; from {spec.min} to {spec.max} are allowed"))
            offered = choice_names(template, names) if names is not None and spec.source == "archetypes" else None
            for item in scene.archetype:
                complaint = name_problem(item)
                if not complaint and offered is not None and item not in offered:
                    complaint = f"unknown{nearest(item, offered)}"
                if complaint:
                    problems.append((name, f"{item!r}: {complaint}"))
        else:
            value: str | None = getattr(scene, name)
            if value is None:
                if not spec.optional:
                    problems.append((name, "missing; the template requires it"))
                continue
            complaint = (
                _block_problem(value, spec) if isinstance(spec, BlockSpec) else _text_problem(value, spec.max_chars)
            )
            if complaint:
                problems.append((name, complaint))
    if scene.self_commentary is not None and "self_commentary" not in template.fields:
        problems.append(("self_commentary", "the template has no such field"))
    return problems


def _check_fields(document: YamlDocument, file: _File) -> list[Problem]:
    problems = []
    for name, spec in file.fields.items():
        path = ("fields", name)
        if name not in FIELD_KINDS:
            problems.append(document.problem(path, f"unknown field{nearest(name, list(FIELD_KINDS))}"))
            continue
        if spec.kind not in FIELD_KINDS[name]:
            wanted = " or ".join(FIELD_KINDS[name])
            problems.append(document.problem((*path, "kind"), f"found {spec.kind!r}; {name} is of kind {wanted}"))
        if spec.optional and name not in OPTIONAL_FIELDS:
            problems.append(document.problem((*path, "optional"), f"{name} can't be optional"))
        if isinstance(spec, ChoiceSpec) and spec.source == "archetypes":
            if not file.archetypes:
                message = "chooses from archetypes, but the template lists none; list some or write from: any"
                problems.append(document.problem((*path, "from"), message))
            elif spec.min > len(set(file.archetypes)):
                message = f"min {spec.min} is over the {len(set(file.archetypes))} archetypes listed"
                problems.append(document.problem((*path, "min"), message))
    for name in FIELD_KINDS:
        if name not in file.fields and name not in OPTIONAL_FIELDS:
            problems.append(document.problem(("fields", name), "missing; it is required"))
    for key in ("phases", "archetypes"):
        values: tuple[str, ...] = getattr(file, key)
        for i, value in enumerate(values):
            if value in values[:i]:
                problems.append(document.problem((key, i), f"{value!r} is listed twice"))
    return problems


def _read_example(
    document: YamlDocument, item: Any, path: tuple[str | int, ...], problems: list[Problem]
) -> Example | None:
    if not isinstance(item, dict) or set(item) != {"pvq", "scene"}:
        problems.append(document.problem(path, "expected the two keys pvq and scene"))
        return None
    given = item["pvq"]
    pvq: Pvq | None = None
    try:
        pvq = Pvq.from_text(given) if isinstance(given, str) else Pvq.from_dict(given)
    except Exception as error:
        found = error.problems if isinstance(error, SchemaError) else (Problem("", "", str(error)),)
        problems.extend(_moved(document, (*path, "pvq"), problem.path, problem.message) for problem in found)
    scene = _read_scene(document, item["scene"], (*path, "scene"), problems)
    return Example(pvq, scene) if pvq is not None and scene is not None else None


def _read_scene(
    document: YamlDocument, item: Any, path: tuple[str | int, ...], problems: list[Problem]
) -> Scene | None:
    try:
        return Scene.from_dict(item)
    except SchemaError as error:
        problems.extend(_moved(document, path, one.path, one.message) for one in error.problems)
        return None


def _read_answer(document: YamlDocument, data: Any, problems: list[Problem]) -> dict[str, Scene]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        problems.append(document.problem(("answer",), f"found {show(data)}; expected a scene for each language"))
        return {}
    read = {lang: _read_scene(document, _thawed(item), ("answer", lang), problems) for lang, item in data.items()}
    return {lang: scene for lang, scene in read.items() if scene is not None}


def _moved(document: YamlDocument, path: tuple[str | int, ...], inner: str, message: str) -> Problem:
    return document.problem((*path, *path_parts(inner)), message)


def _read_examples(document: YamlDocument, data: Any, problems: list[Problem]) -> dict[str, tuple[Example, ...]]:
    if data is None:
        return {}
    groups: dict[str | None, list[tuple[tuple[str | int, ...], Any]]] = {}
    if isinstance(data, (list, tuple)):
        groups[None] = [(("examples", i), item) for i, item in enumerate(data)]
    elif isinstance(data, dict):
        for lang, items in data.items():
            if not isinstance(items, (list, tuple)):
                problems.append(document.problem(("examples", lang), f"found {show(items)}; expected a list"))
                continue
            groups[lang] = [(("examples", lang, i), item) for i, item in enumerate(items)]
    else:
        problems.append(document.problem(("examples",), f"found {show(data)}; expected a list or a mapping"))
    result: dict[str, list[Example]] = {}
    for group, items in groups.items():
        for path, item in items:
            example = _read_example(document, _thawed(item), path, problems)
            if example is not None:
                result.setdefault(group or _language_of(example), []).append(example)
    return {lang: tuple(examples) for lang, examples in result.items()}


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_thawed(item) for item in value]
    return {key: _thawed(item) for key, item in value.items()} if isinstance(value, dict) else value


def _language_of(example: Example) -> str:
    return detect_language(example.pvq.text, ("en", "ru"))


def parse_template(text: str | bytes, where: str = "<string>") -> Template:
    """The template in a YAML file.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    if not isinstance(document.data, dict):
        raise SchemaError(document.problem((), f"found {show(document.data)}; expected a scene template"))
    check_version(document, document.data, ())
    problems: list[Problem] = []
    examples = _read_examples(document, document.data.get("examples"), problems)
    answer = _read_answer(document, document.data.get("answer"), problems)
    try:
        file: _File = check_record(_File, document, data=document.data)
    except SchemaError as error:
        raise SchemaError(_sorted([*error.problems, *problems])) from None
    problems += _check_fields(document, file)
    if problems:
        raise SchemaError(_sorted(problems))
    template = Template(
        name=file.name,
        about=file.about,
        fields=dict(file.fields),
        phases=file.phases,
        archetypes=file.archetypes,
        examples=examples,
        anchors=dict(file.anchors),
        directive=dict(file.directive),
        answer=answer,
    )
    for lang, scene in answer.items():
        problems += [_moved(document, ("answer", lang), *found) for found in check_scene(template, scene)]
    for lang, items in examples.items():
        for i, example in enumerate(items):
            base: tuple[str | int, ...] = ("examples", lang, i, "scene")
            if isinstance(document.data["examples"], list):
                base = ("examples",)
            problems += [_moved(document, base, *found) for found in check_scene(template, example.scene)]
    if problems:
        raise SchemaError(_sorted(problems))
    return template


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column))


def smallest_scene(template: Template, names: Mapping[str, str] | None = None) -> Scene:
    """A scene that the template allows and whose document is as short as any."""
    actors, response = 1, "a"
    archetype: tuple[str, ...] = ("a",)
    for spec in template.fields.values():
        if isinstance(spec, RolesSpec):
            actors = spec.min
        elif isinstance(spec, BlockSpec):
            response = "\n".join(["a"] * spec.min_lines)
        elif isinstance(spec, ChoiceSpec):
            if spec.source == "any":
                archetype = ("a",) * spec.min
            else:
                offered = choice_names(template, names)
                archetype = tuple(sorted(offered, key=lambda name: len(name.encode()))[: spec.min])
    commentary = template.fields.get("self_commentary")
    return Scene(
        actors=(("a", "a"),) * actors,
        tension="a vs a",
        archetype=archetype,
        resonance_center="a",
        response=response,
        self_commentary="a" if commentary is not None and not commentary.optional else None,
    )


def scene_document(template: Template, scene: Scene) -> str:
    """`scene` written as a model writes it under `template`: order of fields and form of the response."""
    block = isinstance(template.fields["response"], BlockSpec)
    return write_scene(scene, tuple(template.fields), block=block)


def answer_document(template: Template, lang: str) -> str:
    """The template's own answer as a model writes it; empty where the model is to write one."""
    answer = template.answer_in(lang)
    return scene_document(template, answer) if answer is not None else ""


def smallest_document(template: Template, names: Mapping[str, str] | None = None) -> str:
    """The shortest document that the template's grammar accepts, in bytes."""
    return scene_document(template, smallest_scene(template, names))
