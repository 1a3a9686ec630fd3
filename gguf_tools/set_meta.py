"""Changing the metadata of a GGUF file. Its tensors and its sidecar folder are taken over byte for byte."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from gguf_tools import keys
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.bundle_writer import BundleWriter
from gguf_tools.converter import Converter, Plan, Progress
from gguf_tools.entries import Entry, entries_of, number_entry, text_entry
from gguf_tools.errors import GgufError
from gguf_tools.ltm import MAX_TEXT
from gguf_tools.merge import MergedTensors
from gguf_tools.printable import printable
from gguf_tools.types import ValueType
from gguf_tools.writer import Bytes

__all__ = ["MetadataEditor"]

# The one decides where tensors stand, the other is computed from the sidecar folder.
_FIXED = (keys.GENERAL_ALIGNMENT, keys.LTM_SIDECAR_SHA256)
_WHOLE = (
    ValueType.UINT8, ValueType.INT8, ValueType.UINT16, ValueType.INT16,
    ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64,
)  # fmt: skip


class MetadataEditor(Converter):
    """Writes a GGUF file with other metadata."""

    def __init__(
        self,
        source: Path,
        target: Path,
        changes: Mapping[str, str | None],
        *,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Set up a change.

        Args:
            source: the file.
            target: the file to write; with `force` it may be the same.
            changes: new values by key, None to take a key out. A key that is there keeps its type, a new one is text.
            force: replace `target`.
            progress: told of progress.
        """
        super().__init__(target, force=force, progress=progress)
        self._source = source
        self._changes = dict(changes)
        self._reader: BundleReader | None = None
        self._merged: MergedTensors | None = None
        self._new: dict[str, Entry] = {}

    def check(self) -> list[str]:
        problems = []
        try:
            self._reader = BundleReader.open(self._source)
            self._merged = MergedTensors(self._reader.info, None)
        except GgufError as error:
            return [str(error)]
        for key, value in self._changes.items():
            shown = f"'{printable(key, 80)}'"
            field = self._reader.info.fields.get(key)
            if key in _FIXED:
                problems.append(f"{shown}: can't be set by hand")
            elif value is None:
                if field is None:
                    problems.append(f"{shown}: there is no such key to take out")
            elif not key or not all(0x20 <= ord(c) <= 0x7E for c in key) or len(key) > 200:
                problems.append(f"{shown}: keys are 1 to 200 printable ASCII characters")
            else:
                try:
                    kind = field.type if field is not None else ValueType.STRING
                    self._new[key] = _entry(key, kind, value)
                except (ValueError, OverflowError) as error:
                    problems.append(f"{shown}: {error}")
        return problems

    def add_files(self, writer: BundleWriter) -> None:
        assert self._reader is not None
        for path in self._reader.files:
            writer.add_file(path, self._reader.file(path))

    def plan(self) -> Plan:
        assert self._reader is not None and self._merged is not None
        ltm = {key: text for key, text in self._reader.entries.items() if key not in self._changes}
        ltm |= {
            key: text for key, text in self._changes.items() if text is not None and key.startswith(keys.LTM_PREFIX)
        }
        ltm.pop(keys.LTM_SIDECAR_SHA256, None)
        gone = {key for key, value in self._changes.items() if value is None} | set(self._reader.entries)
        fresh = {key: entry for key, entry in self._new.items() if not key.startswith(keys.LTM_PREFIX)}
        kept = [fresh.pop(entry.key, entry) for entry in entries_of(self._reader.info, gone)]
        return Plan((*kept, *fresh.values()), ltm, self._merged.specs)

    def chunks(self, name: str) -> Iterable[Bytes]:
        assert self._merged is not None
        return self._merged.chunks(name)

    def close(self) -> None:
        if self._merged is not None:
            self._merged.close()


def _entry(key: str, kind: ValueType, value: str) -> Entry:
    if kind is ValueType.STRING or key.startswith(keys.LTM_PREFIX):
        if len(value.encode("utf-8")) > MAX_TEXT:
            raise ValueError(f"{len(value)} characters, {MAX_TEXT} bytes are allowed")
        return text_entry(key, value)
    if kind is ValueType.ARRAY:
        raise ValueError("is an array, which can't be set here")
    if kind is ValueType.BOOL:
        if value not in ("true", "false"):
            raise ValueError(f"'{printable(value, 40)}': true or false")
        return number_entry(key, kind, value == "true")
    try:
        number = int(value) if kind in _WHOLE else float(value)
        if not math.isfinite(number):
            raise ValueError
        return number_entry(key, kind, number)
    except (ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"'{printable(value, 40)}' is no {kind.name}") from error
