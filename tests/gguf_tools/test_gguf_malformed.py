"""One test per malformation: the exact class, a message in one line with file, found, limit and remedy."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_tools import errors
from gguf_tools.reader import Limits, read_gguf
from gguf_tools.types import ValueType

from .gguf_bytes import Gguf, array, chat_model, entry, flag, scalar, string, strings, tensor, text, u32

BIG = (1 << 64) - 1


def two(second_offset: int, first_offset: int = 0) -> Gguf:
    """Two tensors of 32 bytes each."""
    return Gguf([], [tensor("a", [8], 0, first_offset), tensor("b", [8], 0, second_offset)], bytes(128))


def one(*arguments: object) -> Gguf:
    return Gguf([], [tensor(*arguments)], bytes(256))  # type: ignore[arg-type]


CASES: dict[str, tuple[Callable[[], Gguf | bytes], type[errors.GgufError], str]] = {
    # The first bytes.
    "empty file": (lambda: b"", errors.NotGguf, "is empty"),
    "text file": (lambda: b"Dear reader,\n\nthis is prose.\n", errors.NotGguf, "text file that starts with 'Dear rea"),
    "Russian text file": (lambda: ("Это просто текст. " * 40).encode(), errors.NotGguf, "a text file that starts with"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>", errors.NotGguf, "web page"),
    "Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid x", errors.NotGguf, "LFS pointer"),
    "ZIP archive": (lambda: b"PK\x03\x04" + bytes(30), errors.NotGguf, "ZIP"),
    "GGML file": (lambda: b"tjgg" + bytes(30), errors.NotGguf, "before GGUF"),
    "safetensors file": (lambda: struct.pack("<Q", 40) + b'{"a": 1}' + bytes(40), errors.NotGguf, "safetensors"),
    "wrong magic": (lambda: Gguf(magic=b"GGUX").build(), errors.NotGguf, "47 47 55 58"),
    "magic alone": (lambda: b"GGUF", errors.Truncated, "4 bytes"),
    "part of the magic": (lambda: b"GG", errors.Truncated, "2 bytes"),
    "header cut": (lambda: Gguf().build()[:20], errors.Truncated, "20 bytes"),
    # The version.
    "version 0": (lambda: Gguf(version=0), errors.UnsupportedVersion, "version 0"),
    "version 1": (lambda: Gguf(version=1), errors.UnsupportedVersion, "version 1"),
    "version 4": (lambda: Gguf(version=4), errors.UnsupportedVersion, "version 4"),
    "big-endian version 3": (lambda: Gguf(version=3 << 24), errors.BigEndian, "big-endian"),
    "big-endian version 2": (lambda: Gguf(version=2 << 24), errors.BigEndian, "big-endian"),
    # Counts.
    "tensor count of 2^64 - 1": (lambda: Gguf(tensor_count=BIG), errors.LimitExceeded, "65535 allowed"),
    "key count of 2^63": (lambda: Gguf(key_count=1 << 63), errors.LimitExceeded, "65535 allowed"),
    "100 000 keys": (
        lambda: Gguf([u32(f"k{i}", i) for i in range(100_000)]),
        errors.LimitExceeded,
        "100000 metadata keys",
    ),
    "more tensors than bytes": (lambda: Gguf(tensor_count=60_000), errors.Truncated, "60000 tensors in the 8 bytes"),
    "more keys than bytes": (lambda: Gguf(key_count=2), errors.Truncated, "2 metadata keys in the 0 bytes"),
    "one key announced too many": (lambda: Gguf([string("k", "v" * 40)], key_count=2), errors.Truncated, "key 1"),
    # Keys.
    "empty key": (lambda: Gguf([u32("", 1)]), errors.BadKey, "key 0"),
    "key with a NUL": (lambda: Gguf([u32("a\0b", 1)]), errors.BadKey, r"a\x00b"),
    "key with an escape sequence": (lambda: Gguf([u32("\x1b[2J", 1)]), errors.BadKey, r"\x1b[2J"),
    "key that is not ASCII": (lambda: Gguf([u32("имя", 1)]), errors.BadKey, "имя"),
    "key of invalid UTF-8": (lambda: Gguf([entry(b"\xff\xfe", 4, bytes(4))]), errors.BadKey, "xff"),
    "key longer than the file": (
        lambda: Gguf([struct.pack("<Q", 5000) + b"k" * 20], key_count=1),
        errors.Truncated,
        "metadata key 0",
    ),
    "key of 2^64 - 1 bytes": (
        lambda: Gguf([struct.pack("<Q", BIG) + b"k" * 20], key_count=1),
        errors.LimitExceeded,
        "65535 allowed",
    ),
    "key of 64 KiB": (lambda: Gguf([u32("k" * 65536, 1)]), errors.LimitExceeded, "65536 bytes"),
    "duplicate key": (lambda: Gguf([u32("a", 1), string("a", "x")]), errors.DuplicateKey, "'a' twice"),
    # Values.
    "value type 13": (lambda: Gguf([entry("k", 13, bytes(8))]), errors.UnknownValueType, "type 13"),
    "value type 2^32 - 1": (lambda: Gguf([entry("k", 0xFFFFFFFF, bytes(8))]), errors.UnknownValueType, "4294967295"),
    "text longer than the file": (
        lambda: Gguf([entry("k", 8, struct.pack("<Q", 999) + b"x")]),
        errors.Truncated,
        "ends inside 'k'",
    ),
    "text of 2^64 - 1 bytes": (
        lambda: Gguf([entry("k", 8, struct.pack("<Q", BIG) + b"x")]),
        errors.LimitExceeded,
        "'k' has 18446744073709551615",
    ),
    "number cut": (lambda: Gguf([entry("k", 10, bytes(4))]), errors.Truncated, "'k'"),
    "truth value 2": (lambda: Gguf([flag("k", 2)]), errors.BadBool, "is 2"),
    "ltm text of invalid UTF-8": (lambda: Gguf([string("ltm.name", b"a\xff")]), errors.BadText, "'ltm.name'"),
    # Arrays.
    "array of arrays": (lambda: Gguf([array("k", 9, 1, bytes(12))]), errors.NestedArray, "'k' is an array of arrays"),
    "array of unknown type": (lambda: Gguf([array("k", 77, 1, bytes(8))]), errors.UnknownValueType, "type 77"),
    "array of 2^64 - 1 numbers": (lambda: Gguf([array("k", 4, BIG, bytes(8))]), errors.LimitExceeded, "elements"),
    "array of 2^61 numbers of 8 bytes": (
        lambda: Gguf([array("k", 10, 1 << 61, bytes(8))]),
        errors.LimitExceeded,
        "elements",
    ),
    "array longer than the file": (lambda: Gguf([array("k", 4, 1000, bytes(8))]), errors.Truncated, "4.0 kB announced"),
    "strings that can't fit": (lambda: Gguf([array("k", 8, 1000, bytes(8))]), errors.Truncated, "8.0 kB announced"),
    "string in an array longer than the file": (
        lambda: Gguf([array("k", 8, 2, struct.pack("<QQ", 1 << 40, 0))]),
        errors.Truncated,
        "element 1 of 'k'",
    ),
    "last string in an array of 2^64 - 1 bytes": (
        lambda: Gguf([array("k", 8, 1, struct.pack("<Q", BIG))]),
        errors.Truncated,
        "last element of 'k'",
    ),
    # Alignment.
    "alignment 0": (lambda: Gguf([u32("general.alignment", 0)]), errors.BadAlignment, "is 0"),
    "alignment 24": (lambda: Gguf([u32("general.alignment", 24)]), errors.BadAlignment, "is 24"),
    "alignment 4": (lambda: Gguf([u32("general.alignment", 4)]), errors.BadAlignment, "from 8 to 65536"),
    "alignment 2^31": (lambda: Gguf([u32("general.alignment", 1 << 31)]), errors.BadAlignment, "is 2147483648"),
    "alignment of type uint64": (
        lambda: Gguf([scalar("general.alignment", ValueType.UINT64, 32)]),
        errors.BadAlignment,
        "is a UINT64",
    ),
    "alignment that is a text": (lambda: Gguf([string("general.alignment", "32")]), errors.BadAlignment, "a STRING"),
    # Tensor names.
    "tensor without a name": (lambda: one("", [8], 0, 0), errors.BadTensorName, "tensor 0"),
    "tensor name with a line break": (lambda: one("a\nb", [8], 0, 0), errors.BadTensorName, r"a\nb"),
    "tensor name of invalid UTF-8": (lambda: one(b"\xff", [8], 0, 0), errors.BadTensorName, "must be printable"),
    "tensor name of 64 bytes": (lambda: one("n" * 64, [8], 0, 0), errors.LimitExceeded, "63 allowed"),
    "duplicate tensor": (
        lambda: Gguf([], [tensor("a", [8], 0, 0), tensor("a", [8], 0, 32)], bytes(64)),
        errors.DuplicateTensor,
        "'a' twice",
    ),
    # Shapes.
    "five dimensions": (lambda: one("a", [1] * 5, 0, 0), errors.BadShape, "5 dimensions, 4 allowed"),
    "2^32 - 1 dimensions": (
        lambda: Gguf([], [text("a") + struct.pack("<I", 0xFFFFFFFF) + bytes(40)], bytes(64)),
        errors.BadShape,
        "4294967295 dimensions",
    ),
    "dimension 0": (lambda: one("a", [8, 0], 0, 0), errors.BadShape, "no elements"),
    "dimension 2^64 - 1": (lambda: one("a", [BIG], 24, 0), errors.BadShape, "more than 2^63"),
    "product that wraps to 0": (lambda: one("a", [1 << 32, 1 << 32], 0, 0), errors.BadShape, "more than 2^63"),
    "product that wraps to 8": (
        lambda: one("a", [8, (1 << 61) + 1, 1 << 3, 1], 0, 0),
        errors.BadShape,
        "more than 2^63",
    ),
    "bytes that wrap": (lambda: one("a", [1 << 31, 1 << 31], 0, 0), errors.Truncated, "needs 18446744073709551616"),
    "row not of whole blocks": (lambda: one("a", [33, 32], 2, 0), errors.BadShape, "Q4_0 needs a multiple of 32"),
    "scalar of a block type": (lambda: one("a", [], 12, 0), errors.BadShape, "multiple of 256"),
    # Tensor types.
    "removed tensor type 4": (lambda: one("a", [32], 4, 0), errors.UnknownTensorType, "type 4"),
    "removed tensor type 31": (lambda: one("a", [32], 31, 0), errors.UnknownTensorType, "type 31"),
    "tensor type 1000": (lambda: one("a", [32], 1000, 0), errors.UnknownTensorType, "type 1000"),
    # Places.
    "misaligned": (lambda: two(40), errors.Misaligned, "not a multiple of the alignment 32"),
    "first tensor misaligned": (lambda: one("a", [8], 0, 4), errors.Misaligned, "offset 4"),
    "same place twice": (lambda: two(0), errors.Overlap, "expected 32"),
    "out of order": (lambda: two(0, 32), errors.Hole, "offset 32, expected 0"),
    "hole": (lambda: two(64), errors.Hole, "offset 64, expected 32"),
    "hole before the first": (lambda: one("a", [8], 0, 32), errors.Hole, "expected 0"),
    "offset behind the file": (lambda: two(1 << 20), errors.Truncated, "behind the end"),
    "offset 2^64 - 32": (lambda: two((1 << 64) - 32), errors.Truncated, "behind the end"),
    "tensor larger than the file": (lambda: one("a", [1 << 20], 0, 0), errors.Truncated, "needs 4194304 bytes"),
    "data cut": (lambda: chat_model().build()[:-1], errors.Truncated, "the data of tensor 'token_embd.weight' ends at"),
}


@pytest.mark.parametrize("name", CASES)
def test_malformation_is_refused_by_its_own_error(name: str, tmp_path: Path) -> None:
    make, expected, words = CASES[name]
    made = make()
    file = tmp_path / "bad.gguf"
    file.write_bytes(made.build() if isinstance(made, Gguf) else made)
    with pytest.raises(errors.GgufError) as caught:
        read_gguf(file)
    error = caught.value
    assert type(error) is expected, str(error)
    message = str(error)
    assert words in message
    assert message.startswith(str(file)) and message.endswith(error.remedy)
    assert "\n" not in message and message.isprintable()
    assert len(message) < len(str(file)) + 400


def test_every_error_has_a_malformation() -> None:
    """A class that nothing raises here would be dead; the rest are raised in the tests named."""
    elsewhere = {
        errors.Unreadable,  # below
        errors.ChangedFile,  # test_gguf_reader
        errors.BadLtmValue,  # test_gguf_ltm
        errors.NewerFormat,  # test_gguf_ltm
        errors.Unloadable,  # test_gguf_loadable
        errors.BadManifest,  # test_sidecar
        errors.OutputExists,  # test_bundle_files
        errors.ManyProblems,  # tests/bundles
        errors.DiskFull,  # tests/bundles
        errors.BadSource,  # tests/bundles
        errors.BadLora,  # tests/bundles
        errors.UnsupportedLora,  # tests/bundles
        errors.WrongBase,  # tests/bundles
        errors.UnsupportedType,  # tests/bundles
    }
    classes = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.GgufError)}
    assert classes - {errors.GgufError} - elsewhere == {expected for _, expected, _ in CASES.values()}
    codes = [c.code for c in classes]
    assert len(set(codes)) == len(codes)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreadable, match="no such file"):
        read_gguf(tmp_path / "none.gguf")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreadable, match="is a folder"):
        read_gguf(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(errors.Unreadable, match="no regular file"):
        read_gguf(tmp_path / "pipe.gguf")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions don't bind this user")
def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = chat_model().write(tmp_path / "secret.gguf")
    file.chmod(0)
    with pytest.raises(errors.Unreadable, match="can't be read"):
        read_gguf(file)


def test_path_with_a_nul() -> None:
    with pytest.raises(errors.Unreadable):
        read_gguf("a\0b.gguf")


def test_limits_on_all_texts_and_all_array_elements(tmp_path: Path) -> None:
    file = Gguf([string("a", "x" * 60), string("b", "x" * 60)]).write(tmp_path / "texts.gguf")
    read_gguf(file, Limits(text_bytes=122))
    with pytest.raises(errors.LimitExceeded, match="texts of more than"):
        read_gguf(file, Limits(text_bytes=121))
    file = Gguf([strings("a", ["x"] * 6), strings("b", ["x"] * 6)]).write(tmp_path / "arrays.gguf")
    read_gguf(file, Limits(array_strings=12))
    with pytest.raises(errors.LimitExceeded, match="more than 11 elements in all"):
        read_gguf(file, Limits(array_strings=11))
