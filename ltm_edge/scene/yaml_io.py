"""`scene.yaml`: written as the grammar spells it, read as people and programs write it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ltm_edge.errors import SchemaError
from ltm_edge.scene.charset import (
    EDGE,
    KEY_FIRST,
    KEY_REST,
    LINE,
    QUOTE_MARKS,
    RESERVED_KEYS,
    in_ranges,
    pattern,
    without,
)
from ltm_edge.scene.record import SCENE_FIELDS, Scene, parse_scene
from ltm_edge.schemas.yaml import YamlDocument, load_yaml

__all__ = ["path_parts", "quote", "read_scene", "write_scene"]

_PLAIN_TEXT = re.compile(f"[{pattern(without(LINE, QUOTE_MARKS))}]+\\Z")
_LINE_TEXT = re.compile(f"[{pattern(LINE)}]*\\Z")
_PLAIN_KEY = re.compile(f"[{pattern(KEY_FIRST)}][{pattern(KEY_REST)}]*\\Z")
_FLAT_BLOCK = re.compile(r"( *)(?:response|self_commentary): *[|>][-+]? *\Z")
_FIELD_LINE = re.compile(rf" *(?:{'|'.join(SCENE_FIELDS)}):(?: |\Z)")


def quote(text: str) -> str:
    """`text` as a YAML double-quoted scalar; without escapes where the grammar could have written it."""
    if _PLAIN_TEXT.match(text):
        return f'"{text}"'
    out = []
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif in_ranges(code, LINE):
            out.append(char)
        elif char in "\n\t":
            out.append({"\n": "\\n", "\t": "\\t"}[char])
        else:
            out.append(f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}")
    return f'"{"".join(out)}"'


def _key(role: str) -> str:
    return role if _PLAIN_KEY.match(role) and role not in RESERVED_KEYS else quote(role)


def _fits_block(text: str) -> bool:
    """Whether a literal block spells `text` exactly, without trailing blanks or an indentation indicator."""
    lines = text.split("\n")
    if not lines[0] or not lines[-1] or not in_ranges(ord(lines[0][0]), EDGE):
        return False
    return all(_LINE_TEXT.match(line) and (not line or in_ranges(ord(line[-1]), EDGE)) for line in lines)


def _block(text: str) -> str:
    if not _fits_block(text):
        return f"{quote(text)}\n"
    return "|\n" + "".join(f"    {line}\n" if line else "\n" for line in text.split("\n"))


def write_scene(scene: Scene, order: Sequence[str] | None = None, *, block: bool = True) -> str:
    """The scene as YAML; fields in `order`, those missing from it in the order of the format after them.

    Args:
        block: write the response as a block of lines; else in quotes, as a template with a one-line response does.

    Raises:
        ValueError: `order` has a name that isn't a scene's.
    """
    names = list(order or ())
    unknown = [name for name in names if name not in SCENE_FIELDS]
    if unknown:
        raise ValueError(f"not a field of a scene: {', '.join(unknown)}")
    names += [name for name in SCENE_FIELDS if name not in names]
    out = ["scene:\n"]
    for name in names:
        if name == "actors":
            out.append("  actors:\n")
            out.extend(f"    - {_key(role)}: {quote(who)}\n" for role, who in scene.actors)
        elif name == "archetype":
            out.append(f"  archetype: {quote(', '.join(scene.archetype))}\n")
        elif name == "response":
            out.append(f"  response: {_block(scene.response) if block else quote(scene.response) + chr(10)}")
        else:
            value: str | None = getattr(scene, name)
            if value is not None:
                out.append(f"  {name}: {quote(value)}\n")
    return "".join(out)


def _indent_flat_blocks(text: str) -> str:
    """Push in the lines of a block that stand at their key's own column.

    Chat programs and forums collapse runs of blanks, and the scenes people paste from there have lost the indentation
    of the response. A block whose next line isn't indented more than its key ends at the next known field.
    """
    out: list[str] = []
    lines = text.split("\n")
    i = 0
    while i < len(lines):
        line = lines[i]
        out.append(line)
        i += 1
        head = _FLAT_BLOCK.match(line)
        if not head:
            continue
        column = len(head[1])
        body = next((n for n in range(i, len(lines)) if lines[n].strip()), None)
        if body is None or len(lines[body]) - len(lines[body].lstrip(" ")) > column or _FIELD_LINE.match(lines[body]):
            continue
        while i < len(lines) and not _FIELD_LINE.match(lines[i]):
            out.append("  " + lines[i] if lines[i].strip() else "")
            i += 1
    return "\n".join(out)


def _from_document(document: YamlDocument) -> Scene:
    data = document.data
    root: tuple[str, ...] = ()
    if isinstance(data, dict) and "scene" in data:
        root = ("scene",)
        extra = [document.problem((key,), "unknown key beside scene") for key in data if key != "scene"]
        if extra:
            raise SchemaError(extra)
        data = data["scene"]
    scene, problems = parse_scene(data)
    if scene is None:
        found = [document.problem((*root, *path_parts(path)), message) for path, message in problems]
        raise SchemaError(sorted(found, key=lambda problem: (problem.line, problem.column)))
    return scene


def path_parts(path: str) -> tuple[str | int, ...]:
    """``actors[0].you`` as ``("actors", 0, "you")``."""
    parts: list[str | int] = []
    for part in re.findall(r"\[\d+\]|[^.\[\]]+", path):
        parts.append(int(part[1:-1]) if part.startswith("[") else part)
    return tuple(parts)


def read_scene(text: str | bytes, where: str = "<string>") -> Scene:
    """The scene in a YAML document, with or without the outer ``scene`` key.

    Raises:
        SchemaError: with all problems; not YAML, over 1 MiB, fields missing, unknown or of the wrong type.
    """
    try:
        return _from_document(load_yaml(text, where))
    except SchemaError as error:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        repaired = _indent_flat_blocks(plain.replace("\r\n", "\n"))
        if repaired == plain:
            raise
        try:
            return _from_document(load_yaml(repaired, where))
        except SchemaError:
            raise error from None
