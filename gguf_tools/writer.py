"""Writing a GGUF file tensor by tensor: a state machine whose steps refuse to be taken out of order.

The `gguf` package's writer isn't used here because it drops empty values silently, can't take over an entry byte for
byte, and wants a whole tensor at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

from gguf_tools import keys
from gguf_tools.duplicates import repeated
from gguf_tools.entries import Entry
from gguf_tools.types import TensorType, ValueType

__all__ = ["Bytes", "GgufWriter", "TensorSpec", "WrongStep"]

Bytes = bytes | bytearray | memoryview

_VERSION = 3
_DEFAULT_ALIGNMENT = 32


class WrongStep(RuntimeError):
    """A writer was used in another order than its steps have: a defect of the caller, not of a file."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to be written.

    Attributes:
        name: its name.
        shape: dimensions, the fastest-varying first.
        type: ggml type; rows hold whole blocks.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count // self.type.block * self.type.block_bytes


class _Step(Enum):
    HEADER = "begin"
    DATA = "tensor"
    DONE = "nothing more"


class GgufWriter:
    """Writes one GGUF file to a stream: `begin` once, `tensor` for each in order, `end` once.

    Attributes:
        checksums: CRC-32 of each tensor's data by name, as it was written.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._step = _Step.HEADER
        self._left: list[TensorSpec] = []
        self._alignment = _DEFAULT_ALIGNMENT
        self._at = 0
        self.checksums: dict[str, int] = {}

    def begin(self, entries: Iterable[Entry], tensors: Iterable[TensorSpec]) -> None:
        """Write the header.

        Raises:
            ValueError: a key or a tensor's name stands there twice.
            WrongStep: it was written already.
        """
        self._expect(_Step.HEADER)
        listed, specs = list(entries), list(tensors)
        for what, names in (("key", [e.key for e in listed]), ("tensor", [t.name for t in specs])):
            if (twice := repeated(names)) is not None:
                raise ValueError(f"{what} {twice!r} twice")
        for entry in listed:
            if entry.key == keys.GENERAL_ALIGNMENT and entry.type is ValueType.UINT32:
                (self._alignment,) = struct.unpack("<I", entry.payload)
        head = [b"GGUF", struct.pack("<IQQ", _VERSION, len(specs), len(listed))]
        head += [entry.to_bytes() for entry in listed]
        offset = 0
        for spec in specs:
            raw = spec.name.encode("utf-8")
            head.append(struct.pack("<Q", len(raw)) + raw)
            head.append(struct.pack(f"<I{len(spec.shape)}QIQ", len(spec.shape), *spec.shape, spec.type.id, offset))
            offset = _pad(offset + spec.nbytes, self._alignment)
        self._write(b"".join(head))
        if specs:
            self._align()
        self._left = specs[::-1]
        self._step = _Step.DATA

    def tensor(self, name: str, chunks: Iterable[Bytes]) -> None:
        """Write a tensor's data.

        Raises:
            WrongStep: another tensor is next.
            ValueError: it has more or fewer bytes than its shape and type ask for.
        """
        self._expect(_Step.DATA)
        if not self._left or self._left[-1].name != name:
            raise WrongStep(f"tensor {name!r} isn't next")
        spec = self._left.pop()
        found = crc = 0
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            self._write(view)
            found += len(view)
            crc = zlib.crc32(view, crc)
        if found != spec.nbytes:
            raise ValueError(f"tensor {name!r} has {found} bytes, its shape and type ask for {spec.nbytes}")
        self.checksums[name] = crc
        self._align()

    def end(self) -> None:
        """Nothing more is written.

        Raises:
            WrongStep: a tensor is missing.
        """
        self._expect(_Step.DATA)
        if self._left:
            raise WrongStep(f"tensor {self._left[-1].name!r} was not written")
        self._step = _Step.DONE

    def _expect(self, step: _Step) -> None:
        if self._step is not step:
            raise WrongStep(f"{step.value} is no step here; {self._step.value} is")

    def _write(self, data: Bytes) -> None:
        self._stream.write(data)
        self._at += memoryview(data).nbytes

    def _align(self) -> None:
        self._write(bytes(_pad(self._at, self._alignment) - self._at))


def _pad(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
