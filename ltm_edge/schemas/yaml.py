"""Reading YAML from strangers: bounded, unsurprising, and every value knows its line.

`StrictLoader` is a subclass of PyYAML's `SafeLoader`; the global loaders stay as they are. It differs from them
in what it takes for a number or a truth value (YAML 1.2's core schema: ``1e-5`` is a float, ``no`` and ``1:30``
are text) and in what it refuses: duplicate keys, aliases, tags, more than one document, too much of anything.

Where PyYAML was built with libyaml, that parses first, in a tenth of the time. What it refuses is read again by
PyYAML's own parser, which has the last word and finds the words for it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from ltm_edge.errors import Problem, SchemaError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_VALUES",
    "StrictLoader",
    "YamlDocument",
    "format_path",
    "load_yaml",
    "read_yaml",
]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
# A file of ours has some hundreds of values; a megabyte of "- a" would keep the parser busy for half a minute.
MAX_VALUES = 50_000
MAX_NUMBER_CHARS = 64

Path_ = tuple["str | int", ...]

# Under these, keys are numbers of layers and heads, and people write them as such; they are read as text.
_NUMBERED = frozenset({"head_gates"})

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)


class _LimitError(Exception):
    """A document that breaks one of our own limits, with the place where it does."""

    def __init__(self, message: str, mark: Any = None) -> None:
        super().__init__(message)
        self.mark = mark


class _StrictComposer(yaml.composer.Composer, yaml.resolver.Resolver):
    """YAML 1.2's plain scalars, no aliases and a bounded depth, over any parser's events."""

    check_event: Any  # the parser's
    peek_event: Any
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (declared so by the base class)
    _depth = 0
    _values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _LimitError(f"alias *{event.anchor}: aliases aren't allowed; write the value out", event.start_mark)
        self._depth += 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise _LimitError(f"more than {MAX_VALUES} values, which is the limit", event.start_mark)
        if self._depth > MAX_DEPTH:
            raise _LimitError(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _kind, _pattern, _first in (
    ("null", _NULL, [*"~nN", ""]),
    ("bool", _BOOL, [*"tTfF"]),
    ("int", _INT, [*"-+0123456789"]),
    ("float", _FLOAT, [*"-+.0123456789"]),
):
    _StrictComposer.add_implicit_resolver(_TAG + _kind, _pattern, _first)


class StrictLoader(_StrictComposer, yaml.SafeLoader):
    """`SafeLoader` with YAML 1.2's plain scalars, no aliases and a bounded depth."""


# Characters that both parsers treat alike: no tabs, and no breaks but line feeds.
_PLAIN = re.compile(r"[\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*\Z")
_COMMENT_AT_BLOCK = re.compile(r"[|>][-+0-9]*#")  # which only libyaml takes


def _composed(text: str) -> yaml.Node | None:
    """The text's nodes.

    Raises:
        _LimitError, YAMLError, ValueError, RecursionError: it is refused.
    """
    fast = _fast_loader()
    if fast is not None and _PLAIN.match(text) and not _COMMENT_AT_BLOCK.search(text):
        with contextlib.suppress(_LimitError, yaml.YAMLError, ValueError):
            return _compose(fast(text))
    return _compose(StrictLoader(text))


def _compose(loader: Any) -> yaml.Node | None:
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


@lru_cache(maxsize=1)
def _fast_loader() -> Callable[[str], Any] | None:
    """`StrictLoader` over libyaml's events; None where PyYAML was built without it."""
    try:
        from yaml._yaml import CParser
    except ImportError:
        return None

    class FastLoader(_StrictComposer, CParser):
        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _StrictComposer.__init__(self)
            yaml.resolver.Resolver.__init__(self)

        # The two differ in what they take for a tag, and in whether a plain text in [] or {} may hold a "?".

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if getattr(self.peek_event(), "tag", None):
                raise _LimitError("left to the other parser")
            return super().compose_node(parent, index)

        def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
            node = super().compose_sequence_node(anchor)
            if node.flow_style:
                self.refuse_questions(node.value)
            return node

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            if node.flow_style:
                self.refuse_questions(chain.from_iterable(node.value))
            return node

        def refuse_questions(self, children: Iterable[yaml.Node]) -> None:
            if any(isinstance(child, yaml.ScalarNode) and not child.style and "?" in child.value for child in children):
                raise _LimitError("left to the other parser")

    return FastLoader


def format_path(path: Iterable[str | int]) -> str:
    """A key path as people write it: ``("fields", "a", 0)`` is ``fields.a[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """What a YAML text holds, and where in it each value stands.

    Attributes:
        data: dicts with text keys, lists, text, numbers, truth values and None.
        where: name of the file, or ``<string>``.
        marks: 1-based line and column by key path (of the key where there is one).
    """

    data: Any
    where: str
    marks: dict[Path_, tuple[int, int]] = field(default_factory=dict, repr=False)

    def problem(self, path: Iterable[str | int], message: str) -> Problem:
        """A problem at `path`, with the line of it or of the nearest enclosing value."""
        parts = tuple(path)
        known = parts
        while known and known not in self.marks:
            known = known[:-1]
        line, column = self.marks.get(known, (0, 0))
        return Problem(self.where, format_path(parts), message, line, column)


class _Builder:
    """Turns composed nodes into plain data, noting marks and collecting problems."""

    def __init__(self, where: str) -> None:
        self.document = YamlDocument(None, where)
        self.problems: list[Problem] = []

    def fail(self, path: Path_, message: str, mark: yaml.error.Mark) -> None:
        place = self.document.where
        self.problems.append(Problem(place, format_path(path), message, mark.line + 1, mark.column + 1))

    def build(self, node: yaml.Node, path: Path_) -> Any:
        self.document.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in {"str", "null", "bool", "int", "float"}:
            return self.scalar(node, kind, path)
        self.fail(path, f"tag {node.tag!r} isn't allowed; plain YAML has no tags", node.start_mark)
        return None

    def mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            numbered = any(part in _NUMBERED for part in path) and key_node.tag == _TAG + "int"
            if not isinstance(key_node, yaml.ScalarNode) or not (key_node.tag == _TAG + "str" or numbered):
                found = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.fail(path, f"the key {found} isn't text; put it in quotes", mark)
                continue
            key = key_node.value
            here = (*path, key)
            if key in result:
                first = self.document.marks[here][0]
                self.fail(here, f"duplicate key, first on line {first}; keep one of them", mark)
                continue
            self.document.marks[here] = (mark.line + 1, mark.column + 1)
            result[key] = self.build(value_node, here)
        return result

    def scalar(self, node: yaml.ScalarNode, kind: str, path: Path_) -> Any:
        text: str = node.value
        if kind == "str":
            return text
        if kind == "null" and _NULL.match(text):
            return None
        if kind == "bool" and _BOOL.match(text):
            return text.lower() == "true"
        if len(text) > MAX_NUMBER_CHARS:
            self.fail(path, f"a number of {len(text)} characters; at most {MAX_NUMBER_CHARS}", node.start_mark)
            return None
        if kind == "int" and _INT.match(text):
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if kind == "float" and _FLOAT.match(text):
            lowered = text.lower()
            return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
        # Reached by an explicit tag only, such as !!int "x".
        self.fail(path, f"{text!r} isn't a value of type {kind}", node.start_mark)
        return None


def load_yaml(text: str | bytes, where: str = "<string>") -> YamlDocument:
    """Read one YAML document.

    Raises:
        SchemaError: not UTF-8, over 1 MiB, 50 000 values or 32 levels, not YAML, aliases, tags, duplicate keys.
    """
    if isinstance(text, bytes):
        if len(text) > MAX_BYTES:
            raise SchemaError(Problem(where, "", f"{len(text)} bytes; at most {MAX_BYTES}"))
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            message = f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}; save the file as UTF-8"
            raise SchemaError(Problem(where, "", message, line)) from None
    elif len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SchemaError(Problem(where, "", f"more than {MAX_BYTES} bytes, which is the limit"))
    builder = _Builder(where)
    try:
        node = _composed(text.removeprefix("\ufeff"))
    except _LimitError as refused:
        mark = refused.mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise SchemaError(Problem(where, "", str(refused), *place)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"the character U+{code:04X} isn't allowed in YAML"
        raise SchemaError(Problem(where, "", message, line, column)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise SchemaError(Problem(where, "", f"not valid YAML: {message}", *place)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SchemaError(Problem(where, "", f"not valid YAML: {' '.join(str(error).split())}")) from None
    data = builder.build(node, ()) if node is not None else None
    if builder.problems:
        raise SchemaError(builder.problems)
    return YamlDocument(data, where, builder.document.marks)


def read_yaml(path: str | os.PathLike[str]) -> YamlDocument:
    """Read one YAML file.

    Raises:
        SchemaError: as `load_yaml`, and if the file can't be read.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SchemaError(Problem(str(file), "", f"can't be read: {error.strerror or error}")) from None
    if len(raw) > MAX_BYTES:
        raise SchemaError(Problem(str(file), "", f"more than {MAX_BYTES} bytes, which is the limit"))
    return load_yaml(raw, str(file))
