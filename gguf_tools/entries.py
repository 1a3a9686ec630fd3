"""Metadata entries as bytes: new ones, and those of a file taken over as they stand there."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from gguf_tools.records import GgufArray, GgufField, GgufInfo
from gguf_tools.types import VALUE_SIZES, ValueType

__all__ = ["Entry", "entries_of", "number_entry", "text_entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One metadata entry, ready to be written.

    Attributes:
        key: its name.
        type: type of the value.
        payload: the value's bytes; of an array, its element type and length as well.
    """

    key: str
    type: ValueType
    payload: bytes

    def to_bytes(self) -> bytes:
        """The entry as it stands in a file."""
        return _text(self.key) + struct.pack("<I", self.type) + self.payload


def text_entry(key: str, value: str) -> Entry:
    """An entry that holds a text."""
    return Entry(key, ValueType.STRING, _text(value))


def number_entry(key: str, kind: ValueType, value: float) -> Entry:
    """An entry that holds a number or a truth value of the type given."""
    return Entry(key, kind, struct.pack("<" + VALUE_SIZES[kind][1], value))


def entries_of(info: GgufInfo, skipped: Iterable[str] = ()) -> list[Entry]:
    """All entries of a file but those of the keys `skipped`, byte for byte, in the order of the file.

    Raises:
        ChangedFile, Unreadable: as in `FileStamp.read`.
    """
    left_out = frozenset(skipped)
    return [_entry(info, field) for key, field in info.fields.items() if key not in left_out]


def _entry(info: GgufInfo, field: GgufField) -> Entry:
    payload = info.stamp.read(field.offset, field.nbytes)
    if isinstance(field.value, GgufArray):
        payload = struct.pack("<IQ", field.value.type, field.value.length) + payload
    return Entry(field.key, field.type, payload)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
