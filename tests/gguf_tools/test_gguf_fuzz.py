"""Damage of every kind: truncation and flipped bytes raise GgufError or nothing, quickly, never anything else."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from gguf_tools import errors
from gguf_tools.ltm import ltm_entries
from gguf_tools.reader import read_gguf
from gguf_tools.summary import summarise
from gguf_tools.types import ValueType
from gguf_tools.verify import verify
from tests.timing import slowness

from .gguf_bytes import Gguf, array, chat_entries, scalar, string, strings, tensor, u32


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file as the gguf package writes it."""
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    file = tmp_path_factory.mktemp("fuzz") / "written.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("small")
    writer.add_context_length(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "я"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    writer.add_string("ltm.format_version", "1")
    writer.add_string("ltm.name", "small")
    writer.add_string("ltm.overlay", "ltm_overlay: {version: 1}")
    writer.add_tensor("token_embd.weight", numpy.ones((3, 32), numpy.float32))
    writer.add_tensor("output_norm.weight", numpy.ones(32, numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.read_bytes()


def everything(file: Path) -> None:
    """All that reads a file which may be damaged."""
    info = read_gguf(file)
    for value in info.metadata.values():
        if not isinstance(value, (bool, int, float, str)):
            assert len(value.values()) == len(value)
    for line in summarise(info).lines():
        assert all(part.isprintable() for part in line)
    ltm_entries(info)


def test_sound_file_passes(written: bytes, tmp_path: Path) -> None:
    file = tmp_path / "whole.gguf"
    file.write_bytes(written)
    everything(file)
    assert verify(file).problems == ()


def test_truncation_at_every_64th_byte(written: bytes, tmp_path: Path) -> None:
    """The last tensor fills its alignment, so every cut loses something that the header announces."""
    file = tmp_path / "cut.gguf"
    lengths = [*range(64, len(written), 64), *range(1, 40), len(written) - 1]
    for length in lengths:
        file.write_bytes(written[:length])
        with pytest.raises(errors.Truncated):
            read_gguf(file)
    assert len(lengths) > 50


def test_random_damage(written: bytes, tmp_path: Path) -> None:
    """6 000 files with 1 to 4 bytes changed, most of them in the header; a tenth of them cut as well."""
    file = tmp_path / "damaged.gguf"
    header = len(written) - 3 * 32 * 4 - 64
    outcomes = {"accepted": 0, "refused": 0}
    slowest = 0.0
    for seed in range(6000):
        dice = random.Random(seed)
        data = bytearray(written)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(header) if dice.random() < 0.8 else dice.randrange(len(data))
            data[at] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256), data[at] ^ (1 << dice.randrange(8))])
        if dice.random() < 0.1:
            del data[dice.randrange(len(data)) :]
        file.write_bytes(data)
        start = time.process_time()
        try:
            everything(file)
            outcomes["accepted"] += 1
        except errors.GgufError as error:
            assert str(error).isprintable()
            outcomes["refused"] += 1
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 1.0 * slowness()
    assert min(outcomes.values()) > 300  # neither so wild nor so tame that nothing is tested


def test_random_parts(tmp_path: Path) -> None:
    """2 000 files put together from sound and odd parts, with counts that lie."""
    file = tmp_path / "parts.gguf"
    for seed in range(2000):
        dice = random.Random(seed)
        odd = dice.choice([0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
        pieces = [
            *chat_entries(),
            u32("general.alignment", dice.choice([0, 1, 8, 32, 33, 65536, 2**31])),
            array("numbers", dice.randrange(14), odd, bytes(16)),
            strings("texts", [b"\xff" * dice.randrange(9)] * dice.randrange(9)),
            scalar("general.languages", ValueType.FLOAT64, float("nan")),
            string("general.name", bytes(dice.randrange(256) for _ in range(dice.randrange(40)))),
            string("ltm.format_version", dice.choice(["1", "2", "-1", "", "x"])),
        ]
        dice.shuffle(pieces)
        shapes = [[dice.choice([0, 1, 2, 8, 256, odd]) for _ in range(dice.randrange(6))] for _ in range(3)]
        parts = Gguf(
            pieces[: dice.randrange(len(pieces))],
            [tensor(f"t{i}", s, dice.randrange(44), dice.choice([0, 32, 64, odd])) for i, s in enumerate(shapes)],
            bytes(dice.randrange(4096)),
            version=dice.choice([2, 3]),
            key_count=dice.choice([None, None, None, odd]),
            tensor_count=dice.choice([None, None, 0, 1, odd]),
        )
        parts.write(file)
        try:
            everything(file)
        except errors.GgufError as error:
            assert str(error).isprintable()
