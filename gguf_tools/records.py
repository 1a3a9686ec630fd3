"""What a GGUF header says, as frozen records."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gguf_tools.errors import ChangedFile, Unreadable
from gguf_tools.types import VALUE_SIZES, TensorType, ValueType

__all__ = ["FileStamp", "GgufArray", "GgufField", "GgufInfo", "Scalar", "TensorInfo", "Value"]

_SIZE = struct.Struct("<Q").unpack_from  # of a string, before it

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file as it was when its header was read, so that a later read can tell whether it is still that file.

    Attributes:
        path: the file.
        size: bytes.
        mtime_ns: time of its last change.
    """

    path: str
    size: int
    mtime_ns: int

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset`.

        Raises:
            ChangedFile: the file is another one now, or shorter.
            Unreadable: the system refuses.
        """
        try:
            with Path(self.path).open("rb") as file:
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
                    raise ChangedFile(self.path, "changed while it was being read")
                file.seek(offset)
                data = file.read(nbytes)
        except OSError as error:
            raise Unreadable(self.path, f"can't be read: {error.strerror or error}") from error
        if len(data) != nbytes:
            raise ChangedFile(self.path, "became shorter while it was being read", offset=offset)
        return data


@dataclass(frozen=True, slots=True)
class GgufArray:
    """A metadata array. Its place in the file is known and checked; its elements are read when asked for.

    Attributes:
        type: type of the elements, never ARRAY.
        length: number of elements.
        offset: byte of the first element in the file.
        nbytes: bytes of all elements.
        stamp: the file.
    """

    type: ValueType
    length: int
    offset: int
    nbytes: int
    stamp: FileStamp

    def __len__(self) -> int:
        return self.length

    def values(self, first: int | None = None) -> tuple[Scalar, ...]:
        """The elements, or the first so many. Bytes that aren't UTF-8 become U+FFFD: tokens may be parts of characters.

        Raises:
            ChangedFile, Unreadable: as in `FileStamp.read`.
        """
        if self.type is ValueType.STRING:
            return tuple(raw.decode("utf-8", "replace") for raw in self.strings(first))
        size, code = VALUE_SIZES[self.type]
        count = self.length if first is None else min(first, self.length)
        if self.type is ValueType.BOOL:
            return tuple(byte != 0 for byte in self.stamp.read(self.offset, count))
        return struct.unpack(f"<{count}{code}", self.stamp.read(self.offset, count * size))

    def strings(self, first: int | None = None) -> Iterator[bytes]:
        """The elements of a string array as they stand in the file, or the first so many.

        Raises:
            TypeError: the elements aren't strings.
            ChangedFile, Unreadable: as in `FileStamp.read`.
        """
        if self.type is not ValueType.STRING:
            raise TypeError(f"array of {self.type.name}, not of STRING")
        count = self.length if first is None else min(first, self.length)
        if first is not None and count < self.length:
            position = self.offset
            for _ in range(count):
                (size,) = struct.unpack("<Q", self.stamp.read(position, 8))
                yield self.stamp.read(position + 8, min(size, self.offset + self.nbytes - position - 8))
                position += 8 + size
            return
        data = self.stamp.read(self.offset, self.nbytes)
        end = 0
        for _ in range(count):
            start = end + 8
            end = start + _SIZE(data, end)[0]
            yield data[start:end]


Value = Scalar | GgufArray


@dataclass(frozen=True, slots=True)
class GgufField:
    """One metadata entry.

    Attributes:
        key: its name.
        type: type of the value; ARRAY for arrays, whose element type is in the value.
        value: the value.
        offset: byte of the value in the file, after the type (and, of an array, after its length).
        nbytes: bytes of the value (of a string, the length's eight bytes included).
    """

    key: str
    type: ValueType
    value: Value
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor.

    Attributes:
        name: its name.
        shape: dimensions as GGUF has them, the fastest-varying first (numpy's shape reversed); 0 to 4 of them.
        type: ggml type.
        offset: first byte, counted from the start of the file.
        nbytes: bytes of its data.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """The header of a GGUF file, checked against the file.

    Attributes:
        stamp: the file.
        version: GGUF version, 2 or 3.
        alignment: bytes to whose multiples tensor data is aligned.
        fields: metadata entries by key, in the order of the file.
        tensors: tensors in the order of the file, which is also that of their data.
        data_offset: byte where the tensor data starts.
        trailing: bytes after the last tensor beyond what alignment explains.
    """

    stamp: FileStamp
    version: int
    alignment: int
    fields: Mapping[str, GgufField]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    trailing: int

    @property
    def path(self) -> str:
        """The file."""
        return self.stamp.path

    @property
    def file_size(self) -> int:
        """Bytes of the file."""
        return self.stamp.size

    @property
    def metadata(self) -> Mapping[str, Value]:
        """Plain values by key; arrays stay `GgufArray`."""
        return MappingProxyType({key: field.value for key, field in self.fields.items()})

    @property
    def architecture(self) -> str:
        """`general.architecture`, empty where the file has none."""
        return self.text("general.architecture") or ""

    def text(self, key: str) -> str | None:
        """The value of `key` if it is a string."""
        field = self.fields.get(key)
        return field.value if field is not None and isinstance(field.value, str) else None

    def number(self, key: str) -> int | None:
        """The value of `key` if it is a whole number."""
        field = self.fields.get(key)
        value = field.value if field is not None else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool | None:
        """The value of `key` if it is a truth value."""
        field = self.fields.get(key)
        return field.value if field is not None and isinstance(field.value, bool) else None

    def array(self, key: str) -> GgufArray | None:
        """The value of `key` if it is an array."""
        field = self.fields.get(key)
        return field.value if field is not None and isinstance(field.value, GgufArray) else None

    def arch_number(self, name: str) -> int | None:
        """The whole number under `<architecture>.<name>`."""
        return self.number(f"{self.architecture}.{name}")
