"""The chat at a real terminal, over a bundle without a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ltm_edge.store import SessionStore

termios = pytest.importorskip("termios", reason="needs a pseudo-terminal")
pexpect = pytest.importorskip("pexpect", reason="needs a pseudo-terminal")

from .terminal import READY, ROOT, Terminal  # noqa: E402

Process = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_a_conversation_of_ten_turns(home: Path) -> None:
    with Terminal("chat", "--session", "ten") as chat:
        assert "fake model, 3 layers, CPU" in chat.wait()
        for n in range(1, 11):
            text = chat.say(f"привет {n}")
            assert f"You said привет {n}, in turn {n}." in text
            assert "tension    saying vs doing" in text
        assert "80 tokens" in chat.say("/stats")
        chat.key("d")
        code, rest = chat.end()
    assert code == 0 and "Traceback" not in rest
    assert [turn.request for turn in SessionStore().read("ten")] == [f"привет {n}" for n in range(1, 11)]


def test_continue_history_and_bye(home: Path) -> None:
    with Terminal("chat") as chat:
        chat.wait()
        chat.say("first words")
        chat.child.send("/bye\r")
        assert chat.end()[0] == 0
    with Terminal("chat", "-c") as chat:
        assert ": 1 turn" in chat.wait()
        # arrow up twice: what was typed in the last chat
        assert "You said first words, in turn 2" in chat.say("\x1b[A\x1b[A")
        chat.key("d")
        assert chat.end()[0] == 0


def test_several_lines(home: Path) -> None:
    with Terminal("chat", "--session", "lines") as chat:
        chat.wait()
        chat.say('"""one')
        chat.say("two")
        assert "in turn 1" in chat.say('three"""')
        chat.say("four\\")
        assert "in turn 2" in chat.say("five")
        chat.key("d")
        chat.end()
    assert [turn.request for turn in SessionStore().read("lines")] == ["one\ntwo\nthree", "four\nfive"]


def test_errors_leave_the_chat_open(home: Path) -> None:
    with Terminal("chat") as chat:
        chat.wait()
        assert "error: unknown command /regn; did you mean /regen?" in chat.say("/regn")
        assert "error: can't answer 'fail': asked to fail over two lines" in chat.say("fail")
        assert "in turn 1" in chat.say(" /slash after a blank")
        chat.key("d")
        assert chat.end()[0] == 0


def test_interrupting_an_answer_keeps_what_there_is(home: Path) -> None:
    with Terminal("chat", "--session", "cut") as chat:
        chat.wait()
        chat.say("slow one", then="waiting")
        chat.key("c")
        assert "the answer is partial" in chat.wait()
        assert "in turn 2" in chat.say("go on")
        chat.key("d")
        assert chat.end()[0] == 0
    first, second = SessionStore().read("cut")
    assert first.partial and first.reply_text.startswith("You said") and first.document.startswith("scene:")
    assert not second.partial


def test_interrupting_the_prompt_clears_the_line(home: Path) -> None:
    with Terminal("chat", "--session", "clear") as chat:
        chat.wait()
        chat.child.send("never sent")
        chat.key("c")
        chat.wait()
        chat.key("c")
        assert "Ctrl-D or /bye leaves" in chat.wait()
        chat.say('"""half a block')
        chat.key("c")
        chat.wait()
        assert "You said whole" in chat.say("whole")
        chat.key("d")
        assert chat.end()[0] == 0
    assert [turn.request for turn in SessionStore().read("clear")] == ["whole"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_termination_in_the_middle_of_an_answer_saves_it(home: Path, number: int, code: int) -> None:
    with Terminal("chat", "--session", "term") as chat:
        chat.wait()
        chat.say("one")
        chat.say("slow two", then="waiting")
        os.kill(chat.child.pid, number)
        status, rest = chat.end()
    assert status == code and "Traceback" not in rest
    turns = SessionStore().read("term")
    assert [turn.partial for turn in turns] == [False, True]


def test_termination_at_the_prompt_puts_the_terminal_right(home: Path) -> None:
    with Terminal("chat") as chat:
        before = termios.tcgetattr(chat.child.child_fd)
        chat.wait()
        os.kill(chat.child.pid, signal.SIGTERM)
        chat.child.expect(pexpect.EOF)
        assert "Traceback" not in chat.child.before
        after = termios.tcgetattr(chat.child.child_fd)
        chat.child.close()
        assert chat.child.exitstatus == 143
    assert before[3] == after[3]


def test_a_terminal_that_goes_away_saves_the_answer(home: Path) -> None:
    chat = Terminal("chat", "--session", "gone")
    chat.wait()
    chat.say("slow one", then="waiting")
    os.close(chat.child.fileno())  # the window is closed
    assert os.waitpid(chat.child.pid, 0)[1] >> 8 == 129
    chat.child.closed = True
    (turn,) = SessionStore().read("gone")
    assert turn.partial


def test_two_chats_on_one_session(home: Path) -> None:
    with Terminal("chat", "--session", "one") as chat:
        chat.wait()
        chat.say("hello")
        with Terminal("chat", "--session", "one") as second:
            code, rest = second.end()
        assert code == 1 and "error: session 'one' is in use" in rest and "--session NAME" in rest
        assert "in turn 2" in chat.say("still here")


def test_a_notice_when_nothing_can_be_saved(home: Path) -> None:
    home.write_text("no folder")
    with Terminal("chat") as chat:
        assert "the chat goes on unsaved" in chat.wait()
        assert "in turn 1" in chat.say("hello")
        chat.key("d")
        assert chat.end()[0] == 0


def test_the_prompt_stays_at_the_terminal_when_stdout_is_a_file(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"{sys.executable} -m tests.cli.fake_main chat > {out}"
    child = pexpect.spawn("bash", ["-c", script], env=os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1"}, cwd=str(ROOT))
    child.expect_exact(READY)
    child.send("hello\r")
    child.expect_exact(READY)
    child.sendcontrol("d")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "You said hello" in out.read_text() and "\x1b" not in out.read_text()


def test_piped_requests_get_a_line_each(command: Process) -> None:
    data = "привет\n\nfail\nдва слова 🌍\n".encode()
    result = command("chat", "--session", "pipe", input=data, PYTHONIOENCODING="cp1252")
    assert result.returncode == 1
    lines = result.stdout.decode("utf-8").split("\n")
    assert lines == [
        "You said привет, in turn 1. The end",
        "",
        "",
        "You said два слова 🌍, in turn 2. The end",
        "",
    ]
    assert result.stderr.decode() == "error: line 3: can't answer 'fail': asked to fail over two lines\n"
    assert len(SessionStore().read("pipe")) == 2


def test_piped_json_and_yaml(command: Process) -> None:
    import json

    import yaml

    result = command("chat", "--form", "json", "--private", input=b"one\ntwo\n")
    assert [json.loads(line)["scene"]["response"][:12] for line in result.stdout.splitlines()] == [
        "You said one",
        "You said two",
    ]
    result = command("chat", "--form", "yaml", "--private", input=b"one\ntwo\n")
    assert [list(document) for document in yaml.safe_load_all(result.stdout)] == [["scene"], ["scene"]]


def test_piped_slash_lines_are_text(command: Process) -> None:
    result = command("chat", "--private", input=b"/bye is text\n")
    assert result.stdout == b"You said /bye is text, in turn 1. The end\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_a_piped_chat_keeps_the_partial_answer(home: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.fake_main", "chat", "--session", "p"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(b"one\nslow two\nthree\n")
    process.stdin.flush()
    assert process.stderr.readline() == b"waiting\n"
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert out.startswith(b"You said one, in turn 1. The end\nYou said") and b"three" not in out
    assert [turn.partial for turn in SessionStore().read("p")] == [False, True]
