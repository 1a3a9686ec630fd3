"""The structured request (PVQ, полевекторная сцепка): what was said, and what is already known of its scene."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.scene.clean import is_blank
from ltm_edge.scene.record import SCENE_FIELDS, split_names

__all__ = ["FORMS", "PHASES", "Pvq", "parse_pvq"]

PHASES = ("myth", "drama", "logic", "irony")
FORMS = ("auto", "text", "yaml", "json", "image", "refusal")

MAX_TEXT_CHARS = 1_000_000
MAX_HINT_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Pvq:
    """PVQ (полевекторная сцепка): a request as structure.

    Attributes:
        text: what was said.
        scene: scene fields already known, in the value forms of `scene.yaml`.
        goal: the vector's goal, or None if it is to be inferred.
        weight: how strongly the goal pulls, from 0 to 1.
        archetype: names given, most telling first.
        phase: myth, drama, logic or irony; None if it is to be inferred.
        form: the wanted form of the answer.
    """

    text: str
    scene: Mapping[str, object] = field(default_factory=dict)
    goal: str | None = None
    weight: float = 1.0
    archetype: tuple[str, ...] = ()
    phase: str | None = None
    form: str = "auto"

    @staticmethod
    def from_text(text: str) -> Pvq:
        """Plain text as a request that says nothing else.

        Raises:
            InputError: nothing in it can be seen, or too long.
        """
        if not isinstance(text, str):
            raise InputError(f"the request is a {type(text).__name__}; give text or a Pvq")
        if is_blank(text):
            raise InputError("the request is empty; write something")
        if len(text) > MAX_TEXT_CHARS:
            raise InputError(f"the request has {len(text)} characters; at most {MAX_TEXT_CHARS}; shorten it")
        return Pvq(text=text)

    @staticmethod
    def from_dict(obj: object, where: str = "<pvq>") -> Pvq:
        """The request in plain data, with or without the outer ``pvq`` key.

        Raises:
            SchemaError: with all problems.
        """
        from ltm_edge.schemas.yaml import YamlDocument

        return _from_document(YamlDocument(obj, where))

    @staticmethod
    def from_yaml(text: str | bytes, where: str = "<string>") -> Pvq:
        """The request in a `PVQ.yaml`.

        Raises:
            SchemaError: with all problems and their lines.
        """
        from ltm_edge.schemas.yaml import load_yaml

        return _from_document(load_yaml(text, where))

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the keys of `PVQ.yaml`, only those that say something, without the outer ``pvq`` key."""
        result: dict[str, Any] = {"text": self.text}
        if self.scene:
            result["scene"] = dict(self.scene)
        if self.goal is not None:
            result["vector"] = {"goal": self.goal, "weight": self.weight}
        if self.archetype:
            result["archetype"] = ", ".join(self.archetype)
        if self.phase is not None:
            result["phase"] = self.phase
        if self.form != "auto":
            result["form"] = self.form
        return result

    def to_yaml(self) -> str:
        """The request as `PVQ.yaml`."""
        # JSON's quoting is YAML's double-quoted form; quoting everything leaves nothing to YAML's guesses.
        from ltm_edge.scene.yaml_io import quote

        out = ["pvq:\n", f"  text: {quote(self.text)}\n"]
        if self.scene:
            out.append("  scene:\n")
            for key, value in self.scene.items():
                if isinstance(value, str):
                    out.append(f"    {key}: {quote(value)}\n")
                else:
                    out.append(f"    {key}:\n")
                    out.extend(
                        f"      - {quote(role)}: {quote(who)}\n" for item in _roles(value) for role, who in item.items()
                    )
        if self.goal is not None:
            out.append(f"  vector: {{goal: {quote(self.goal)}, weight: {json.dumps(self.weight)}}}\n")
        if self.archetype:
            out.append(f"  archetype: {quote(', '.join(self.archetype))}\n")
        if self.phase is not None:
            out.append(f"  phase: {self.phase}\n")
        if self.form != "auto":
            out.append(f"  form: {self.form}\n")
        return "".join(out)


def _roles(value: object) -> list[dict[str, str]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, (list, tuple)) else []


def _hint(value: object) -> str:
    """What is wrong with a short text, or nothing."""
    if not isinstance(value, str):
        return "expected text"
    if not value.strip():
        return "empty; leave the key out instead"
    if len(value) > MAX_HINT_CHARS:
        return f"{len(value)} characters; at most {MAX_HINT_CHARS}"
    if any(0xD800 <= ord(char) <= 0xDFFF or (ord(char) < 0x20 and char not in "\n\t") for char in value):
        return "has control characters or lone surrogates; remove them"
    return ""


def _known_scene(value: object, fail: Any) -> dict[str, object]:
    from ltm_edge.schemas.check import nearest

    if not isinstance(value, Mapping):
        fail(("scene",), "expected a mapping of scene fields")
        return {}
    result: dict[str, object] = {}
    for key, item in value.items():
        path = ("scene", str(key))
        if key not in SCENE_FIELDS:
            fail(path, f"unknown key{nearest(str(key), SCENE_FIELDS)}")
        elif key == "actors":
            good = isinstance(item, (list, tuple)) and all(
                isinstance(one, Mapping) and len(one) == 1 and not any(_hint(t) for pair in one.items() for t in pair)
                for one in item
            )
            if not good:
                fail(path, 'expected a list of `- role: "who"`')
            else:
                result[key] = [dict(one) for one in item]
        elif complaint := _hint(item):
            fail(path, complaint)
        else:
            result[key] = item
    return result


def parse_pvq(obj: object) -> tuple[Pvq | None, list[tuple[tuple[str, ...], str]]]:
    """The request in plain data, or None and every problem as (key path, message)."""
    from ltm_edge.schemas.check import nearest

    problems: list[tuple[tuple[str, ...], str]] = []

    def fail(path: tuple[str, ...], message: str) -> None:
        problems.append((path, message))

    if not isinstance(obj, Mapping):
        return None, [((), "expected a mapping with at least the key text")]
    known = ("text", "scene", "vector", "archetype", "phase", "form", "version")
    for key in obj:
        if key not in known:
            fail((str(key),), f"unknown key{nearest(str(key), known)}")
    text = obj.get("text")
    if "text" not in obj:
        fail(("text",), "missing; it is required")
    elif not isinstance(text, str) or is_blank(text):
        fail(("text",), "expected what was said, as text")
    elif len(text) > MAX_TEXT_CHARS:
        fail(("text",), f"{len(text)} characters; at most {MAX_TEXT_CHARS}")
    scene = _known_scene(obj["scene"], fail) if obj.get("scene") is not None else {}
    goal: str | None = None
    weight = 1.0
    vector = obj.get("vector")
    if isinstance(vector, Mapping):
        for key in vector:
            if key not in ("goal", "weight"):
                fail(("vector", str(key)), f"unknown key{nearest(str(key), ('goal', 'weight'))}")
        if vector.get("goal") is not None:
            goal = vector["goal"]
            if complaint := _hint(goal):
                fail(("vector", "goal"), complaint)
        number = vector.get("weight", 1.0)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
            fail(("vector", "weight"), f"found {number!r}; expected a number from 0 to 1")
        else:
            weight = float(number)
    elif vector is not None:
        fail(("vector",), 'expected a mapping such as {goal: "…", weight: 1.0}')
    archetype: tuple[str, ...] = ()
    given = obj.get("archetype")
    if isinstance(given, str):
        archetype = split_names(given)
    elif isinstance(given, (list, tuple)) and all(isinstance(name, str) and "," not in name for name in given):
        archetype = tuple(name.strip() for name in given if name.strip())
    elif given is not None:
        fail(("archetype",), "expected names separated by commas")
    for name in archetype:
        if complaint := _hint(name):
            fail(("archetype",), complaint)
            break
    phase, form = obj.get("phase"), obj.get("form", "auto")
    if phase is not None and phase not in PHASES:
        fail(("phase",), f"found {phase!r}{nearest(str(phase), PHASES)}")
    if form not in FORMS:
        fail(("form",), f"found {form!r}{nearest(str(form), FORMS)}")
    if problems or not isinstance(text, str):
        return None, problems
    return Pvq(text, scene, goal, weight, archetype, phase, form), []


def _from_document(document: Any) -> Pvq:
    from ltm_edge.schemas.check import check_version

    data: Any = document.data
    root: tuple[str, ...] = ()
    if isinstance(data, Mapping) and "pvq" in data:
        root = ("pvq",)
        extra = [document.problem((key,), "unknown key beside pvq") for key in data if key not in ("pvq", "version")]
        if extra:
            raise SchemaError(extra)
        if "version" in data:
            check_version(document, dict(data), ())
        data = data["pvq"]
    if isinstance(data, Mapping):
        check_version(document, dict(data), root, required=False)
    pvq, problems = parse_pvq(data)
    if pvq is None:
        found = [document.problem((*root, *path), message) for path, message in problems]
        raise SchemaError(sorted(found, key=lambda problem: (problem.line, problem.column)))
    return pvq
