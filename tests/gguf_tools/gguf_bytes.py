"""GGUF files built byte by byte, so that every byte of them can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gguf_tools.types import VALUE_SIZES, ValueType


def text(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: bytes | str, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def string(key: str, value: bytes | str) -> bytes:
    return entry(key, ValueType.STRING, text(value))


def scalar(key: str, kind: ValueType, value: float) -> bytes:
    return entry(key, kind, struct.pack("<" + VALUE_SIZES[kind][1], value))


def u32(key: str, value: int) -> bytes:
    return scalar(key, ValueType.UINT32, value)


def flag(key: str, value: int) -> bytes:
    return entry(key, ValueType.BOOL, bytes([value]))


def array(key: str, kind: int, count: int, payload: bytes) -> bytes:
    return entry(key, ValueType.ARRAY, struct.pack("<IQ", kind, count) + payload)


def strings(key: str, values: Sequence[bytes | str]) -> bytes:
    return array(key, ValueType.STRING, len(values), b"".join(text(v) for v in values))


def tensor(name: bytes | str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@dataclass
class Gguf:
    """Parts of a file; `build()` puts them together, whatever they are."""

    entries: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    data: bytes = b""
    version: int = 3
    magic: bytes = b"GGUF"
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def build(self) -> bytes:
        keys = len(self.entries) if self.key_count is None else self.key_count
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        head = self.magic + struct.pack("<IQQ", self.version, tensors, keys)
        head += b"".join(self.entries) + b"".join(self.tensors)
        if self.tensors:
            head += b"\0" * (-len(head) % self.alignment)
        return head + self.data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path


def chat_entries() -> list[bytes]:
    return [
        string("general.architecture", "llama"),
        u32("llama.context_length", 64),
        string("tokenizer.ggml.model", "gpt2"),
        strings("tokenizer.ggml.tokens", ["a", "b", "я", b"\xd1"]),
    ]


def chat_model(extra: Sequence[bytes] = ()) -> Gguf:
    """The smallest file that looks like a chat model: one token embedding of 2 × 4 float32."""
    return Gguf([*chat_entries(), *extra], [tensor("token_embd.weight", [2, 4], 0, 0)], bytes(32))
