"""``ltm-edge run``: the result on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from .fakes import FakeBundle

Invoke = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_only_the_result_is_on_stdout(invoke: Invoke, bundle: FakeBundle) -> None:
    result = invoke("run", "--text", "hello")
    assert result.stdout == "You said hello, in turn 1.\nThe end\n"
    assert "fake model" in result.stderr
    assert bundle.closed and bundle.sessions[0].closed


@pytest.mark.parametrize("form", ["yaml", "json", "image", "text", "auto"])
def test_forms(invoke: Invoke, bundle: FakeBundle, form: str) -> None:
    result = invoke("run", "--text", "hello", "--form", form)
    assert result.exit_code == 0 and result.stdout.endswith("\n")
    if form == "yaml":
        assert yaml.safe_load(result.stdout)["scene"]["tension"] == "saying vs doing"
    if form == "json":
        assert json.loads(result.stdout)


def test_options_reach_the_session(invoke: Invoke, bundle: FakeBundle) -> None:
    invoke(
        "run",
        "--text",
        "a",
        "--seed",
        "0",
        "--max-tokens",
        "9",
        "--temperature",
        "0",
        "--system",
        "s",
        "--template",
        "t",
    )
    (session,) = bundle.sessions
    assert session.settings["seed"] == 0 and session.settings["max_tokens"] == 9
    assert session.settings["temperature"] == 0.0 and session.settings["template"] == "t"
    assert session.settings["system"] == "s"


@pytest.mark.parametrize(
    "args", [("--seed", "-1"), ("--seed", "4294967295"), ("--max-tokens", "0"), ("--top-p", "1.5"), ("--form", "prose")]
)
def test_values_out_of_range_are_usage_errors(invoke: Invoke, bundle: FakeBundle, args: tuple[str, str]) -> None:
    assert invoke("run", "--text", "a", *args).exit_code == 2


def test_text_from_stdin(invoke: Invoke, bundle: FakeBundle) -> None:
    result = invoke("run", "--text", "-", input="\ufeffпривет\n".encode())
    assert result.stdout.startswith("You said привет,")


def test_pvq_from_file_and_stdin(invoke: Invoke, bundle: FakeBundle, tmp_path: Path) -> None:
    text = 'pvq:\n  text: "from the file"\n  form: yaml\n'
    path = tmp_path / "PVQ.yaml"
    path.write_text(text, encoding="utf-8")
    assert "You said from the file" in invoke("run", "--pvq", str(path)).stdout
    assert "You said from the file" in invoke("run", "--pvq", "-", input=text).stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"pvq: {text: a, colour: red, weight: x}", ("pvq.colour", "pvq.weight")),
        (b"pvq: [", ("PVQ.yaml",)),
        (b"", ("PVQ.yaml",)),
        (b"\xff\xff\xff\x00", ("PVQ.yaml",)),
    ],
)
def test_a_bad_pvq_has_a_line_for_each_problem(
    invoke: Invoke, bundle: FakeBundle, tmp_path: Path, content: bytes, words: tuple[str, ...]
) -> None:
    path = tmp_path / "PVQ.yaml"
    path.write_bytes(content)
    result = invoke("run", "--pvq", str(path))
    assert result.exit_code == 1 and result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(words) and result.stderr.splitlines()[-len(words) :] == errors
    assert all(word in line for word, line in zip(words, errors, strict=True))


def test_files_that_cannot_be_read_or_written_are_told_before_the_model_loads(
    invoke: Invoke, bundle: FakeBundle, tmp_path: Path
) -> None:
    for args in (
        ("--pvq", str(tmp_path / "no.yaml")),
        ("--pvq", str(tmp_path)),
        ("--text", "a", "--out", str(tmp_path)),
        ("--text", "a", "--out", str(tmp_path / "no" / "file")),
        ("--text", "a", "--trace", str(tmp_path / "no" / "file")),
    ):
        result = invoke("run", *args)
        assert result.exit_code == 1, args
        assert len(result.stderr.splitlines()) == 1 and str(tmp_path) in result.stderr
    assert bundle.sessions == []


def test_too_much_input_is_refused(invoke: Invoke, bundle: FakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm_edge.cli.run.MAX_INPUT", 1000)
    result = invoke("run", "--text", "-", input="a" * 1001)
    assert result.exit_code == 1 and "more than 1000 bytes" in result.stderr


def test_out_and_trace(invoke: Invoke, bundle: FakeBundle, tmp_path: Path) -> None:
    out, trace = tmp_path / "out.yaml", tmp_path / "trace.json"
    result = invoke("run", "--text", "при\ud83d", "--out", str(out), "--trace", str(trace))
    assert result.exit_code == 0 and result.stdout == ""
    assert "You said при" in out.read_text(encoding="utf-8")
    assert json.loads(trace.read_text(encoding="utf-8"))["version"] == 1


def test_notices_of_the_turn_are_said(invoke: Invoke, bundle: FakeBundle) -> None:
    result = invoke("run", "--text", "long story")
    assert "a cut context" in result.stderr and "cut" not in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_the_trace_still_written(command: Process, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    result = command("run", "--text", "a", "--out", "/dev/full", "--trace", str(trace))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == b"error: /dev/full: can't be written: No space left on device"
    assert trace.exists()


def test_the_same_seed_gives_the_same_bytes(command: Process) -> None:
    runs = [command("run", "--text", "привет", "--seed", "1", PYTHONIOENCODING=e) for e in ("utf-8", "cp1251", "ascii")]
    assert len({run.stdout for run in runs}) == 1
    assert "привет".encode() in runs[0].stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_answer_is_printed_as_far_as_it_came(home: Path, number: int, code: int) -> None:
    program = str(Path(__file__).with_name("fake_main.py"))
    process = subprocess.Popen(
        [sys.executable, program, "run", "--text", "slow one"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert b"fake model" in process.stderr.readline()
    assert process.stderr.readline() == b"waiting\n"
    os.kill(process.pid, number)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert out.startswith(b"You said")
    assert b"Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_picture_and_a_file_the_svg(home: Path, tmp_path: Path) -> None:
    from .terminal import Terminal

    with Terminal("run", "--text", "hello", "--form", "image") as run:
        code, shown = run.end()
    assert code == 0 and "<svg" not in shown
    assert "┤ the next step ├" in shown and "●" in shown and "‹pilgrim›  ‹guardian›" in shown
    assert shown.rstrip().endswith("You said hello, in turn 1.\nThe end")
    with Terminal("run", "--text", "hello", "--form", "image", "--out", "-") as run:
        assert "<svg>" in run.end()[1]
    with Terminal("run", "--text", "hello", "--form", "image", PYTHONIOENCODING="ascii:replace") as run:
        assert "<svg>" in run.end()[1]
