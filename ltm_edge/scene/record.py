"""The scene (сцена): one typed record per exchange, and what counts as one.

Standard library only (YAML is imported when it is used), so that importing `ltm_edge` stays quick.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltm_edge.errors import Problem, SchemaError

__all__ = ["MAX_RESPONSE_CHARS", "SCENE_FIELDS", "Scene", "parse_scene", "split_names"]

SCENE_FIELDS = ("actors", "tension", "archetype", "resonance_center", "self_commentary", "response")
REQUIRED_FIELDS = tuple(name for name in SCENE_FIELDS if name != "self_commentary")

MAX_ACTORS = 16
MAX_KEY_CHARS = 64
MAX_ARCHETYPES = 8
MAX_NAME_CHARS = 100
MAX_LINE_CHARS = 4000
MAX_RESPONSE_CHARS = 100_000

POLE_SEPARATOR = " vs "

# C0 without tab and line feed, DEL, C1, surrogates: nothing that is text, and half of it can't be written as UTF-8.
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Scene:
    """The scene (сцена): who is in it, what pulls in two directions, where it centres, and the response.

    Attributes:
        actors: role and description of each, in order, such as ``("inner_voice", "anxiety")``.
        tension: two poles around `` vs ``.
        archetype: names, most telling first.
        resonance_center: what the scene turns on.
        response: the answer; lines joined with ``\\n``, no newline at the end.
        self_commentary: a remark on the answer, where the template asks for one.
    """

    actors: tuple[tuple[str, str], ...]
    tension: str
    archetype: tuple[str, ...]
    resonance_center: str
    response: str
    self_commentary: str | None = None

    @property
    def poles(self) -> tuple[str, str]:
        """The two poles of the tension; the second is empty if it has only one."""
        first, _, second = self.tension.partition(POLE_SEPARATOR)
        return first.strip(), second.strip()

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the keys and value forms of `scene.yaml`, without the outer ``scene`` key."""
        result: dict[str, Any] = {
            "actors": [{role: text} for role, text in self.actors],
            "tension": self.tension,
            "archetype": ", ".join(self.archetype),
            "resonance_center": self.resonance_center,
        }
        if self.self_commentary is not None:
            result["self_commentary"] = self.self_commentary
        result["response"] = self.response
        return result

    def to_yaml(self, order: Sequence[str] | None = None) -> str:
        """The scene as `scene.yaml`, spelled as the grammar spells it wherever it can be.

        Args:
            order: field names in the order to write them; by default that of the format.
        """
        from ltm_edge.scene.yaml_io import write_scene

        return write_scene(self, order)

    def to_json(self) -> str:
        """One JSON object ``{"scene": {…}}`` on one line, not escaped to ASCII."""
        return json.dumps({"scene": self.to_dict()}, ensure_ascii=False)

    @staticmethod
    def from_dict(obj: object, where: str = "<scene>") -> Scene:
        """The scene in plain data, with or without the outer ``scene`` key.

        Raises:
            SchemaError: with all problems.
        """
        if isinstance(obj, Mapping) and set(obj) == {"scene"}:
            obj = obj["scene"]
        scene, problems = parse_scene(obj)
        if scene is None:
            raise SchemaError([Problem(where, path, message) for path, message in problems])
        return scene

    @staticmethod
    def from_yaml(text: str | bytes, where: str = "<string>") -> Scene:
        """The scene in a YAML document.

        Raises:
            SchemaError: with all problems and their lines.
        """
        from ltm_edge.scene.yaml_io import read_scene

        return read_scene(text, where)


def split_names(text: str) -> tuple[str, ...]:
    """Names of a comma-separated list, blanks around them and empty ones dropped."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _text(value: object, limit: int, *, lines: bool = False) -> tuple[str, str]:
    """The text and no complaint, or an empty text and the complaint."""
    if not isinstance(value, str):
        if isinstance(value, bool) or value is None or isinstance(value, (int, float)):
            return "", f"found {value!r}; expected text, so put it in quotes"
        return "", f"found a {type(value).__name__}; expected text"
    text = _BREAKS.sub("\n", value) if lines else value
    text = text.rstrip("\n") if lines else text
    if not text.strip():
        return "", "empty; expected some text"
    if len(text) > limit:
        return "", f"{len(text)} characters; at most {limit}"
    bad = _NOT_TEXT.search(text)
    if bad:
        return "", f"the character U+{ord(bad[0]):04X} isn't text; remove it"
    if not lines and ("\n" in text or "\t" in text):
        return "", "has a line break or a tab; it must be one line"
    return text, ""


def _actors(value: object, problems: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, (list, tuple)):
        problems.append(("actors", 'expected a list of `- role: "who"`'))
        return ()
    if not 1 <= len(value) <= MAX_ACTORS:
        problems.append(("actors", f"{len(value)} entries; from 1 to {MAX_ACTORS} are allowed"))
        return ()
    result = []
    for i, item in enumerate(value):
        path = f"actors[{i}]"
        if not isinstance(item, Mapping) or len(item) != 1:
            problems.append((path, 'expected one `role: "who"`'))
            continue
        ((role, who),) = item.items()
        key, complaint = _text(role, MAX_KEY_CHARS)
        if complaint:
            problems.append((path, f"the role: {complaint}"))
        text, complaint = _text(who, MAX_LINE_CHARS)
        if complaint:
            problems.append((f"{path}.{role}", complaint))
        result.append((key, text))
    return tuple(result)


def _archetype(value: object, problems: list[tuple[str, str]]) -> tuple[str, ...]:
    if isinstance(value, str):
        names = list(split_names(value))
        if not names:
            problems.append(("archetype", "empty; expected at least one name"))
    elif isinstance(value, (list, tuple)):
        names = []
        for i, item in enumerate(value):
            name, complaint = _text(item, MAX_NAME_CHARS)
            if not complaint and "," in name:
                complaint = "a name has no comma in it"
            if complaint:
                problems.append((f"archetype[{i}]", complaint))
            names.append(name.strip())
        if not value:
            problems.append(("archetype", "empty; expected at least one name"))
    else:
        problems.append(("archetype", "expected names separated by commas"))
        return ()
    if len(names) > MAX_ARCHETYPES:
        problems.append(("archetype", f"{len(names)} names; at most {MAX_ARCHETYPES}"))
    for name in names:
        complaint = _text(name, MAX_NAME_CHARS)[1] if isinstance(value, str) else ""
        if complaint:
            problems.append(("archetype", complaint))
    return tuple(names)


def parse_scene(obj: object) -> tuple[Scene | None, list[tuple[str, str]]]:
    """The scene in plain data, or None and every problem as (key path, message)."""
    if not isinstance(obj, Mapping):
        return None, [("", "expected a mapping with the scene's fields")]
    problems: list[tuple[str, str]] = []
    for key in obj:
        if key not in SCENE_FIELDS:
            import difflib

            close = difflib.get_close_matches(str(key), SCENE_FIELDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(SCENE_FIELDS)}"
            problems.append((str(key), f"unknown key; {hint}"))
    for key in REQUIRED_FIELDS:
        if key not in obj:
            problems.append((key, "missing; it is required"))
    texts: dict[str, str | None] = {"self_commentary": None}
    for key in ("tension", "resonance_center", "self_commentary", "response"):
        if key not in obj or (key == "self_commentary" and obj[key] is None):
            continue
        block = key in ("response", "self_commentary")
        limit = MAX_RESPONSE_CHARS if key == "response" else MAX_LINE_CHARS
        texts[key], complaint = _text(obj[key], limit, lines=block)
        if complaint:
            problems.append((key, complaint))
    actors = _actors(obj["actors"], problems) if "actors" in obj else ()
    archetype = _archetype(obj["archetype"], problems) if "archetype" in obj else ()
    if problems:
        return None, problems
    return (
        Scene(
            actors=actors,
            tension=texts["tension"] or "",
            archetype=archetype,
            resonance_center=texts["resonance_center"] or "",
            response=texts["response"] or "",
            self_commentary=texts["self_commentary"],
        ),
        [],
    )
