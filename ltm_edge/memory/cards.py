"""Character cards (V2, V3) and lorebooks, as SillyTavern and others write them, as scenes to be pinned.

Specifications: malfoyslastname/character-card-spec-v2, kwaroran/character-card-spec-v3; SillyTavern's world info files
have the same entries under other names. A card is JSON, or a PNG whose ``tEXt`` chunk ``ccv3`` or ``chara`` holds it in
base64. Nothing in a card is executed, and no path or address in it is followed.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.scene.clean import clean_request
from ltm_edge.scene.record import MAX_RESPONSE_CHARS, Scene

__all__ = ["Lore", "lore_scene", "one_line", "read_lore"]

MAX_FILE_BYTES = 64 << 20
MAX_JSON_BYTES = 8 << 20
MAX_ENTRIES = 10_000
_PNG = b"\x89PNG\r\n\x1a\n"
_CARD_PARTS = (
    ("description", "who they are"),
    ("personality", "what they are like"),
    ("scenario", "where it begins"),
    ("first_mes", "their first words"),
    ("mes_example", "how they speak"),
)


@dataclass(frozen=True, slots=True)
class Lore:
    """One thing that a card or a lorebook says.

    Attributes:
        scene: as a scene.
        keys: words it is found by.
        provenance: ``card`` or ``lorebook``.
    """

    scene: Scene
    keys: tuple[str, ...]
    provenance: str


def read_lore(path: Path) -> list[Lore]:
    """The parts of a card or the entries of a lorebook; disabled entries are left out.

    Raises:
        InputError: can't be read, too large, or neither a card nor a lorebook.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise InputError(f"{path}: more than {MAX_FILE_BYTES} bytes, which is the limit")
    text = _from_png(path, raw) if raw.startswith(_PNG) else raw
    if len(text) > MAX_JSON_BYTES:
        raise InputError(f"{path}: a card of {len(text)} bytes; at most {MAX_JSON_BYTES}")
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a card or a lorebook, found {type(found).__name__}")
    data = found.get("data") if isinstance(found.get("data"), dict) else found
    lore: list[Lore] = []
    if isinstance(data, dict) and "entries" in data:
        name = data.get("name") if isinstance(data.get("name"), str) else None
        lore += _book(path, data, name or path.stem)
    elif isinstance(data, dict) and isinstance(data.get("name"), str) and "description" in data:
        lore += _card(path, data)
    else:
        raise InputError(f"{path}: neither a character card (name, description) nor a lorebook (entries)")
    return lore


def _from_png(path: Path, raw: bytes) -> bytes:
    found: dict[bytes, bytes] = {}
    place = len(_PNG)
    while place + 12 <= len(raw):
        size, kind = struct.unpack_from(">I4s", raw, place)
        if place + 12 + size > len(raw):
            break
        if kind == b"tEXt":
            key, _, value = raw[place + 8 : place + 8 + size].partition(b"\0")
            found[key.lower()] = value
        place += 12 + size
    value = found.get(b"ccv3", found.get(b"chara", b""))
    if not value:
        raise InputError(f"{path}: a picture without a character card in it")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise InputError(f"{path}: the card in the picture isn't base64: {error}") from None


def one_line(value: object, fallback: str, limit: int = 200) -> str:
    """The beginning of a text on one line."""
    plain = " ".join(clean_request(value)[0].split()) if isinstance(value, str) else ""
    return (plain or fallback)[:limit]


def lore_scene(where: str, who: str, center: str, content: str) -> Scene | None:
    """A text as a scene of what is known; None for an empty one.

    Raises:
        InputError: it is too long.
    """
    body = clean_request(content)[0].strip()
    if not body:
        return None
    if len(body) > MAX_RESPONSE_CHARS:
        raise InputError(f"{where}: {center!r} has {len(body)} characters; at most {MAX_RESPONSE_CHARS}")
    try:
        return Scene.from_dict(
            {
                "actors": [{"character": who}],
                "tension": "known vs unknown",
                "archetype": "keeper",
                "resonance_center": center,
                "response": body,
            },
            where,
        )
    except SchemaError as error:
        raise InputError(str(error)) from None


def _lore(path: Path, who: str, center: str, content: str, keys: tuple[str, ...], provenance: str) -> Lore | None:
    scene = lore_scene(str(path), who, center, content)
    return Lore(scene, keys, provenance) if scene is not None else None


def _card(path: Path, data: Mapping[str, Any]) -> Iterator[Lore]:
    name = one_line(data["name"], path.stem)
    for key, about in _CARD_PARTS:
        value = data.get(key)
        if isinstance(value, str):
            text = value.replace("{{char}}", name).replace("{{user}}", "you")
            one = _lore(path, name, f"{name}: {about}", text, (name,), "card")
            if one is not None:
                yield one
    book = data.get("character_book")
    if isinstance(book, dict) and book.get("entries"):
        yield from _book(path, book, name)


def _book(path: Path, book: Mapping[str, Any], name: str) -> Iterator[Lore]:
    entries = book["entries"]
    values = list(entries.values()) if isinstance(entries, dict) else entries
    if not isinstance(values, list) or len(values) > MAX_ENTRIES:
        raise InputError(f"{path}: entries: expected a list of at most {MAX_ENTRIES}")
    for entry in values:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise InputError(f"{path}: entries: expected objects with content")
        if entry.get("enabled") is False or entry.get("disable") is True:
            continue
        keys: list[str] = []
        for field in ("keys", "key", "secondary_keys", "keysecondary"):
            given = entry.get(field)
            if isinstance(given, list):
                keys += [one_line(key, "") for key in given if isinstance(key, str)]
        keys = [key for key in dict.fromkeys(keys) if key][:100]
        title = entry.get("name") or entry.get("comment")
        center = one_line(title, keys[0] if keys else name)
        one = _lore(path, one_line(name, path.stem), center, entry["content"], tuple(keys), "lorebook")
        if one is not None:
            yield one
