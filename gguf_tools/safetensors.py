"""Reading safetensors files that may be hostile.

The format (https://github.com/huggingface/safetensors#format): eight bytes with the header's length, a JSON object that
gives every tensor its type, shape and place, then the data without holes. Everything is checked before anything is
allocated for it; the data is mapped, not read, so a tensor costs memory only once it is asked for. The `safetensors`
package isn't used because its numpy side can't give BF16 tensors, takes the last of two tensors of one name, and has
one error for everything.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from gguf_tools.duplicates import repeated
from gguf_tools.errors import GgufError, Truncated, Unreadable
from gguf_tools.printable import byte_count, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "BadHeader",
    "BadTensor",
    "HeaderTooLarge",
    "NotSafetensors",
    "Safetensors",
    "SafetensorsTensor",
]

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 16 << 20  # 100 bytes a tensor; the largest models have some ten thousand tensors
_MAX_TENSORS = 65_535
_MAX_DIMENSIONS = 8
_MAX_NAME = 1024
_MAX_NUMBER = (1 << 53) - 1

# Bytes of an element and numpy's name; BF16 has none there and is widened.
_DTYPES: dict[str, tuple[int, str]] = {
    "BOOL": (1, "?"),
    "U8": (1, "u1"),
    "I8": (1, "i1"),
    "U16": (2, "<u2"),
    "I16": (2, "<i2"),
    "F16": (2, "<f2"),
    "BF16": (2, ""),
    "U32": (4, "<u4"),
    "I32": (4, "<i4"),
    "F32": (4, "<f4"),
    "U64": (8, "<u8"),
    "I64": (8, "<i8"),
    "F64": (8, "<f8"),
}


class NotSafetensors(GgufError):
    """The first bytes are not those of a safetensors file."""

    code = "not-safetensors"
    remedy = "name a safetensors file"


class HeaderTooLarge(GgufError):
    """A header longer than any real model's."""

    code = "safetensors-limit"


class BadHeader(GgufError):
    """A header that isn't the JSON that the format asks for."""

    code = "safetensors-header"


class BadTensor(GgufError):
    """A tensor with an unknown type, an impossible shape, or data that overlaps, leaves holes or ends elsewhere."""

    code = "safetensors-tensor"


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """One tensor.

    Attributes:
        name: its name.
        dtype: the format's name of the type, such as `F32`.
        shape: dimensions in numpy's order.
        offset: first byte, counted from the start of the file.
        nbytes: bytes of its data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Safetensors:
    """A safetensors file, checked and mapped. A context manager; arrays that it gave stay valid after closing.

    Attributes:
        path: the file.
        metadata: the header's free texts.
        tensors: tensors by name, in the order of their data.
    """

    path: str
    metadata: Mapping[str, str]
    tensors: Mapping[str, SafetensorsTensor]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file.

        Raises:
            GgufError: it can't be read, is something else, damaged or hostile; the class tells which.
        """
        self.path = os.fspath(path)
        self._map: mmap.mmap | None = None
        try:
            # Before opening: to open a named pipe would wait for a writer.
            mode = Path(self.path).stat().st_mode
            if not stat.S_ISREG(mode):
                raise Unreadable(self.path, "is a folder" if stat.S_ISDIR(mode) else "is no regular file", remedy=_NAME)
            with Path(self.path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < _LENGTH.size:
                    raise Truncated(self.path, f"has {size} bytes, a safetensors header has more")
                self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise Unreadable(self.path, "no such file", remedy=_NAME) from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise Unreadable(self.path, f"can't be read: {printable(reason)}", remedy=_NAME) from error
        try:
            self.metadata, self.tensors = _parse(self.path, self._map, size)
        except BaseException:
            self.close()
            raise

    def array(self, name: str) -> npt.NDArray[Any]:
        """A tensor's values as a numpy array of its shape; BF16 as float32. Read-only where it is a view of the file.

        Raises:
            KeyError: there is no such tensor.
            ValueError: the file is closed.
        """
        import numpy as np

        tensor = self.tensors[name]
        if self._map is None:
            raise ValueError(f"{self.path}: closed")
        code = _DTYPES[tensor.dtype][1]
        count = math.prod(tensor.shape)
        if code:
            return np.frombuffer(self._map, np.dtype(code), count, tensor.offset).reshape(tensor.shape)
        wide: npt.NDArray[np.uint32] = np.frombuffer(self._map, "<u2", count, tensor.offset).astype(np.uint32)
        return (wide << 16).view(np.float32).reshape(tensor.shape)

    def close(self) -> None:
        """Let go of the file; the map itself stays for as long as an array needs it."""
        if self._map is not None:
            with contextlib.suppress(BufferError):  # where arrays still look at it, it goes with the last of them
                self._map.close()
            self._map = None

    def __enter__(self) -> Safetensors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_NAME = "name a safetensors file that you may read"


def _parse(path: str, data: mmap.mmap, size: int) -> tuple[Mapping[str, str], Mapping[str, SafetensorsTensor]]:
    if data[:4] == b"GGUF":
        raise NotSafetensors(path, "is a GGUF file already")
    if data[:2] == b"PK":
        raise NotSafetensors(path, "is a ZIP archive (PyTorch weights?)", remedy="save the model as safetensors")
    (length,) = _LENGTH.unpack_from(data)
    if data[8:9] != b"{":
        raise NotSafetensors(path, "doesn't start like a safetensors file")
    if length > _MAX_HEADER:
        raise HeaderTooLarge(path, f"announces a header of {byte_count(length)}, {byte_count(_MAX_HEADER)} allowed")
    base = _LENGTH.size + length
    if base > size:
        raise Truncated(path, f"ends inside its header: {byte_count(length)} announced, {byte_count(size - 8)} there")
    header = _header(path, data[_LENGTH.size : base])
    free = header.pop("__metadata__", {})
    if not isinstance(free, dict) or not all(isinstance(value, str) for value in free.values()):
        raise BadHeader(path, "'__metadata__' isn't an object of texts")
    if len(header) > _MAX_TENSORS:
        raise HeaderTooLarge(path, f"announces {len(header)} tensors, {_MAX_TENSORS} allowed")
    tensors = sorted(
        (_tensor(path, name, entry, base) for name, entry in header.items()), key=lambda t: (t.offset, t.nbytes)
    )
    end = base
    for tensor in tensors:
        if tensor.offset != end:
            what = "inside the data before it" if tensor.offset < end else "behind unused bytes"
            raise BadTensor(path, f"the data of '{printable(tensor.name)}' starts {what}", offset=tensor.offset)
        end += tensor.nbytes
    if end > size:
        raise Truncated(path, f"has {byte_count(size)}, its tensors end at byte {end}")
    if end < size:
        raise BadTensor(path, f"has {byte_count(size - end)} behind its last tensor that nothing accounts for")
    return MappingProxyType(free), MappingProxyType({tensor.name: tensor for tensor in tensors})


def _header(path: str, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise BadHeader(path, "its header is nested too deeply") from error
    except ValueError as error:
        raise BadHeader(path, f"its header isn't the JSON that it should be: {printable(str(error), 120)}") from error
    if not isinstance(found, dict):
        raise BadHeader(path, "its header isn't a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValueError(f"the name '{printable(twice, 80)}' stands there twice")
    return dict(pairs)


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _tensor(path: str, name: str, entry: Any, base: int) -> SafetensorsTensor:
    shown = f"tensor '{printable(name, 80)}'"
    if not name or len(name) > _MAX_NAME:
        raise BadTensor(path, f"{shown}: a name has 1 to {_MAX_NAME} characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadTensor(path, f"{shown}: expected dtype, shape and data_offsets")
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise BadTensor(path, f"{shown} has type {printable(str(dtype), 40)}; known: {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_whole(n) for n in shape):
        raise BadTensor(path, f"{shown}: its shape isn't a list of at most {_MAX_DIMENSIONS} whole numbers")
    if not isinstance(place, list) or len(place) != 2 or not all(_whole(n) for n in place) or place[0] > place[1]:
        raise BadTensor(path, f"{shown}: its data_offsets aren't a first and a last byte")
    nbytes = math.prod(shape) * _DTYPES[dtype][0]
    if nbytes != place[1] - place[0]:
        raise BadTensor(
            path, f"{shown}: {dtype} {printable(str(shape), 80)} needs {nbytes} bytes, it has {place[1] - place[0]}"
        )
    return SafetensorsTensor(name, dtype, tuple(shape), base + place[0], nbytes)


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER
