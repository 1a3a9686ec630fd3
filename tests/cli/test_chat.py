"""The chat without a terminal: its session, its file and its slash commands."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ltm_edge.cli.answering import terminable
from ltm_edge.cli.chat_commands import COMMANDS, Leave, complete, dispatch
from ltm_edge.cli.chat_loop import Chat, ChatStart
from ltm_edge.cli.chat_view import AnswerView, card_lines
from ltm_edge.errors import InputError, LtmError, SessionBusy, SessionError
from ltm_edge.store import SessionStore
from ltm_edge.turn import Turn

from .fakes import FakeBundle, FakeReply

Capture = pytest.CaptureFixture[str]
Begin = Callable[..., Chat]


@pytest.fixture
def begin(bundle: FakeBundle) -> Iterator[Begin]:
    """Begin a chat; all are closed at the end."""
    chats: list[Chat] = []

    def start(**options: object) -> Chat:
        chats.append(Chat(bundle, ChatStart(**options)))  # type: ignore[arg-type]
        return chats[-1]

    yield start
    for chat in chats:
        chat.close()


def say(chat: Chat, *lines: str) -> None:
    for line in lines:
        if line.startswith("/"):
            dispatch(chat, line)
        else:
            chat.ask(line)


def test_every_command_the_issue_names_is_there() -> None:
    named = "? set show system scene form template regen undo clear save load stats why bye"
    assert set(named.split()) <= set(COMMANDS)


def test_help_lists_every_command_once(begin: Begin, capsys: Capture) -> None:
    say(begin(), "/?")
    text = capsys.readouterr().out
    for command in set(COMMANDS.values()):
        assert text.count(f"  /{command.names[0]} ") + text.count(f"  /{command.names[0]}\n") == 1
        assert command.about in text


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("/regn", "did you mean /regen?"),
        ("/tempalte x", "/template"),
        ("/zzzzzz", "/? lists all"),
        ("/", "/? lists all"),
    ],
)
def test_an_unknown_command_suggests_the_nearest(begin: Begin, typed: str, words: str) -> None:
    with pytest.raises(InputError, match="unknown command") as caught:
        say(begin(), typed)
    assert words in str(caught.value)


def test_an_answer_is_a_card_and_the_text(begin: Begin, capsys: Capture) -> None:
    say(begin(), "hello")
    assert capsys.readouterr().out == (
        "  actors     you: asker · inner voice: doubt\n"
        "  tension    saying vs doing\n"
        "  archetype  pilgrim, guardian\n"
        "  centre     the next step\n"
        "\n"
        "You said hello, in turn 1.\nThe end\n"
    )


def test_scene_hides_and_shows_the_card(begin: Begin, capsys: Capture) -> None:
    chat = begin()
    with pytest.raises(InputError, match="no scene yet"):
        say(chat, "/scene")
    say(chat, "/scene off", "hello")
    assert "tension" not in capsys.readouterr().out
    say(chat, "/scene")
    assert "tension    saying vs doing" in capsys.readouterr().out
    say(chat, "/scene on", "again")
    assert "tension" in capsys.readouterr().out
    with pytest.raises(InputError):
        say(chat, "/scene maybe")


@pytest.mark.parametrize("form", ["yaml", "json", "image", "text", "auto"])
def test_each_form_shows_the_reply_once(begin: Begin, capsys: Capture, form: str) -> None:
    chat = begin()
    say(chat, f"/form {form}")
    capsys.readouterr()
    say(chat, "hello")
    text = capsys.readouterr().out
    assert chat.last is not None
    assert text.endswith(chat.last.text.rstrip("\n") + "\n")
    assert text.count("You said hello") == (0 if form == "image" else 1)
    assert ("  tension    saying" in text) == (form != "yaml")


def test_settings(begin: Begin, capsys: Capture) -> None:
    chat = begin(sampling={"temperature": 0.5}, form="text", template="mirror", lang="en")
    say(chat, "/set seed 7", "/set parameter top_k 40", "/set max_tokens=9", "/set lang ru", "/template initiation")
    settings = chat.session.settings
    assert settings["temperature"] == 0.5 and settings["seed"] == 7 and settings["top_k"] == 40
    assert settings["max_tokens"] == 9 and settings["lang"] == "ru" and settings["template"] == "initiation"
    say(chat, "/template auto", "/set seed none")
    assert chat.session.settings["template"] is None and chat.session.settings["seed"] is None
    capsys.readouterr()
    say(chat, "/set")
    assert "temperature" in capsys.readouterr().out
    for bad in ("/set heat 3", "/set temperature", "/set temperature hot", "/form prose", "/template nosuch"):
        with pytest.raises(InputError):
            say(chat, bad)


def test_show(begin: Begin, capsys: Capture) -> None:
    chat = begin(system="Be brief.")
    say(chat, "one\ntwo")
    capsys.readouterr()
    for what, words in (
        ("settings", "repeat_penalty"),
        ("history", ">>> one\n... two\nYou said one"),
        ("templates", "initiation  something begins"),
        ("model", "fake model, 3 layers"),
        ("system", "Be brief."),
        ("sessions", f"* {chat.file.name if chat.file else ''}"),
    ):
        say(chat, f"/show {what}")
        assert words in capsys.readouterr().out
    with pytest.raises(InputError, match="did you mean model"):
        say(chat, "/show modle")


def test_stats_and_why_tell_the_last_turn(begin: Begin, capsys: Capture) -> None:
    chat = begin()
    for command in ("/stats", "/why", "/regen", "/undo"):
        with pytest.raises(InputError):
            say(chat, command)
    say(chat, "hello")
    capsys.readouterr()
    say(chat, "/stats")
    assert "80 tokens (60 sampled, 20 forced, 2 resampled)" in capsys.readouterr().out
    say(chat, "/why")
    assert "the template initiation: closest in wording" in capsys.readouterr().out


def test_regen_and_undo_change_the_file_as_well(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one", "two", "/regen")
    assert [t.reply_text for t in chat.store.read("a")][1].endswith("The end!")
    say(chat, "/undo")
    assert [t.request for t in chat.store.read("a")] == ["one"]


def test_ten_turns_are_saved_and_continued(begin: Begin, capsys: Capture) -> None:
    chat = begin()
    for n in range(10):
        say(chat, f"line {n}")
    name = chat.file.name if chat.file else ""
    chat.close()
    again = begin(resume=True)
    assert again.file is not None and again.file.name == name
    assert [t.request for t in again.session.history] == [f"line {n}" for n in range(10)]
    say(again, "line 10")
    assert "in turn 11" in capsys.readouterr().out
    assert len(again.store.read(name)) == 11


def test_continue_without_a_session_begins_one(begin: Begin, capsys: Capture) -> None:
    chat = begin(resume=True)
    assert chat.file is not None
    assert "no session has been saved yet" in capsys.readouterr().err


def test_a_session_in_use_is_refused(begin: Begin) -> None:
    begin(name="a")
    with pytest.raises(SessionBusy):
        begin(name="a")


def test_private_saves_nothing(begin: Begin, home: Path) -> None:
    chat = begin(save=False)
    say(chat, "hello")
    chat.close()
    assert not home.exists()


def test_private_can_go_on_with_a_saved_session_without_changing_it(begin: Begin) -> None:
    chat = begin(name="a")
    say(chat, "one")
    chat.close()
    before = (chat.store.folder / "a.jsonl").read_bytes()
    again = begin(resume=True, save=False)
    say(again, "two")
    assert len(again.session.history) == 2
    assert (chat.store.folder / "a.jsonl").read_bytes() == before


def test_save_and_load(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="first", system="Be brief.")
    say(chat, "one", "/save second", "two")
    assert [len(chat.store.read(name)) for name in ("first", "second")] == [1, 2]
    say(chat, "/set seed 5", "/load first")
    assert chat.file is not None and chat.file.name == "first"
    assert len(chat.session.history) == 1
    assert chat.session.settings["seed"] == 5, "what was set stays set"
    say(chat, "/load second")
    assert chat.session.settings["system"] == "Be brief."
    with pytest.raises(SessionError, match="exists"):
        say(chat, "/save first")
    say(chat, "/save first --force")
    assert len(chat.store.read("first")) == 2
    capsys.readouterr()
    say(chat, "/load")
    assert "* first" in capsys.readouterr().out
    for bad in ("/load nosuch", "/load ../x", "/save ../x"):
        with pytest.raises(SessionError):
            say(chat, bad)
    assert chat.file.name == "first"


def test_a_private_chat_is_saved_when_asked(begin: Begin) -> None:
    chat = begin(save=False)
    say(chat, "one")
    with pytest.raises(SessionError, match="give a name"):
        say(chat, "/save")
    say(chat, "/save kept", "two", "/save")
    assert len(chat.store.read("kept")) == 2


def test_clear_begins_anew_and_loses_nothing(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one", "/clear", "two")
    assert "in turn 1" in capsys.readouterr().out
    assert len(chat.store.read("a")) == 1
    assert chat.file is not None and chat.file.name != "a"
    assert [t.request for t in chat.store.read(chat.file.name)] == ["two"]
    SessionStore().open("a").close()


def test_the_system_prompt_is_kept(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one", '/system "Answer in verse."')
    assert chat.session.settings["system"] == "Answer in verse."
    assert len(chat.session.history) == 1
    chat.close()
    again = begin(name="a")
    assert again.session.settings["system"] == "Answer in verse."
    say(again, "/system none")
    assert again.session.settings["system"] is None


def test_an_unwritable_folder_costs_the_saving_only(begin: Begin, home: Path, capsys: Capture) -> None:
    home.write_text("a file where the folder should be")
    chat = begin()
    err = capsys.readouterr().err
    assert "the chat goes on unsaved" in err and "the chat goes on without it" in err and err.count("\n") == 2
    say(chat, "hello", "again")
    assert len(chat.session.history) == 2
    with pytest.raises(SessionError, match="can't be saved"):
        say(chat, "/save x")


def test_a_readable_session_in_an_unwritable_folder_is_talked_to(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one")
    chat.close()
    locks = chat.store.folder / "locks"
    for path in locks.iterdir():
        path.unlink()
    locks.rmdir()
    locks.write_text("no folder")
    again = begin(name="a")
    assert len(again.session.history) == 1 and again.file is None
    assert "the chat goes on unsaved" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_once_and_made_good_later(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one")
    assert chat.file is not None
    path = chat.file.path
    path.unlink()
    path.symlink_to("/dev/full")
    capsys.readouterr()
    say(chat, "two", "three")
    err = capsys.readouterr().err
    assert err.count("No space left on device") == 1 and "unsaved" in err
    path.unlink()
    say(chat, "four")
    assert "is saved again" in capsys.readouterr().err
    assert len(chat.store.read("a")) == 4
    path.unlink()
    path.symlink_to("/dev/full")
    say(chat, "five")
    path.unlink()
    chat.close()
    assert len(chat.store.read("a")) == 5


def test_a_damaged_session_says_so_once(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one", "two")
    chat.close()
    with (chat.store.folder / "a.jsonl").open("ab") as stream:
        stream.write(b'{"request": "torn')
    capsys.readouterr()
    again = begin(name="a")
    assert "a damaged line was kept aside" in capsys.readouterr().err
    assert len(again.session.history) == 2


def test_a_session_of_a_newer_version_is_refused(begin: Begin) -> None:
    folder = SessionStore().folder
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"format":"ltm-edge-session","version":99}\n')
    with pytest.raises(SessionError, match="newer"):
        begin(name="a")


def test_a_failed_request_leaves_the_conversation_as_it_was(begin: Begin, capsys: Capture) -> None:
    chat = begin(name="a")
    say(chat, "one")
    with pytest.raises(LtmError):
        say(chat, "fail")
    say(chat, "empty")
    assert "before anything was written" in capsys.readouterr().err
    say(chat, "long two")
    assert "a cut context" in capsys.readouterr().err
    assert [t.request for t in chat.store.read("a")] == ["one", "long two"]


def test_leaving() -> None:
    for name in ("bye", "exit", "quit"):
        with pytest.raises(Leave):
            COMMANDS[name].run(None, "")  # type: ignore[arg-type]


def test_completion(begin: Begin) -> None:
    chat = begin(name="a")
    say(chat, "one")
    assert complete(chat, "/te") == ["/template"]
    assert complete(chat, "/template m") == ["mirror"]
    assert "temperature" in complete(chat, "/set te") + complete(chat, "/set ")
    assert complete(chat, "/form j") == ["json"]
    assert complete(chat, "/load ") == ["a"]
    assert complete(chat, "/nosuch x") == complete(chat, "hello") == complete(chat, "/set seed ") == []


def test_nothing_a_model_writes_steers_the_terminal(capsys: Capture) -> None:
    view = AnswerView("auto")
    view.feed('scene:\n  tension: "a\x1b]0;x\x07 vs b"\n  response: |\n    red \x1b[31m\x9b5n\n')
    view.finish(FakeReply("red \x1b[31m\x9b5n", "", {}, False, "text"))
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\x9b" not in text and "\x07" not in text
    assert text.count("red") == 1


def test_cards_take_both_spellings_of_actors_and_what_is_there() -> None:
    pairs = card_lines({"actors": (("you", "a"), ("inner_voice", "b"))})
    assert (
        pairs
        == card_lines({"actors": [{"you": "a"}, {"inner_voice": "b"}]})
        == ["  actors     you: a · inner voice: b"]
    )
    assert card_lines({"tension": "", "response": "x", "self_commentary": None}) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_while_an_answer_is_saved_waits_until_it_is(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = begin(name="late")
    assert chat.file is not None
    append = chat.file.append

    def interrupted(turn: Turn) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        append(turn)

    monkeypatch.setattr(chat.file, "append", interrupted)
    with terminable(), pytest.raises(SystemExit) as ended:
        say(chat, "hello")
    assert ended.value.code == 143
    assert [turn.request for turn in SessionStore().read("late")] == ["hello"]


def test_a_terminal_that_is_gone_ends_the_chat_as_its_signal_would(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = begin(name="hung")

    def gone(self: AnswerView, piece: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(AnswerView, "feed", gone)
    with pytest.raises(SystemExit) as ended:
        say(chat, "slow one")
    assert ended.value.code == 129
    (turn,) = SessionStore().read("hung")
    assert turn.partial
