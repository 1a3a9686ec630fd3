"""The safetensors reader: what it gives, and every malformation it refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_tools.errors import GgufError, Truncated, Unreadable
from gguf_tools.safetensors import BadHeader, BadTensor, HeaderTooLarge, NotSafetensors, Safetensors


def build(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: Any = "F32", shape: Any = (1,), first: Any = 0, last: Any = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [first, last]}


def read(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with Safetensors(path) as file:
        return {name: file.array(name) for name in file.tensors}


def test_values_come_out_as_they_are(tmp_path):
    data = np.array([1.5, -2], "<f4").tobytes() + bytes([0x80, 0x3F, 0x20, 0xC0]) + np.array([7], "<i8").tobytes()
    header = {
        "n": entry("I64", (1,), 12, 20),
        "a": entry("F32", (2, 1), 0, 8),
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", (2,), 8, 12),
        "none": entry("F16", (0, 3), 8, 8),
    }
    found = read(tmp_path, build(header, data))
    assert found["a"].tolist() == [[1.5], [-2.0]] and found["b"].tolist() == [1.0, -2.5]
    assert found["n"].tolist() == [7] and found["none"].shape == (0, 3)
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 1


CASES: dict[str, tuple[bytes, type[GgufError]]] = {
    "empty": (b"", Truncated),
    "short": (b"\x08\0\0", Truncated),
    "gguf": (b"GGUF" + bytes(40), NotSafetensors),
    "zip": (b"PK\3\4" + bytes(40), NotSafetensors),
    "text": (b"hello, world, this is text", NotSafetensors),
    "header beyond the file": (build({"a": entry()}, b"aaaa", length=10_000), Truncated),
    "header bomb": (build({"a": entry()}, b"aaaa", length=1 << 62), HeaderTooLarge),
    "too many tensors": (build({str(i): entry("U8", (0,), 0, 0) for i in range(70_000)}), HeaderTooLarge),
    "not json": (build(b"{nonsense}"), BadHeader),
    "cut json": (build(b'{"a":'), BadHeader),
    "nested": (build(b'{"a":' + b"[" * 200_000), BadHeader),
    "not utf-8": (build(b'{"\xff":1}'), BadHeader),
    "huge number": (build(b'{"a":' + b"9" * 10_000 + b"}"), BadHeader),
    "nan": (build(b'{"a":NaN}'), BadHeader),
    "twice": (build(b'{"a":1,"a":1}'), BadHeader),
    "metadata": (build({"__metadata__": {"a": 1}}), BadHeader),
    "entry": (build({"a": 5}), BadTensor),
    "extra key": (build({"a": {**entry(), "more": 1}}, b"aaaa"), BadTensor),
    "name": (build({"": entry()}, b"aaaa"), BadTensor),
    "dtype": (build({"a": entry("F99")}, b"aaaa"), BadTensor),
    "dtype list": (build({"a": entry([])}, b"aaaa"), BadTensor),
    "shape": (build({"a": entry(shape="4")}, b"aaaa"), BadTensor),
    "negative": (build({"a": entry(shape=(-1,))}, b"aaaa"), BadTensor),
    "float shape": (build({"a": entry(shape=(1.0,))}, b"aaaa"), BadTensor),
    "true shape": (build({"a": entry(shape=(True,))}, b"aaaa"), BadTensor),
    "dimensions": (build({"a": entry(shape=(1,) * 9)}, b"aaaa"), BadTensor),
    "overflow": (build({"a": entry(shape=(1 << 33, 1 << 31))}, b"aaaa"), BadTensor),
    "size": (build({"a": entry(shape=(2,))}, b"aaaa"), BadTensor),
    "backwards": (build({"a": entry(first=4, last=0)}, b"aaaa"), BadTensor),
    "overlap": (build({"a": entry(), "b": entry()}, b"aaaa"), BadTensor),
    "hole": (build({"a": entry(), "b": entry(first=8, last=12)}, b"a" * 12), BadTensor),
    "truncated": (build({"a": entry()}, b"aaa"), Truncated),
    "trailing": (build({"a": entry()}, b"aaaaa"), BadTensor),
}


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_file_is_refused(tmp_path, name):
    content, expected = CASES[name]
    with pytest.raises(GgufError) as caught:
        read(tmp_path, content)
    assert type(caught.value) is expected and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Unreadable):
            Safetensors(path)


@given(st.data())
def test_changed_bytes_are_refused_or_read_within_bounds(tmp_path_factory, data):
    header = {"a": entry("F32", (2, 2), 0, 16), "b": entry("I8", (3,), 16, 19), "__metadata__": {"k": "v"}}
    content = bytearray(build(header, bytes(19)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(tmp_path_factory.mktemp("st"), bytes(content[: data.draw(st.integers(0, len(content)))]))
    except GgufError:
        return
    assert sum(array.nbytes for array in found.values()) <= 2 * len(content)
