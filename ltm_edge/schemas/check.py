"""From plain YAML data to records: every problem at once, with its key path, its line and the nearest known key.

The records of the schemas are frozen dataclasses whose annotations carry their bounds. pydantic checks them here, at
the edge, and is imported nowhere else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from ltm_edge.errors import Problem, SchemaError
from ltm_edge.schemas.yaml import YamlDocument

__all__ = [
    "STRICT",
    "Flag",
    "Fraction",
    "LangText",
    "LangTexts",
    "Language",
    "Name",
    "RelativeFile",
    "Text",
    "Whole",
    "check_record",
    "check_version",
    "nearest",
    "show",
    "take_root",
]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
SCHEMA_VERSION = 1

_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})?\Z")


def _clean_line(value: str) -> str:
    if not value.strip():
        raise ValueError("empty; write some text")
    return value


def _relative(value: str) -> str:
    parts = value.split("/")
    if not value or "\\" in value or ":" in value or "\0" in value or value.startswith(("/", "~")) or ".." in parts:
        raise ValueError(f"{value!r} must be a path inside the bundle: relative, with /, without ..")
    return value


def _language(value: str) -> str:
    if not _LANGUAGE.match(value):
        raise ValueError(f"{value!r} isn't a language code such as en or ru")
    return value


def _one_language(value: Any) -> Any:
    return {"en": value} if isinstance(value, str) else value


def _list_language(value: Any) -> Any:
    return {"en": value} if isinstance(value, (list, tuple)) else value


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Fraction = Annotated[float, Strict(), Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(max_length=4000), AfterValidator(_clean_line)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
RelativeFile = Annotated[str, Field(max_length=300), AfterValidator(_relative)]
Language = Annotated[str, AfterValidator(_language)]
LangText = Annotated[Mapping[Language, Text], BeforeValidator(_one_language)]
LangTexts = Annotated[Mapping[Language, tuple[Text, ...]], BeforeValidator(_list_language)]


def nearest(word: str, known: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    """A hint such as ``; did you mean 'enabled'?``, or the known words if none is near."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(names)}" if names else ""


def show(value: Any) -> str:
    """A short spelling of a found value for a message."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


_MISSING = ("missing", "missing_argument")

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text (in quotes if it looks like something else)",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "dataclass_type": "a mapping",
    "finite_number": "a finite number",
}

_BOUNDS = {
    "greater_than": ("must be over", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be under", "lt"),
    "less_than_equal": ("must be at most", "le"),
}


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that records hold nothing that can be changed in place."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _path(loc: tuple[Any, ...], data: Any, *, missing: bool) -> tuple[str | int, ...]:
    """pydantic's location without the parts that aren't in the data (tags of unions, markers)."""
    path: list[str | int] = []
    here = data
    for i, part in enumerate(loc):
        known = isinstance(here, dict) and part in here
        listed = isinstance(here, (list, tuple)) and isinstance(part, int) and part < len(here)
        if known or listed:
            here = here[part]
        elif not missing or i != len(loc) - 1:
            continue
        path.append(part)
    return tuple(path)


def _value_schema(node: dict[str, Any], key: str) -> Any:
    """JSON schema of the value under `key`, be it a known key or any name."""
    named = node.get("properties", {}).get(key)
    return named or next(iter(node.get("patternProperties", {}).values()), None) or node.get("additionalProperties", {})


def _known_keys(kind: Any, path: tuple[str | int, ...], data: Any) -> list[str]:
    """The keys that the dataclass at `path` knows, found by walking the annotations' schema."""
    schema = _adapter(kind).json_schema()
    defs = schema.get("$defs", {})

    def resolve(node: dict[str, Any], here: Any) -> dict[str, Any]:
        while "$ref" in node:
            node = defs[node["$ref"].rsplit("/", 1)[1]]
        for option in node.get("oneOf", node.get("anyOf", [])):
            option = resolve(option, here)
            tag = option.get("properties", {}).get("kind", {}).get("const")
            if tag is not None and isinstance(here, dict) and here.get("kind") == tag:
                return option
            if tag is None and option.get("type") == "object":
                return option
        return node

    node, here = resolve(schema, data), data
    for part in path:
        child = node.get("items", {}) if isinstance(part, int) else _value_schema(node, part)
        here = here[part]
        node = resolve(child if isinstance(child, dict) else {}, here)
    return list(node.get("properties", {}))


def _message(error: Any, kind: Any, path: tuple[str | int, ...], data: Any) -> str:
    name = error["type"]
    found = show(error.get("input"))
    context = error.get("ctx", {})
    if name in _MISSING:
        return "missing; it is required"
    if name in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key{nearest(str(path[-1]), _known_keys(kind, path[:-1], data))}"
    if name in _EXPECTED:
        return f"found {found}; expected {_EXPECTED[name]}"
    if name in _BOUNDS:
        words, key = _BOUNDS[name]
        return f"found {found}; {words} {context[key]:g}"
    if name == "literal_error":
        allowed = [part.strip().strip("'") for part in re.split(r", | or ", context["expected"])]
        return f"found {found}{nearest(str(error.get('input')), allowed)}"
    if name == "union_tag_invalid":
        allowed = [part.strip().strip("'") for part in context["expected_tags"].split(",")]
        return f"kind: found {context['tag']!r}{nearest(context['tag'], allowed)}"
    if name == "union_tag_not_found":
        return "kind: missing; it is required"
    if name == "value_error":
        return str(context["error"])
    if name == "string_pattern_mismatch":
        return f"found {found}; expected a name of small Latin letters, digits, _ and -, a letter first"
    if name in ("too_short", "too_long"):
        side = "at least" if name == "too_short" else "at most"
        limit = context.get("min_length", context.get("max_length"))
        return f"{context['actual_length']} entries; must be {side} {limit}"
    if name in ("string_too_long", "string_too_short"):
        limit = context.get("max_length", context.get("min_length"))
        return f"{len(str(error.get('input')))} characters; the limit is {limit}"
    return f"found {found}: {error['msg']}"


def check_record(kind: Any, document: YamlDocument, root: tuple[str, ...] = (), data: Any = None) -> Any:
    """The record of dataclass `kind` that stands in `document` below the key path `root`.

    Args:
        data: what to check; by default the value at `root`.

    Raises:
        SchemaError: with all problems found.
    """
    if data is None:
        data = document.data
        for key in root:
            data = data[key]
    if not isinstance(data, dict):
        raise SchemaError(document.problem(root, f"found {show(data)}; expected a mapping"))
    try:
        return _adapter(kind).validate_python(_frozen(data))
    except ValidationError as failure:
        problems: list[Problem] = []
        for error in failure.errors(include_url=False):
            if error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
                continue  # long enough, but for entries that are wrong; those are reported themselves
            path = _path(tuple(error["loc"]), data, missing=error["type"] in _MISSING)
            message = _message(error, kind, path, data)
            problem = document.problem((*root, *path), message)
            if problem not in problems:
                problems.append(problem)
        problems.sort(key=lambda problem: (problem.line, problem.column))
        raise SchemaError(problems) from None


def check_version(
    document: YamlDocument, data: dict[str, Any], root: tuple[str, ...], *, required: bool = True
) -> None:
    """Refuse schema versions that this release doesn't know.

    Raises:
        SchemaError: version missing, not a number, or newer than 1.
    """
    version = data.get("version")
    path = (*root, "version")
    if version is None and "version" not in data:
        if required:
            raise SchemaError(document.problem(path, f"missing; write version: {SCHEMA_VERSION}"))
        return
    if isinstance(version, bool) or not isinstance(version, int):
        raise SchemaError(document.problem(path, f"found {show(version)}; expected version: {SCHEMA_VERSION}"))
    if version > SCHEMA_VERSION:
        message = f"version {version} is newer than this release can read ({SCHEMA_VERSION}); update ltm-edge"
        raise SchemaError(document.problem(path, message))
    if version < SCHEMA_VERSION:
        raise SchemaError(document.problem(path, f"found {version}; expected version: {SCHEMA_VERSION}"))


def take_root(document: YamlDocument, key: str, *, versioned: bool = True) -> dict[str, Any]:
    """The mapping below the file's single top-level `key`, after the version check.

    Raises:
        SchemaError: no such key, other keys beside it, not a mapping, unknown version.
    """
    data = document.data
    if not isinstance(data, dict):
        raise SchemaError(document.problem((), f"found {show(data)}; expected a mapping with the key {key}"))
    problems = [document.problem((name,), f"unknown key{nearest(name, [key])}") for name in data if name != key]
    if key not in data:
        problems.append(document.problem((), f"the key {key} is missing"))
    elif not isinstance(data[key], dict):
        problems.append(document.problem((key,), f"found {show(data[key])}; expected a mapping"))
    if problems:
        raise SchemaError(problems)
    inner: dict[str, Any] = data[key]
    check_version(document, inner, (key,), required=versioned)
    return inner
