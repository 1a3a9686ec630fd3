"""The command line on the demo model: conversations at a terminal and over pipes, and files that can't be used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import gguf
import pytest
import yaml
from click.testing import Result

from ltm_edge.store import SessionStore

from .terminal import READ, REAL, ROOT, Terminal

Invoke = Callable[..., Result]
Short = tuple[str, ...]

pytestmark = pytest.mark.needs_model

SHORT = ("--threads", "1", "--seed", "1", "--max-tokens", "90", "--ctx", "2048")
# In Cyrillic this vocabulary takes a token for every letter or two: whoever stops such an answer comes in time.
LONG = ("--lang", "ru", "--template", "workbench", "--max-tokens", "1000")
SECONDS = 300  # a machine that does other work writes a few tokens a second


@pytest.fixture
def home(home: Path, shared_cache: Path) -> Path:
    home.mkdir()
    (home / "cache").symlink_to(shared_cache, target_is_directory=True)
    return home


@pytest.fixture
def short(plain_overlay: Path) -> Short:
    """Options of answers that are soon written."""
    return ("--overlay", str(plain_overlay), *SHORT)


def command(*args: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ltm_edge", *args], input=input, capture_output=True, timeout=2 * SECONDS, cwd=ROOT
    )


def test_a_conversation_of_ten_turns_is_continued(home: Path) -> None:
    requests = [
        "I want to begin something.",
        "Я боюсь ошибиться.",
        "Why?",
        "And then?",
        "Что дальше?",
        "Who is with me?",
    ]
    with Terminal("chat", "--session", "ten", *SHORT, program=REAL, seconds=SECONDS) as chat:
        assert "runs on the CPU" in chat.wait()
        for request in requests:
            text = chat.say(request)
            assert "actors" in text and "Traceback" not in text and "error:" not in text
        chat.say('"""How do I write')
        assert "actors" in chat.say('a loop?"""')
        assert "did you mean /regen?" in chat.say("/regn")
        assert "actors" in chat.say("/regen")
        assert "tokens/s" in chat.say("/stats")
        assert "The scene follows the template" in chat.say("/why")
        chat.say("/template workbench")
        assert "actors" in chat.say("Show me again.")
        chat.key("d")
        assert chat.end()[0] == 0
    with Terminal("chat", "-c", *SHORT, program=REAL, seconds=SECONDS) as chat:
        assert "going on with session ten: 8 turns" in chat.wait()
        for request in ("Are we done?", "Thank you."):
            assert "actors" in chat.say(request)
        chat.key("d")
        assert chat.end()[0] == 0
    turns = SessionStore().read("ten")
    assert len(turns) == 10
    assert [turn.request for turn in turns[:7]] == [*requests, "How do I write\na loop?"]
    assert turns[7].template == "workbench" and turns[1].lang == "ru"
    assert all(turn.document.startswith("scene:") and turn.trace["passes"] for turn in turns)
    whole = [turn for turn in turns if not turn.partial]
    assert all(yaml.safe_load(turn.document)["scene"]["response"].strip() for turn in whole)


def test_interrupting_an_answer_keeps_what_there_is(home: Path, short: Short) -> None:
    with Terminal("chat", "--session", "cut", *short, *LONG, program=REAL, seconds=SECONDS) as chat:
        chat.wait()
        chat.child.send("Tell me everything about the sea.\r")
        chat.wait(READ)
        chat.wait("actors")
        chat.key("c")
        rest = chat.wait()
        assert "the answer is partial" in rest
        assert "graph_compute" not in rest, "llama.cpp's log stays out of the chat"
        assert "It ended because it was stopped." in chat.say("/why")
        chat.key("d")
        assert chat.end()[0] == 0
    (turn,) = SessionStore().read("cut")
    assert turn.partial and turn.document.startswith("scene:")


def test_termination_in_the_middle_of_an_answer_saves_it(home: Path, short: Short) -> None:
    with Terminal("chat", "--session", "term", *short, *LONG, program=REAL, seconds=SECONDS) as chat:
        chat.wait()
        chat.child.send("Tell me everything about the sea.\r")
        chat.wait("actors")
        os.kill(chat.child.pid, signal.SIGTERM)
        code, rest = chat.end()
    assert code == 143 and "Traceback" not in rest
    assert [turn.partial for turn in SessionStore().read("term")] == [True]


def test_termination_while_the_prompt_is_read_is_quick(home: Path, short: Short) -> None:
    with Terminal("chat", "--session", "early", *short, program=REAL, seconds=SECONDS) as chat:
        chat.wait()
        chat.child.send("word " * 200 + "\r")
        chat.wait(READ)
        os.kill(chat.child.pid, signal.SIGTERM)
        code, rest = chat.end()
    assert code == 143 and "Traceback" not in rest


def test_what_one_chat_was_told_another_knows_days_later(
    home: Path, short: Short, monkeypatch: pytest.MonkeyPatch
) -> None:
    monday = datetime(2026, 3, 2, 19, tzinfo=timezone.utc)
    monkeypatch.setenv("LTM_EDGE_NOW", monday.isoformat())
    first = command("chat", "--session", "first", *short, input=b"My dog Biscuit is afraid of thunder.\n")
    assert first.returncode == 0, first.stderr
    monkeypatch.setenv("LTM_EDGE_NOW", "2026-03-09T20:15:00+00:00")
    second = command("chat", "--session", "second", *short, input=b"There is a storm. What of my dog?\n")
    assert second.returncode == 0, second.stderr
    (told,), (asked,) = SessionStore().read("first"), SessionStore().read("second")
    memory = asked.trace["memory"]
    assert [hit["id"] for hit in memory["recalled"]] == [told.trace["memory"]["stored"]["id"]]
    day = f"{monday.astimezone():%Y-%m-%d}"  # of the user, wherever that is
    assert f"{day}: My dog Biscuit is afraid of thunder." in memory["text"]
    hidden = command("chat", "--private", *short, input=b"My cat Quetzalcoatl fears the dog.\n")
    assert hidden.returncode == 0 and hidden.stdout.strip(), hidden.stderr
    assert not [path for path in home.rglob("*") if path.is_file() and b"uetzalcoatl" in path.read_bytes()]
    plain = command("chat", "--no-memory", "--session", "plain", *short, input=b"There is a storm. What of my dog?\n")
    assert plain.returncode == 0 and "memory" not in SessionStore().read("plain")[0].trace


def test_piped_cyrillic_gets_a_line_each(home: Path, short: Short) -> None:
    # Cyrillic takes the demo model's vocabulary a token per letter or two
    result = command("chat", "--session", "pipe", *short, "--max-tokens", "400", input="Привет\n\nКто я?\n".encode())
    lines = result.stdout.decode("utf-8").split("\n")
    assert result.returncode == 0, result.stderr
    assert len(lines) == 4 and lines[1] == lines[3] == ""
    assert lines[0].strip() and lines[2].strip()
    assert [turn.request for turn in SessionStore().read("pipe")] == ["Привет", "Кто я?"]


def test_stdout_closed_early_is_quiet(home: Path, short: Short) -> None:
    script = f"{sys.executable} -m ltm_edge chat {' '.join(short)} --private; echo $? >&2"
    result = subprocess.run(
        ["bash", "-c", f"({script}) | head -c 10"],
        input=b"one\ntwo\nthree\n",
        capture_output=True,
        timeout=2 * SECONDS,
        cwd=ROOT,
    )
    assert len(result.stdout) <= 10
    assert result.stderr.splitlines()[-1] in (b"141", b"0")
    assert b"Traceback" not in result.stderr and b"Broken" not in result.stderr and b"Exception" not in result.stderr


def test_the_same_seed_gives_the_same_bytes(home: Path, short: Short, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    first = command("run", "--text", "Стоит ли продолжать?", "--form", "yaml", *short, "--trace", str(trace))
    again = command("run", "--text", "Стоит ли продолжать?", "--form", "yaml", *short)
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stdout == again.stdout and first.stdout.startswith(b"scene:")
    assert json.loads(trace.read_text())["settings"]["seed"] == 1


def test_the_log_of_llama_cpp_is_shown_when_asked_for(home: Path) -> None:
    quiet = command("chat", "--private", "--threads", "1")
    loud = command("-v", "chat", "--private", "--threads", "1")
    assert quiet.returncode == loud.returncode == 0
    assert quiet.stderr == b"" and b"llama_model_loader" in loud.stderr


def vocabulary_only(demo: Path, path: Path) -> None:
    """A GGUF with the demo model's metadata and no tensors, as llama.cpp's vocabulary files are."""
    reader = gguf.GGUFReader(demo)
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(
            name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def embedding_model(path: Path) -> None:
    import numpy as np

    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tensor("token_embd.weight", np.zeros((32, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def bad(demo_path: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A file that can't be talked to, by kind."""

    def make(kind: str) -> Path:
        path = tmp_path / f"{kind}.gguf"
        if kind == "directory":
            path.mkdir()
        elif kind == "truncated":
            with demo_path.open("rb") as stream:
                path.write_bytes(stream.read(4_000_000))
        elif kind == "headless":
            path.write_bytes(b"GGUF\x03\x00\x00")
        elif kind == "text":
            path.write_text("This is no model.\n" * 100, encoding="utf-8")
        elif kind == "empty":
            path.touch()
        elif kind == "vocabulary":
            vocabulary_only(demo_path, path)
        elif kind == "embedding":
            embedding_model(path)
        return path

    return make


KINDS = ["missing", "directory", "truncated", "headless", "text", "empty", "vocabulary", "embedding"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_talked_to_is_one_line(
    invoke: Invoke, home: Path, bad: Callable[[str], Path], kind: str
) -> None:
    path = bad(kind)
    for args in (("run", str(path), "--text", "hello"), ("chat", str(path))):
        result = invoke(*args)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert [line.startswith("error: ") for line in result.stderr.splitlines()] == [True], result.stderr
        assert path.name in result.stderr
    assert not (home / "sessions").exists() or not list((home / "sessions").glob("*.jsonl"))


def test_requests_that_cannot_be_answered_are_one_line(home: Path, short: Short) -> None:
    lines = [b"word " * 6000, b"a" * 1_000_001, "\u202eabc\x00\n".encode()[:-1]]
    result = command("chat", "--session", "odd", *short, "--ctx", "1024", input=b"\n".join(lines) + b"\n")
    out = result.stdout.decode("utf-8").split("\n")
    err = [line for line in result.stderr.decode("utf-8").splitlines() if line.startswith("error: ")]
    assert result.returncode == 1
    assert out[0] == out[1] == "" and out[2].strip()
    assert len(err) == 2 and err[0].startswith("error: line 1: ") and err[1].startswith("error: line 2: ")
    (turn,) = SessionStore().read("odd")
    assert turn.request == "abc"


@pytest.mark.parametrize("text", ["", "  \n", "\udcff"])
def test_odd_arguments(home: Path, short: Short, text: str) -> None:
    result = command("run", "--text", text, *short)
    if text.strip():
        assert result.returncode == 0 and result.stdout.strip()
    else:
        assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith(b"error: the request is empty")


def test_an_answer_that_cannot_fit_is_one_line(home: Path) -> None:
    result = command("run", "--text", "hello", "--threads", "1", "--max-tokens", "5")
    assert result.returncode == 1 and result.stdout == b""
    assert b"smallest document" in result.stderr.splitlines()[-1]
