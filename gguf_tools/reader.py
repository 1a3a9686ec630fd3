"""Reading the header of a GGUF file that may be hostile.

Every count, length, dimension, type, alignment, offset and extent is checked against the file's size and
against `Limits` before anything is allocated for it. Sizes are Python integers, so products don't wrap.
Large arrays are measured, not read. Where llama.cpp (`ggml/src/gguf.cpp`) refuses a file, so does this reader.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gguf_tools import errors, keys
from gguf_tools.printable import byte_count, printable
from gguf_tools.records import FileStamp, GgufArray, GgufField, GgufInfo, Scalar, TensorInfo
from gguf_tools.types import TENSOR_TYPES, VALUE_SIZES, ValueType

__all__ = ["Limits", "read_gguf"]

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
_HEADER_BYTES = 24
_U64 = struct.Struct("<Q")
_VALUE_TYPES = {int(t): t for t in ValueType}

# Beginnings by which other files that people mistake for GGUF are told apart: what it is, what to do.
_MISTAKEN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model", "fetch the model itself with `git lfs pull`"),
    (b"<!doctype html", "a web page", "download the file itself, not the page about it"),
    (b"<html", "a web page", "download the file itself, not the page about it"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it, or convert PyTorch weights with llama.cpp's convert_hf_to_gguf.py"),
    (b"lmgg", "a GGML file from before GGUF", "convert the model again with a current llama.cpp"),
    (b"tjgg", "a GGML file from before GGUF", "convert the model again with a current llama.cpp"),
    (b"fmgg", "a GGML file from before GGUF", "convert the model again with a current llama.cpp"),
    (b"algg", "a GGML LoRA file from before GGUF", "convert the adapter again with a current llama.cpp"),
    (b"FUGG", "a big-endian file, or damaged", "get the little-endian file"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What no real model exceeds. A file beyond any of these is refused before it costs memory or time.

    Attributes:
        keys: metadata entries.
        tensors: tensors.
        key_bytes: length of a key.
        tensor_name_bytes: length of a tensor's name (llama.cpp stores 63 and a NUL).
        string_bytes: length of one text.
        text_bytes: all keys, texts and names together.
        array_elements: elements of one array.
        array_strings: elements of all string arrays together, since each has to be stepped over.
        dimensions: dimensions of a tensor.
        alignment: the largest alignment.
    """

    keys: int = 65_535
    tensors: int = 65_535
    key_bytes: int = 65_535
    tensor_name_bytes: int = 63
    string_bytes: int = 64 << 20
    text_bytes: int = 256 << 20
    array_elements: int = 1 << 24
    array_strings: int = 1 << 24
    dimensions: int = 4
    alignment: int = 65_536


def read_gguf(path: str | os.PathLike[str], limits: Limits | None = None) -> GgufInfo:
    """The checked header of a GGUF file (version 2 or 3, little endian). No tensor data is read.

    Raises:
        GgufError: the file is no GGUF, damaged, hostile or beyond `limits`; the class tells which.
    """
    name = os.fspath(path)
    try:
        # Before opening: to open a named pipe would wait for a writer.
        mode = Path(name).stat().st_mode
        if not stat.S_ISREG(mode):
            raise errors.Unreadable(name, "is a folder" if stat.S_ISDIR(mode) else "is no regular file")
        with Path(name).open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = FileStamp(name, status.st_size, status.st_mtime_ns)
            if stamp.size < _HEADER_BYTES:
                _check_magic(name, file.read(_HEADER_BYTES))
                raise errors.Truncated(name, f"has {stamp.size} bytes, a GGUF header has {_HEADER_BYTES}")
            _check_magic(name, file.read(256))
            with mmap.mmap(file.fileno(), stamp.size, access=mmap.ACCESS_READ) as data:
                return _Parser(data, stamp, limits or Limits()).parse()
    except FileNotFoundError as error:
        raise errors.Unreadable(name, "no such file") from error
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise errors.Unreadable(name, f"can't be read: {printable(reason)}") from error


def _check_magic(path: str, head: bytes) -> None:
    if head[:4] == MAGIC:
        return
    if not head:
        raise errors.NotGguf(path, "is empty")
    if MAGIC.startswith(head):
        raise errors.Truncated(path, f"has {len(head)} bytes, a GGUF header has {_HEADER_BYTES}")
    lowered = head.lstrip().lower()
    for beginning, what, remedy in _MISTAKEN:
        if head.startswith(beginning) or (len(beginning) > 4 and lowered.startswith(beginning)):
            raise errors.NotGguf(path, f"is {what}", remedy=remedy)
    if head[8:9] == b"{" and head[5:8] == b"\0\0\0":
        raise errors.NotGguf(path, "is a safetensors file", remedy="convert it with llama.cpp's convert_hf_to_gguf.py")
    try:
        text = head[:252].decode("utf-8", "strict" if len(head) < 252 else "ignore")
        if all(c.isprintable() or c.isspace() for c in text) and len(text.encode()) >= len(head[:252]) - 3:
            raise errors.NotGguf(path, f"is a text file that starts with '{printable(text.strip(), 32)}'")
    except UnicodeDecodeError:
        pass
    raise errors.NotGguf(path, f"starts with the bytes {head[:4].hex(' ')}, a GGUF file with {MAGIC.hex(' ')}")


class _Parser:
    """One pass over the mapped file. `at` is the position of the next byte; nothing behind `size` is touched."""

    def __init__(self, data: mmap.mmap, stamp: FileStamp, limits: Limits) -> None:
        self.data = data
        self.stamp = stamp
        self.limits = limits
        self.path = stamp.path
        self.size = stamp.size
        self.at = len(MAGIC)
        self.text_left = limits.text_bytes
        self.strings_left = limits.array_strings

    def parse(self) -> GgufInfo:
        version = self.read_version()
        tensor_count = self.read_count("tensors", self.limits.tensors, smallest=24)
        key_count = self.read_count("metadata keys", self.limits.keys, smallest=13)
        fields = self.read_fields(key_count)
        alignment = self.alignment(fields)
        tensors, data_offset, end = self.read_tensors(tensor_count, alignment)
        trailing = self.size - min(self.size, _pad(end, alignment))
        return GgufInfo(self.stamp, version, alignment, MappingProxyType(fields), tensors, data_offset, trailing)

    # Numbers and texts.

    def need(self, nbytes: int, what: str) -> None:
        """Refuse the file unless `nbytes` more bytes are there."""
        if nbytes > self.size - self.at:
            found = byte_count(self.size - self.at)
            raise errors.Truncated(
                self.path, f"ends inside {what}: {byte_count(nbytes)} announced, {found} left", offset=self.at
            )

    def number(self, nbytes: int, what: str) -> int:
        self.need(nbytes, what)
        value = int.from_bytes(self.data[self.at : self.at + nbytes], "little")
        self.at += nbytes
        return value

    def text(self, what: str, limit: int) -> bytes:
        start = self.at
        length = self.number(8, f"the length of {what}")
        if length > limit:
            raise errors.LimitExceeded(self.path, f"{what} has {length} bytes, {limit} allowed", offset=start)
        self.need(length, what)
        if length > self.text_left:
            raise errors.LimitExceeded(
                self.path, f"texts of more than {byte_count(self.limits.text_bytes)} in all", offset=start
            )
        self.text_left -= length
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw

    # The header's parts, in the order of the file.

    def read_version(self) -> int:
        version = self.number(4, "the version")
        if version in (2, 3):
            return version
        # As llama.cpp tells it: a small number in the other byte order has nothing in its low half.
        if version & 0xFFFF == 0 and version:
            raise errors.BigEndian(self.path, "is a big-endian GGUF, only little-endian ones are read", offset=4)
        raise errors.UnsupportedVersion(self.path, f"has GGUF version {version}, versions 2 and 3 are read", offset=4)

    def read_count(self, what: str, limit: int, smallest: int) -> int:
        """A count that fits the limit and, at `smallest` bytes each, the rest of the file."""
        start = self.at
        count = self.number(8, f"the number of {what}")
        if count > limit:
            raise errors.LimitExceeded(self.path, f"announces {count} {what}, {limit} allowed", offset=start)
        if count * smallest > self.size - self.at:
            raise errors.Truncated(
                self.path, f"announces {count} {what} in the {self.size - self.at} bytes left", offset=start
            )
        return count

    def read_fields(self, count: int) -> dict[str, GgufField]:
        fields: dict[str, GgufField] = {}
        for index in range(count):
            start = self.at
            raw = self.text(f"metadata key {index}", self.limits.key_bytes)
            if not raw or not all(0x20 <= byte <= 0x7E for byte in raw):
                shown = printable(raw.decode("utf-8", "backslashreplace"), 60)
                raise errors.BadKey(
                    self.path, f"metadata key {index} is '{shown}', keys are printable ASCII", offset=start
                )
            key = raw.decode("ascii")
            if key in fields:
                raise errors.DuplicateKey(self.path, f"has the metadata key '{printable(key, 80)}' twice", offset=start)
            fields[key] = self.read_field(key)
        return fields

    def read_field(self, key: str) -> GgufField:
        shown = f"'{printable(key, 80)}'"
        kind = self.value_type(shown)
        if kind is ValueType.ARRAY:
            array = self.read_array(shown)
            return GgufField(key, kind, array, array.offset, array.nbytes)
        start = self.at
        if kind is ValueType.STRING:
            raw = self.text(shown, self.limits.string_bytes)
            return GgufField(key, kind, self.decode(raw, key, start), start, 8 + len(raw))
        return GgufField(key, kind, self.read_scalar(kind, shown), start, self.at - start)

    def decode(self, raw: bytes, key: str, start: int) -> str:
        """A text value. Elsewhere than in `ltm.*` a stray byte is no reason to refuse a model that llama.cpp runs."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if key.startswith(keys.LTM_PREFIX):
                raise errors.BadText(
                    self.path, f"'{printable(key, 80)}' isn't UTF-8", offset=start + 8 + error.start
                ) from error
            return raw.decode("utf-8", "replace")

    def value_type(self, shown: str) -> ValueType:
        start = self.at
        number = self.number(4, f"the type of {shown}")
        kind = _VALUE_TYPES.get(number)
        if kind is None:
            raise errors.UnknownValueType(
                self.path, f"{shown} has value type {number}, 0 to {max(_VALUE_TYPES)} exist", offset=start
            )
        return kind

    def read_scalar(self, kind: ValueType, shown: str) -> Scalar:
        size, code = VALUE_SIZES[kind]
        self.need(size, shown)
        raw = self.data[self.at : self.at + size]
        if kind is ValueType.BOOL and raw not in (b"\0", b"\1"):
            raise errors.BadBool(self.path, f"{shown} is {raw[0]}, a truth value is 0 or 1", offset=self.at)
        self.at += size
        value: Scalar = struct.unpack("<" + code, raw)[0]
        return value

    def read_array(self, shown: str) -> GgufArray:
        start = self.at
        kind = self.value_type(f"the elements of {shown}")
        if kind is ValueType.ARRAY:
            raise errors.NestedArray(self.path, f"{shown} is an array of arrays", offset=start)
        count = self.number(8, f"the length of {shown}")
        if count > self.limits.array_elements:
            raise errors.LimitExceeded(
                self.path, f"{shown} has {count} elements, {self.limits.array_elements} allowed", offset=start + 4
            )
        offset = self.at
        if kind is ValueType.STRING:
            self.skip_strings(count, shown)
        else:
            self.need(count * VALUE_SIZES[kind][0], shown)
            self.at += count * VALUE_SIZES[kind][0]
        return GgufArray(kind, count, offset, self.at - offset, self.stamp)

    def skip_strings(self, count: int, shown: str) -> None:
        """Step over `count` strings. This is the one loop that runs 10^5 times in real files, hence its plainness."""
        self.need(8 * count, shown)
        if count > self.strings_left:
            raise errors.LimitExceeded(
                self.path, f"string arrays of more than {self.limits.array_strings} elements in all", offset=self.at
            )
        self.strings_left -= count
        at, last = self.at, self.size - 8
        unpack: Callable[[mmap.mmap, int], tuple[int]] = _U64.unpack_from
        data = self.data
        for index in range(count):
            if at > last:
                raise errors.Truncated(self.path, f"ends inside element {index} of {shown}", offset=self.size)
            at += 8 + unpack(data, at)[0]
        if at > self.size:
            raise errors.Truncated(self.path, f"ends inside the last element of {shown}", offset=self.size)
        self.at = at

    def alignment(self, fields: dict[str, GgufField]) -> int:
        field = fields.get(keys.GENERAL_ALIGNMENT)
        if field is None:
            return DEFAULT_ALIGNMENT
        value = field.value
        if field.type is not ValueType.UINT32 or not isinstance(value, int):
            raise errors.BadAlignment(
                self.path, f"'{field.key}' is a {field.type.name}, it must be a UINT32", offset=field.offset
            )
        if not 8 <= value <= self.limits.alignment or value & (value - 1):
            raise errors.BadAlignment(
                self.path,
                f"'{field.key}' is {value}, powers of two from 8 to {self.limits.alignment} are allowed",
                offset=field.offset,
            )
        return value

    # Tensors.

    def read_tensors(self, count: int, alignment: int) -> tuple[tuple[TensorInfo, ...], int, int]:
        """All tensors with absolute offsets, where their data starts, and where it ends without padding."""
        found: list[tuple[TensorInfo, int]] = []
        names: set[str] = set()
        for index in range(count):
            start = self.at
            tensor = self.read_tensor(index)
            if tensor.name in names:
                raise errors.DuplicateTensor(
                    self.path, f"has the tensor '{printable(tensor.name)}' twice", offset=start
                )
            names.add(tensor.name)
            found.append((tensor, start))
        if not found:
            return (), self.at, self.at
        base = _pad(self.at, alignment)
        expected = end = 0
        tensors = []
        for tensor, start in found:
            self.check_place(tensor, start, expected, alignment)
            end = tensor.offset + tensor.nbytes
            if base + end > self.size:
                raise errors.Truncated(
                    self.path,
                    f"the data of tensor '{printable(tensor.name)}' ends at byte {base + end}, the file at {self.size}",
                )
            expected = _pad(end, alignment)
            tensors.append(TensorInfo(tensor.name, tensor.shape, tensor.type, base + tensor.offset, tensor.nbytes))
        return tuple(tensors), base, base + end

    def check_place(self, tensor: TensorInfo, start: int, expected: int, alignment: int) -> None:
        """Data stands in the order of the table, each tensor at the first aligned byte after the one before."""
        if tensor.offset == expected:
            return
        shown = f"tensor '{printable(tensor.name)}' has offset {tensor.offset}"
        if tensor.offset % alignment:
            raise errors.Misaligned(self.path, f"{shown}, not a multiple of the alignment {alignment}", offset=start)
        if tensor.offset < expected:
            raise errors.Overlap(self.path, f"{shown}, inside the data before it, expected {expected}", offset=start)
        if tensor.offset > self.size:
            raise errors.Truncated(self.path, f"{shown}, behind the end of the file ({self.size} bytes)", offset=start)
        raise errors.Hole(self.path, f"{shown}, expected {expected}: unused bytes between tensors", offset=start)

    def read_tensor(self, index: int) -> TensorInfo:
        start = self.at
        raw = self.text(f"the name of tensor {index}", self.limits.tensor_name_bytes)
        name = raw.decode("utf-8", "backslashreplace")
        if not raw or not name.isprintable() or name.encode() != raw:
            raise errors.BadTensorName(
                self.path, f"tensor {index} has the name '{printable(name, 80)}', it must be printable", offset=start
            )
        dimensions = self.number(4, f"the shape of tensor '{name}'")
        if dimensions > self.limits.dimensions:
            raise errors.BadShape(
                self.path,
                f"tensor '{name}' has {dimensions} dimensions, {self.limits.dimensions} allowed",
                offset=self.at - 4,
            )
        shape = tuple(self.number(8, f"the shape of tensor '{name}'") for _ in range(dimensions))
        number = self.number(4, f"the type of tensor '{name}'")
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise errors.UnknownTensorType(
                self.path, f"tensor '{name}' has type {number}, which ggml doesn't have", offset=self.at - 4
            )
        offset = self.number(8, f"the offset of tensor '{name}'")
        tensor = TensorInfo(name, shape, kind, offset, 0)
        elements = tensor.elements
        if elements == 0 or elements > (1 << 63) - 1:
            found = "no elements" if elements == 0 else f"{elements} elements, more than 2^63"
            raise errors.BadShape(self.path, f"tensor '{name}' of shape {list(shape)} has {found}", offset=start)
        row = shape[0] if shape else 1
        if row % kind.block:
            raise errors.BadShape(
                self.path,
                f"tensor '{name}' has rows of {row} elements, {kind.name} needs a multiple of {kind.block}",
                offset=start,
            )
        nbytes = elements // kind.block * kind.block_bytes
        if nbytes > self.size:
            raise errors.Truncated(
                self.path,
                f"tensor '{name}' of shape {list(shape)} needs {nbytes} bytes, the file has {self.size}",
                offset=start,
            )
        return TensorInfo(name, shape, kind, offset, nbytes)


def _pad(position: int, alignment: int) -> int:
    """The first multiple of `alignment` at or after `position`."""
    return -(-position // alignment) * alignment
