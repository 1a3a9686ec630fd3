"""The GGUF writer: what it writes is what was given, byte for byte, and its steps can't be taken out of order."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest

from gguf_tools.entries import Entry, entries_of, number_entry, text_entry
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufArray
from gguf_tools.types import TENSOR_TYPES, ValueType
from gguf_tools.writer import GgufWriter, TensorSpec, WrongStep

from .gguf_bytes import Gguf, chat_entries, flag, string, strings, tensor, u32

F32, Q8_0 = TENSOR_TYPES[0], TENSOR_TYPES[8]


def write(entries: list[Entry], tensors: list[tuple[TensorSpec, bytes]]) -> bytes:
    stream = io.BytesIO()
    writer = GgufWriter(stream)
    writer.begin(entries, [spec for spec, _ in tensors])
    for spec, data in tensors:
        writer.tensor(spec.name, [data[:7], data[7:]])
    writer.end()
    return stream.getvalue()


def test_every_kind_of_entry_is_taken_over_byte_for_byte(tmp_path: Path) -> None:
    parts = [*chat_entries(), string("empty", ""), flag("yes", 1), strings("none", []), u32("general.alignment", 64)]
    source = Gguf(parts, [tensor("token_embd.weight", [2, 4], 0, 0)], bytes(range(32)), alignment=64)
    info = read_gguf(source.write(tmp_path / "source.gguf"))
    spec = TensorSpec("token_embd.weight", (2, 4), F32)
    assert write(entries_of(info), [(spec, bytes(range(32)))]) == source.build() + bytes(32)  # padded at its end too


def test_file_reads_back_and_the_gguf_package_agrees(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "made.gguf"
    specs = [(TensorSpec("a", (3,), F32), bytes(range(12))), (TensorSpec("b.weight", (32, 2), Q8_0), bytes(68))]
    entries = [
        text_entry("general.architecture", "llama"),
        text_entry("имя".encode().hex(), "имя 🙂"),
        number_entry("n", ValueType.UINT64, 1 << 40),
        number_entry("x", ValueType.FLOAT32, 0.5),
    ]
    file.write_bytes(write(entries, specs))
    info = read_gguf(file)
    assert info.trailing == 0 and info.metadata["n"] == 1 << 40 and info.text("имя".encode().hex()) == "имя 🙂"
    for found, (spec, data) in zip(info.tensors, specs, strict=True):
        assert (found.name, found.shape, found.nbytes) == (spec.name, spec.shape, len(data))
        assert info.stamp.read(found.offset, found.nbytes) == data
    other = gguf.GGUFReader(file)
    assert [bytes(t.data) for t in other.tensors] == [data for _, data in specs]


def test_checksums_are_of_the_data(tmp_path: Path) -> None:
    writer = GgufWriter(io.BytesIO())
    writer.begin([], [TensorSpec("a", (2,), F32)])
    writer.tensor("a", [memoryview(b"12345678")])
    assert writer.checksums == {"a": zlib.crc32(b"12345678")}


def test_steps_in_another_order_are_refused() -> None:
    spec = TensorSpec("a", (1,), F32)
    writer = GgufWriter(io.BytesIO())
    with pytest.raises(WrongStep):
        writer.tensor("a", [bytes(4)])
    writer.begin([], [spec, TensorSpec("b", (1,), F32)])
    with pytest.raises(WrongStep):
        writer.begin([], [])
    with pytest.raises(WrongStep, match="'b' isn't next"):
        writer.tensor("b", [bytes(4)])
    with pytest.raises(ValueError, match="has 3 bytes"):
        writer.tensor("a", [bytes(3)])
    with pytest.raises(WrongStep, match="'b' was not written"):
        writer.end()
    with pytest.raises(ValueError, match="key 'k' twice"):
        GgufWriter(io.BytesIO()).begin([text_entry("k", ""), text_entry("k", "")], [])
    with pytest.raises(ValueError, match="tensor 'a' twice"):
        GgufWriter(io.BytesIO()).begin([], [spec, spec])


def test_arrays_of_strings_keep_broken_utf8(tmp_path: Path) -> None:
    """Tokens may be parts of characters; decoding them would change them."""
    info = read_gguf(Gguf([strings("tokens", [b"\xff\xfe", b""])]).write(tmp_path / "a.gguf"))
    (tmp_path / "b.gguf").write_bytes(write(entries_of(info), []))
    value = read_gguf(tmp_path / "b.gguf").metadata["tokens"]
    assert isinstance(value, GgufArray) and list(value.strings()) == [b"\xff\xfe", b""]
