"""`python -m gguf_tools inspect` and `verify`, and what they print."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gguf_tools.__main__ import main
from gguf_tools.printable import byte_count, printable
from gguf_tools.reader import read_gguf
from gguf_tools.summary import parameter_count, summarise

from .gguf_bytes import Gguf, chat_model, string, strings, tensor, u32


def test_inspect_lines_of_a_hostile_name_stay_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[31mb\nc\u202ed\u2028e" + "x" * 5000
    file = chat_model([string("general.name", evil), strings("general.languages", ["\x07ru"])]).write(tmp_path / "e")
    assert main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "\u2028" not in out and "\x07" not in out
    assert r"a\x1b[31mb\nc\u202ed\u2028e" in out
    assert all(len(line) < 400 for line in out.splitlines())


def test_inspect_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = [string("general.name", "имя\x1b"), string("ltm.name", "n"), u32("ltm.overlay", 3)]
    file = chat_model(extra).write(tmp_path / "m.gguf")
    assert main(["inspect", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "имя\x1b"  # exact in JSON, where escapes keep it harmless
    assert found["parameters"] == 8 and found["types"] == [{"type": "F32", "tensors": 1, "elements": 8, "nbytes": 32}]
    assert found["ltm"] == {"ltm.name": "n", "ltm.overlay": "<UINT32>"}
    assert "must be a STRING" in found["ltm_problem"]


def test_inspect_of_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.gguf").write_text("hello there, reader")
    assert main(["inspect", str(tmp_path / "bad.gguf")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "text file" in captured.err


def test_verify_names_tensors_with_nan_and_infinity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = b"".join(
        [
            struct.pack("<8f", 1, 2, float("nan"), 4, 5, 6, 7, float("inf")),
            struct.pack("<16e", *[0.5] * 15, float("-inf")),
            struct.pack("<16H", *[0x3F80] * 14, 0x7F80, 0x7FC1),  # BF16: fourteen 1.0, infinity, NaN
            struct.pack("<4d", 1, 2, 3, 4),
        ]
    )
    infos = [tensor("f32", [8], 0, 0), tensor("f16", [16], 1, 32), tensor("bf16", [16], 30, 64)]
    file = Gguf([], [*infos, tensor("f64", [4], 28, 96)], data).write(tmp_path / "nan.gguf")
    assert main(["verify", str(file)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "problem: tensor 'f32' holds 1 NaN and 1 infinite of 8 numbers",
        "problem: tensor 'f16' holds 0 NaN and 1 infinite of 16 numbers",
        "problem: tensor 'bf16' holds 1 NaN and 1 infinite of 16 numbers",
    ]


def test_verify_reports_all_problems_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = chat_model([string("ltm.format_version", "7")])
    parts.data += bytes(77)
    assert main(["verify", "--json", str(parts.write(tmp_path / "x.gguf"))]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) == 2 and "77 B behind" in problems[0] and "version 7" in problems[1]


@pytest.mark.needs_model
def test_commands_on_the_demo_model(demo_file: Path) -> None:
    """As a user runs them, and without importing what takes long."""
    code = "import sys; from gguf_tools.__main__ import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(demo_file)], capture_output=True, text=True, check=True
    )
    for words in ("chat (", "135 M in 272 tensors", "apache-2.0", "Q4_1", "8192 tokens", "49152 tokens", "368"):
        assert words in done.stdout
    assert not {"numpy", "gguf", "ltm_edge", "rich", "click"} & set(done.stderr.split())
    done = subprocess.run(
        [sys.executable, "-m", "gguf_tools", "verify", str(demo_file)], capture_output=True, text=True, check=True
    )
    assert "all well; 272 tensors" in done.stdout


def test_summary_of_a_file_without_anything(tmp_path: Path) -> None:
    summary = summarise(read_gguf(Gguf().write(tmp_path / "empty.gguf")))
    assert summary.parameters == 0 and summary.bits_per_weight == 0.0 and dict(summary.lines())["quantisation"] == "-"


def test_numbers_for_people() -> None:
    assert [byte_count(n) for n in (0, 999, 1000, 98_362_432, 999_950_000, 10**16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "98.4 MB",
        "1.0 GB",
        "10000.0 TB",
    ]
    assert [parameter_count(n) for n in (7, 1500, 134_515_008, 7_241_732_096, 10**12)] == [
        "7",
        "1.5 k",
        "135 M",
        "7.24 B",
        "1 T",
    ]


def test_printable_keeps_scripts_and_emoji_and_escapes_what_hides() -> None:
    kept = "Привет, мир — 你好 👩\u200d👩\u200d👧 नमस्ते"
    assert printable(kept) == kept
    assert printable("\x00\x7f\ud800\u2066\ufeff") == r"\x00\x7f\ud800\u2066\ufeff"
    assert printable("x" * 300, 10) == "xxxxxxxxx…"
