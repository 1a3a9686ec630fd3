"""Sound files: every value type, both versions, real models, large vocabularies; checked against the gguf package."""

from __future__ import annotations

import ctypes
import math
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from gguf_tools import errors
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufArray
from gguf_tools.types import TENSOR_TYPES, VALUE_SIZES, ValueType
from tests.timing import slowness

from .gguf_bytes import Gguf, array, chat_entries, chat_model, flag, scalar, string, strings, tensor, u32


def values(info_value: object) -> object:
    return info_value.values() if isinstance(info_value, GgufArray) else info_value


def test_every_value_type(tmp_path: Path) -> None:
    numbers = {kind: 7 if kind is not ValueType.BOOL else 1 for kind in VALUE_SIZES}
    entries = [scalar(f"one.{kind.name}", kind, value) for kind, value in numbers.items()]
    entries += [
        array(f"many.{kind.name}", kind, 3, b"".join(scalar("", kind, value)[12:] for _ in range(3)))
        for kind, value in numbers.items()
    ]
    entries += [string("text", "стук\n🙂"), string("nothing", ""), strings("texts", ["a", "", "я"])]
    entries += [strings("no texts", []), array("no numbers", ValueType.FLOAT32, 0, b"")]
    info = read_gguf(Gguf(entries).write(tmp_path / "types.gguf"))
    for kind, value in numbers.items():
        assert info.metadata[f"one.{kind.name}"] == value
        assert values(info.metadata[f"many.{kind.name}"]) == (value,) * 3
        assert type(info.metadata[f"one.{kind.name}"]) is type(values(info.metadata[f"many.{kind.name}"])[0])  # type: ignore[index]
    assert info.metadata["text"] == "стук\n🙂"
    assert info.metadata["nothing"] == ""
    assert values(info.metadata["texts"]) == ("a", "", "я")
    assert values(info.metadata["no texts"]) == values(info.metadata["no numbers"]) == ()
    assert info.tensors == () and info.trailing == 0


def test_extreme_numbers(tmp_path: Path) -> None:
    entries = [
        scalar("u64", ValueType.UINT64, 2**64 - 1),
        scalar("i64", ValueType.INT64, -(2**63)),
        scalar("nan", ValueType.FLOAT32, math.nan),
        scalar("inf", ValueType.FLOAT64, -math.inf),
        flag("no", 0),
    ]
    info = read_gguf(Gguf(entries).write(tmp_path / "extreme.gguf"))
    assert info.number("u64") == 2**64 - 1 and info.number("i64") == -(2**63)
    assert math.isnan(info.metadata["nan"]) and info.metadata["inf"] == -math.inf  # type: ignore[arg-type]
    assert info.flag("no") is False and info.number("no") is None and info.text("u64") is None


@pytest.mark.parametrize("version", [2, 3])
def test_places_of_fields_and_tensors(version: int, tmp_path: Path) -> None:
    data = bytes(range(160))
    parts = Gguf(
        [u32("general.alignment", 64), string("name", "abc")],
        [tensor("a", [3], 0, 0), tensor("b", [32, 2], 2, 64), tensor("c", [], 0, 128)],
        data,
        version=version,
        alignment=64,
    )
    info = read_gguf(parts.write(tmp_path / "places.gguf"))
    raw = parts.build()
    assert (info.version, info.alignment, info.file_size) == (version, 64, len(raw))
    assert [(t.name, t.shape, t.type.name, t.nbytes, t.elements) for t in info.tensors] == [
        ("a", (3,), "F32", 12, 3),
        ("b", (32, 2), "Q4_0", 36, 64),
        ("c", (), "F32", 4, 1),
    ]
    assert [raw[t.offset] for t in info.tensors] == [0, 64, 128]
    assert info.trailing == 0  # 28 bytes behind the last tensor are within its padding
    field = info.fields["name"]
    assert raw[field.offset : field.offset + field.nbytes] == b"\3\0\0\0\0\0\0\0abc"


def test_last_tensor_needs_no_padding_and_bytes_behind_it_are_counted(tmp_path: Path) -> None:
    parts = Gguf([], [tensor("a", [3], 0, 0)], bytes(12))
    assert read_gguf(parts.write(tmp_path / "bare.gguf")).trailing == 0
    parts.data = bytes(32 + 5)
    assert read_gguf(parts.write(tmp_path / "more.gguf")).trailing == 5


def test_stray_bytes_outside_ltm_are_replaced(tmp_path: Path) -> None:
    info = read_gguf(chat_model([string("general.name", b"caf\xe9")]).write(tmp_path / "latin.gguf"))
    assert info.text("general.name") == "caf\ufffd"
    tokens = info.array("tokenizer.ggml.tokens")
    assert tokens is not None
    assert list(tokens.strings()) == [b"a", b"b", "я".encode(), b"\xd1"]
    assert list(tokens.strings(3)) == [b"a", b"b", "я".encode()] and tokens.values(2) == ("a", "b")
    with pytest.raises(TypeError, match="not of STRING"):
        list(GgufArray(ValueType.INT8, 1, 0, 1, info.stamp).strings())


def test_file_that_changes_after_its_header_was_read(tmp_path: Path) -> None:
    file = chat_model().write(tmp_path / "model.gguf")
    tokens = read_gguf(file).array("tokenizer.ggml.tokens")
    assert tokens is not None
    os.utime(file, ns=(1, 1))
    with pytest.raises(errors.ChangedFile):
        tokens.values()
    file.unlink()
    with pytest.raises(errors.Unreadable):
        tokens.values()


def test_file_can_be_replaced_while_its_header_is_held(tmp_path: Path) -> None:
    """No mapping is left behind: on Windows that would keep the file from being replaced."""
    file = chat_model().write(tmp_path / "model.gguf")
    info = read_gguf(file)
    chat_model([u32("x", 1)]).write(tmp_path / "new.gguf").replace(file)
    assert info.architecture == "llama" and read_gguf(file).number("x") == 1


def test_types_are_those_of_the_gguf_package() -> None:
    constants = pytest.importorskip("gguf.constants")
    assert {int(t): t.name for t in constants.GGUFValueType} == {int(t): t.name for t in ValueType}
    for kind, (block, nbytes) in constants.GGML_QUANT_SIZES.items():
        ours = TENSOR_TYPES[int(kind)]
        # The package counts Q8_1's scales as float32; in ggml, which reads the files, they are float16.
        assert (ours.name, ours.block, ours.block_bytes) == (kind.name, block, 36 if kind.name == "Q8_1" else nbytes)


def test_types_are_those_of_ggml() -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = next((p for p in sorted(folder.iterdir()) if "ggml-base" in p.name), None)
    assert library is not None
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_name.restype = ctypes.c_char_p
    for ours in TENSOR_TYPES.values():
        assert ggml.ggml_type_name(ours.id).decode().lower() == ours.name.lower()
        assert (ggml.ggml_blck_size(ours.id), ggml.ggml_type_size(ours.id)) == (ours.block, ours.block_bytes)


@pytest.mark.needs_model
def test_demo_model_as_the_gguf_package_reads_it(demo_file: Path) -> None:
    gguf = pytest.importorskip("gguf")
    info = read_gguf(demo_file)
    oracle = gguf.GGUFReader(demo_file)
    assert {k for k in oracle.fields if not k.startswith("GGUF.")} == set(info.fields)
    for key, field in info.fields.items():
        theirs = oracle.fields[key].contents()
        ours = values(field.value)
        assert (list(ours) if isinstance(ours, tuple) else ours) == theirs, key
    assert len(oracle.tensors) == len(info.tensors) == 272
    for theirs, tensor_info in zip(oracle.tensors, info.tensors, strict=True):
        assert theirs.name == tensor_info.name
        assert tuple(int(d) for d in theirs.shape) == tensor_info.shape
        assert theirs.tensor_type.name == tensor_info.type.name
        assert (int(theirs.data_offset), int(theirs.n_bytes)) == (tensor_info.offset, tensor_info.nbytes)
    assert info.data_offset == oracle.data_offset and info.alignment == oracle.alignment


@pytest.mark.needs_model
def test_demo_model_is_read_quickly(demo_file: Path) -> None:
    best = min(timed(demo_file) for _ in range(3))
    assert best < 0.25  # seconds of CPU; about 0.03 on an idle core


def test_vocabulary_of_262_144_tokens(tmp_path: Path) -> None:
    """As large as any model's: tokens, scores, types and merges; under half a second of CPU and no copy in memory."""
    count = 262_144
    tokens = [f"token{i}" for i in range(count)]
    entries = [
        *chat_entries()[:3],
        strings("tokenizer.ggml.tokens", tokens),
        array("tokenizer.ggml.scores", ValueType.FLOAT32, count, bytes(4 * count)),
        array("tokenizer.ggml.token_type", ValueType.INT32, count, bytes(4 * count)),
        strings("tokenizer.ggml.merges", [f"to ken{i}" for i in range(count)]),
    ]
    file = Gguf(entries).write(tmp_path / "large.gguf")
    assert min(timed(file) for _ in range(3)) < 0.5 * slowness()
    tracemalloc.start()
    info = read_gguf(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    read = info.array("tokenizer.ggml.tokens")
    assert read is not None and len(read) == count and list(read.values()) == tokens


def timed(file: Path) -> float:
    start = time.process_time()
    read_gguf(file)
    return time.process_time() - start
