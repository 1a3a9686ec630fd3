"""The chat's memory: what its commands do, what private keeps off the disk, and what is said when it can't be had."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ltm_edge.cli.chat_loop import Chat
from ltm_edge.cli.chat_memory import CLOCK, memory_path
from ltm_edge.cli.options import MemoryOptions
from ltm_edge.errors import InputError
from ltm_edge.memory.store import STORE_NAME
from ltm_edge.scene_memory import SceneMemory

from .fakes import FakeBundle
from .terminal import Terminal
from .test_chat import Begin, Capture, begin, say

__all__ = ["begin"]

Invoke = Callable[..., Result]


def opened(chat: Chat) -> SceneMemory:
    assert chat.session.memory is not None
    return chat.session.memory


def told(chat: Chat) -> list[str]:
    return [one.text for one in opened(chat).scenes()]


def test_a_chat_has_the_user_s_memory_unless_it_is_told_otherwise(begin: Begin, home: Path) -> None:
    chat = begin()
    say(chat, "hello")
    assert opened(chat).folder == home / "memory" / "default" and told(chat) == ["hello"]
    chat.close()
    chat = begin(memory=MemoryOptions("work"))
    assert opened(chat).folder == home / "memory" / "work"
    chat.close()
    assert begin(memory=MemoryOptions(off=True)).session.memory is None


def test_memory_shows_its_state_and_is_switched(begin: Begin, capsys: Capture) -> None:
    chat = begin()
    say(chat, "hello", "/memory")
    text = capsys.readouterr().out
    assert "memory is on: scenes are recalled and stored" in text and "1 scene, 0 arcs" in text
    say(chat, "/memory off", "not this", "/memory recall", "nor this", "/memory on", "but this", "/set memory none")
    assert told(chat) == ["but this", "hello"]
    assert chat.session.settings["memory"] == "off"
    with pytest.raises(InputError, match="/memory maybe"):
        say(chat, "/memory maybe")


def test_memory_that_was_off_is_opened_when_it_is_asked_for(begin: Begin) -> None:
    chat = begin(memory=MemoryOptions(off=True))
    with pytest.raises(InputError, match="/memory on opens it"):
        say(chat, "/recall hello")
    say(chat, "hello", "/memory on", "again")
    assert told(chat) == ["again"]


def test_recall_shows_scores_and_stores_nothing(begin: Begin, capsys: Capture) -> None:
    chat = begin()
    say(chat, "my dog is called Biscuit", "the kettle has lime")
    capsys.readouterr()
    say(chat, "/recall puppy")
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert "my dog is called Biscuit" in first and "meaning 0." in second and "recency 1.00" in second
    assert len(told(chat)) == 2
    with pytest.raises(InputError, match="give a text"):
        say(chat, "/recall")


def test_forget_says_what_goes_and_asks(begin: Begin, capsys: Capture) -> None:
    chat = begin()
    say(chat, "my dog is called Biscuit", "the dog likes tea", "the kettle has lime")
    asked: list[str] = []
    chat.confirm = lambda question: bool(asked.append(question))
    capsys.readouterr()
    say(chat, "/forget dog")
    assert asked == ["forget these 2 scenes? [y/N] "] and len(told(chat)) == 3
    text = capsys.readouterr().out
    assert "called Biscuit" in text and "likes tea" in text and "nothing was forgotten" in text
    chat.confirm = lambda question: True
    say(chat, "/forget dog")
    assert told(chat) == ["the kettle has lime"] and "forgot 2 scenes" in capsys.readouterr().out
    say(chat, "/forget")  # the last turn's
    assert told(chat) == []
    say(chat, "/forget elephants")
    assert "no scene has all the words" in capsys.readouterr().out
    with pytest.raises(InputError, match="no scene 99"):
        say(chat, "/forget 99")


def test_pin_takes_the_last_turn_s_scene_or_the_one_named(begin: Begin) -> None:
    chat = begin()
    with pytest.raises(InputError, match="the last turn is not in memory"):
        say(chat, "/pin")
    say(chat, "first", "second", "/pin", "/pin 1")
    assert {one.text for one in opened(chat).scenes(pinned=True)} == {"first", "second"}


def test_what_is_said_in_private_stands_in_no_file(begin: Begin, home: Path) -> None:
    chat = begin()
    say(chat, "hello", "/private", "my secret is quetzalcoatl", "/recall quetzalcoatl")
    assert told(chat) == ["hello"] and chat.file is None
    say(chat, "/memory on", "still quetzalcoatl")  # private is stronger
    assert told(chat) == ["hello"]
    say(chat, "/private off", "and on")
    assert told(chat) == ["and on", "hello"]
    chat.close()
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"quetzalcoatl" in path.read_bytes()]


def test_a_private_chat_recalls_but_stores_nothing_and_makes_no_memory(begin: Begin, home: Path) -> None:
    chat = begin(save=False)
    say(chat, "my secret is quetzalcoatl")
    assert chat.session.memory is None and not home.exists()
    chat.close()
    before = begin()
    say(before, "my dog is called Biscuit")
    before.close()
    chat = begin(save=False)
    say(chat, "my secret is quetzalcoatl")
    assert told(chat) == ["my dog is called Biscuit"]
    assert opened(chat).recall("dog")


def test_loading_and_saving_in_private(begin: Begin, home: Path) -> None:
    chat = begin(name="before")
    say(chat, "hello")
    chat.close()
    chat = begin(save=False)
    say(chat, "/load before", "my secret is quetzalcoatl")
    assert [turn.request for turn in chat.session.history] == ["hello", "my secret is quetzalcoatl"]
    assert [turn.request for turn in chat.store.read("before")] == ["hello"]
    say(chat, "/save after")  # what is saved by name is private no longer
    assert not chat.private and len(chat.store.read("after")) == 2
    say(chat, "and on")
    assert told(chat) == ["and on", "hello"] and len(chat.store.read("after")) == 3


def test_scenes_carry_the_name_of_the_session_they_are_saved_in(begin: Begin) -> None:
    chat = begin(name="first")
    say(chat, "one", "/clear", "two", "/save third", "three")
    sessions = {scene.text: scene.session for scene in opened(chat).scenes()}
    assert sessions["one"] == "first" and sessions["three"] == "third"
    assert sessions["two"] not in ("first", "third", "")


def test_the_prompt_says_private(home: Path) -> None:
    with Terminal("chat", LTM_EDGE_HOME=str(home)) as chat:
        chat.wait()
        assert "(private)" not in chat.wait(">>>")
        chat.say("/private")
        chat.wait("(private)")
        chat.child.send("my secret is quetzalcoatl\r")
        chat.wait("The end")
        chat.wait("(private)")
        chat.wait(">>>")
        chat.key("d")
        assert chat.end()[0] == 0
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"quetzalcoatl" in path.read_bytes()]


def test_forget_asks_at_the_terminal(home: Path) -> None:
    with Terminal("chat", LTM_EDGE_HOME=str(home)) as chat:
        chat.wait()
        chat.say("my dog is called Biscuit")
        chat.child.send("/forget\r")
        chat.wait("[y/N]")
        chat.child.send("n\r")
        chat.wait("nothing was forgotten")
        chat.wait()
        chat.child.send("/forget dog\r")
        chat.wait("[y/N]")
        chat.child.send("y\r")
        chat.wait("forgot 1 scene")
        chat.wait()
        chat.key("d")
        chat.end()


def broken(folder: Path, how: str) -> str:
    folder.mkdir(parents=True)
    path = folder / STORE_NAME
    if how == "damaged":
        path.write_bytes(b"not a database at all, " * 100)
        return "damaged or not a memory"
    if how == "newer":
        SceneMemory.open(folder).close()
        db = sqlite3.connect(path)
        db.execute("INSERT INTO migrations VALUES (99, 'later', '')")
        db.commit()
        db.close()
        return "newer version"
    folder.rmdir()
    folder.write_text("a file where the folder should be")
    return "can't be made"


@pytest.mark.parametrize("how", ["damaged", "newer", "no folder"])
def test_a_memory_that_cannot_be_opened_is_one_line_and_the_chat_goes_on(
    begin: Begin, home: Path, capsys: Capture, how: str
) -> None:
    words = broken(home / "memory" / "default", how)
    chat = begin()
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and line.endswith("the chat goes on without it")
    say(chat, "hello", "/memory")
    assert "memory is off" in capsys.readouterr().out
    with pytest.raises(Exception, match=words):
        say(chat, "/memory on")


def test_run_uses_a_memory_only_where_one_is_named(bundle: FakeBundle, invoke: Invoke, home: Path) -> None:
    for more in ([], ["--no-memory"]):
        assert invoke("run", "--text", "hello", *more).exit_code == 0
        assert bundle.sessions[-1].memory is None and not (home / "memory").exists()
    assert invoke("run", "--text", "hello", "--memory", "work").exit_code == 0
    with SceneMemory.open(home / "memory" / "work") as memory:
        assert [one.text for one in memory.scenes()] == ["hello"]
    both = invoke("run", "--text", "hello", "--memory", "work", "--no-memory")
    assert both.exit_code == 2 and "give one" in both.output
    broken(home / "memory" / "bad", "damaged")
    failed = invoke("run", "--text", "hello", "--memory", "bad")
    assert failed.exit_code == 1 and "damaged" in failed.output


def test_names_and_paths_of_memories(home: Path, tmp_path: Path) -> None:
    assert memory_path("work") == home / "memory" / "work"
    assert memory_path(str(tmp_path / "here")) == tmp_path / "here"
    assert memory_path("./work") == Path("work")
    for name in ("", "a b", "x" * 80):
        with pytest.raises(InputError, match="memory name"):
            memory_path(name)


def test_the_clock_of_the_environment(begin: Begin, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv(CLOCK, "2026-03-02T19:00:00Z")
    chat = begin()
    moment = chat.now()
    assert moment is not None and moment.isoformat() == "2026-03-02T19:00:00+00:00"
    chat.close()
    monkeypatch.setenv(CLOCK, "yesterday")
    assert begin().session.memory is None
    assert "LTM_EDGE_NOW=yesterday: not a time with its zone" in capsys.readouterr().err
