"""What the chat and ``run`` show and take of the thinking loop, over the fake bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from ltm_edge.cli import chat_view
from ltm_edge.cli.chat_commands import complete, dispatch
from ltm_edge.cli.chat_loop import Chat, ChatStart
from ltm_edge.cli.chat_view import AnswerView
from ltm_edge.errors import InputError
from ltm_edge.explain import explain
from ltm_edge.explain_thinking import council_lines
from ltm_edge.loop.events import Replaced, Stage
from ltm_edge.scene.record import Scene

from .fakes import FakeBundle, FakeReply

Capture = pytest.CaptureFixture[str]
Invoke = Callable[..., Result]

CARD = (
    "  actors     you: asker · inner voice: doubt\n"
    "  tension    saying vs doing\n"
    "  archetype  pilgrim, guardian\n"
    "  centre     the next step\n"
    "\n"
)


@pytest.fixture
def chat(bundle: FakeBundle) -> Iterator[Chat]:
    with Chat(bundle, ChatStart()) as begun:  # type: ignore[arg-type]
        yield begun


def say(chat: Chat, *lines: str) -> None:
    for line in lines:
        if line.startswith("/"):
            dispatch(chat, line)
        else:
            chat.ask(line)


def test_a_revision_is_announced_and_stands_once(chat: Chat, capsys: Capture) -> None:
    say(chat, "revised please")
    assert capsys.readouterr().out == (
        CARD + "You said revised please, in turn 1.\nThe end\n"
        "(sent back by its critics: obstructio)\n"
        "(written again)\n" + CARD + "Once more, you said revised please, in turn 1.\nThe end\n"
        "(It went past the question.)\n"
    )
    assert chat.session.history[-1].reply_text.startswith("Once more")


@pytest.mark.parametrize("form", ["text", "yaml", "json", "image"])
def test_in_every_form_the_rewritten_answer_stands_once(chat: Chat, capsys: Capture, form: str) -> None:
    say(chat, f"/form {form}", "/scene off")
    capsys.readouterr()
    say(chat, "revised please")
    text = capsys.readouterr().out
    assert text.count("(written again)") == 1 and text.count("(It went past the question.)") == 1
    assert text.count("Once more, you said") == (0 if form == "image" else 1)
    assert text.count("You said") == (1 if form in ("text", "yaml") else 0)  # only what streams was ever shown
    assert text.index("(written again)") < text.index("(It went past")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Stage("council", "poet, ironist"), "(several channels draft: poet, ironist)\n"),
        (Stage("revise"), "(sent back by its critics)\n"),
        (Stage("recall"), ""),
        (Stage("draft"), ""),
        (Stage("critics"), ""),
        (Stage("store"), ""),
    ],
)
def test_only_what_takes_long_is_said(event: Stage, line: str, capsys: Capture) -> None:
    AnswerView().note(event)
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("council", "another channel's draft was chosen"),
        ("refusal", "no draft was good enough"),
        ("obstructio, recursia", "written again"),
    ],
)
def test_why_a_document_takes_the_drafts_place(about: str, words: str, capsys: Capture) -> None:
    view = AnswerView(card=False)
    view.feed("scene:\n  response: |\n    Old wor")
    view.note(Replaced("scene:\n  response: |\n    New words.\n", about))
    view.finish(FakeReply("New words.", "", {}, False, "text"))
    assert capsys.readouterr().out == f"Old wor\n({words})\nNew words.\n"


def test_a_remark_stands_under_a_picture_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_view, "picture", lambda document: "[a picture]\n")
    drawn = Scene((("you", "asker"),), "saying vs doing", ("pilgrim",), "the next step", "Go.")
    view = AnswerView("image", card=False)
    view.finish(FakeReply("<svg>", drawn.to_yaml(), {}, False, "image", "It went past the question."))
    text = capsys.readouterr().out
    assert text.startswith("[a picture]\n") and "<svg>" not in text
    assert text.index("/image FILE") < text.index("(It went past the question.)")


def test_council_asks_several_and_shows_their_drafts(chat: Chat, capsys: Capture) -> None:
    say(chat, "/council hello")
    text = capsys.readouterr().out
    answer, _, drafts = text.partition("The end\n")
    assert answer.startswith(CARD) and "poet" not in answer
    assert "poet: score 0.75, will 0.0, apart 0.25  <- chosen\n" in drafts
    assert "ironist: score 0.5, will 0.0, apart 0.25\n" in drafts
    assert drafts.count("  | scene:\n") == 2 and drafts.count("|     You said hello, in turn 1.") == 2
    say(chat, "/council")
    again = capsys.readouterr().out
    assert again == drafts.lstrip("\n") and len(chat.session.history) == 1


def test_council_without_one(chat: Chat, capsys: Capture) -> None:
    with pytest.raises(InputError, match="nothing has been answered yet"):
        say(chat, "/council")
    say(chat, "hello")
    with pytest.raises(InputError, match="the last answer had one draft"):
        say(chat, "/council")
    say(chat, "/council narrow")  # it was asked for and there was no room: the answer's own notices say so
    assert capsys.readouterr().out.endswith("You said narrow, in turn 2.\nThe end\n")
    say(chat, "hello")
    with pytest.raises(InputError, match="one draft"):  # one /council holds for one answer
        say(chat, "/council")


def test_channel_shows_and_chooses(chat: Chat, capsys: Capture) -> None:
    names = ", ".join(chat.bundle.channels)
    say(chat, "/channel")
    assert capsys.readouterr().out == f"channels = auto; there are: {names}\n"
    say(chat, "/channel poet=0.7,ironist=0.3")
    assert capsys.readouterr().out == f"channels = poet=0.7,ironist=0.3; there are: {names}\n"
    assert chat.session.settings["channels"] == {"poet": 0.7, "ironist": 0.3}
    say(chat, "/channel logician")
    assert chat.session.settings["channels"] == {"logician": 1.0}
    say(chat, "/channel auto")
    assert chat.session.settings["channels"] is None


def test_channel_shows_how_the_last_answer_was_routed(chat: Chat, capsys: Capture) -> None:
    say(chat, "hello")
    trace: Any = chat.session.history[-1].trace
    trace["routing"] = {"weights": {"poet": 0.75, "ironist": 0.25, "logician": 0.0}, "why": "poet leads"}
    capsys.readouterr()
    say(chat, "/channel")
    assert "Channels: poet 0.75, ironist 0.25 (poet leads).\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("/channel pirate", "pirate"),
        ("/channel poet=much", "'much' is no weight"),
        ("/channel poet=0.5,poet=0.5", "stands twice"),
        ("/channel poet=-1", "poet"),
        ("/channel poet=nan", "poet"),
        ("/channel =1", "expected name=weight"),
        ("/set channels pirate", "pirate"),
        ("/set council maybe", "one of auto, on, off"),
        ("/set budget 0", "seconds from over 0"),
        ("/set budget soon", "seconds from over 0"),
        ("/set budget nan", "seconds from over 0"),
        ("/set budget 1e9", "seconds from over 0"),
    ],
)
def test_bad_values_are_one_line_and_change_nothing(chat: Chat, typed: str, words: str) -> None:
    before = chat.session.settings
    with pytest.raises(InputError) as caught:
        say(chat, typed)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert chat.session.settings == before


def test_settings_of_the_loop_are_set_shown_and_reset(chat: Chat, capsys: Capture) -> None:
    say(chat, "/set council on", "/set budget 2.5", "/set channels poet")
    settings = chat.session.settings
    assert (settings["council"], settings["budget"], settings["channels"]) == ("on", 2.5, {"poet": 1.0})
    capsys.readouterr()
    say(chat, "/show settings")
    shown = capsys.readouterr().out
    assert "council" in shown and "budget" in shown and "channels" in shown
    say(chat, "/set council auto", "/set budget none", "/set channels auto")
    settings = chat.session.settings
    assert (settings["council"], settings["budget"], settings["channels"]) == ("auto", None, None)


def test_channels_are_completed(chat: Chat) -> None:
    found = [str(one) for one in complete(chat, "/channel po")]
    assert any("poet" in one for one in found)


# ltm-edge run ------------------------------------------------------------------------------------------------


def test_run_takes_channels_council_and_budget(invoke: Invoke, bundle: FakeBundle) -> None:
    result = invoke("run", "--text", "a", "--channel", "poet=0.7,ironist=0.3", "--council", "off", "--budget", "2.5")
    assert result.exit_code == 0, result.stderr
    settings = bundle.sessions[0].settings
    assert settings["channels"] == {"poet": 0.7, "ironist": 0.3}
    assert settings["council"] == "off" and settings["budget"] == 2.5


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--channel", "pirate", 1),
        ("--channel", "poet=much", 1),
        ("--council", "maybe", 2),
        ("--budget", "0", 2),
        ("--budget", "-3", 2),
        ("--budget", "soon", 2),
        ("--budget", "90000", 2),
    ],
)
def test_run_refuses_bad_values_in_one_line(
    invoke: Invoke, bundle: FakeBundle, option: str, value: str, code: int
) -> None:
    result = invoke("run", "--text", "a", option, value)
    assert result.exit_code == code and result.stdout == ""
    assert value in result.stderr or option in result.stderr
    assert "Traceback" not in result.stderr


def test_only_the_answer_of_a_revised_turn_is_on_stdout(invoke: Invoke, bundle: FakeBundle) -> None:
    result = invoke("run", "--text", "revised please")
    assert result.stdout == "Once more, you said revised please, in turn 1.\nThe end\n"


# /why --------------------------------------------------------------------------------------------------------

VERDICT = {
    "critic": "obstructio",
    "score": 0.12,
    "passed": False,
    "signals": {"direct": 0.1, "finished": 1.0},
    "probe": 0.4,
    "weakest": "direct",
    "question": "What is the answer, said straight?",
}
GOOD = VERDICT | {"score": 0.8, "passed": True, "weakest": "", "question": "", "probe": None}
THINKING: dict[str, Any] = {
    "template": {"name": "mirror", "why": "closest in meaning", "scores": {}},
    "lift": {
        "how": "embeddings",
        "phase": {"value": "drama", "source": "inferred", "similarity": 0.512},
        "archetypes": [{"value": "pilgrim", "source": "given"}],
        "goal": {"value": "grow beans", "source": "inferred"},
        "tension": {"value": "dry vs wet", "source": "inferred", "similarity": 0.7},
    },
    "routing": {
        "weights": {"poet": 0.75, "ironist": 0.25, "logician": 0.0},
        "why": "poet leads: likeness 0.31",
        "manner": "Manner: sing.",
    },
    "field": {"state": {}, "goal": "grow beans", "pull": 0.9},
    "consilium": {
        "why": "undecided: entropy 0.91 of 0.85",
        "chosen": "poet",
        "drafts": [
            {"channel": "poet", "document": "scene: 1\n", "score": 0.7, "will": 0.1, "apart": None, "verdicts": [GOOD]},
            {"channel": "ironist", "document": "scene: 2\n", "score": 0.4, "will": 0.0, "apart": 0.2, "verdicts": []},
        ],
    },
    "loop": {
        "passes": 2,
        "accepted": 1,
        "why": "accepted",
        "judged": [
            {"score": 0.12, "passed": False, "verdicts": [VERDICT]},
            {"score": 0.8, "passed": True, "verdicts": [GOOD]},
        ],
    },
    "remark": "I wrote this again.",
    "refused": None,
}


def test_the_thinking_part_of_a_trace_is_told() -> None:
    text = "\n".join(explain(THINKING))
    for words in (
        "The request was read by meaning: phase drama (likeness 0.51); archetypes pilgrim (as given).",
        "The goal: grow beans (from its words).",
        "The tension: dry vs wet (likeness 0.70).",
        "Channels: poet 0.75, ironist 0.25 (poet leads: likeness 0.31).",
        "The model was told: Manner: sing.",
        "The session's will: grow beans (pull 0.9).",
        "A consilium was held (undecided: entropy 0.91 of 0.85): poet, ironist; poet was chosen (/council).",
        "The critics on the draft: OBSTRUCTIO 0.12 (against), weakest direct 0.1, the model says 0.4. Mean 0.12.",
        "OBSTRUCTIO asked: What is the answer, said straight?",
        "The critics on revision 1: OBSTRUCTIO 0.8. Mean 0.8.",
        "Revision 1 is the answer of 2 passes: it was accepted.",
        "Remark: I wrote this again.",
    ):
        assert words in text, words
    assert "logician" not in text and "None" not in text


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("passes", "no further pass was allowed"),
        ("no better", "the revisions made it no better"),
        ("budget", "the budget of the turn was spent"),
        ("cancelled", "it was stopped"),
    ],
)
def test_why_the_loop_ended_is_told(why: str, words: str) -> None:
    trace = THINKING | {"loop": THINKING["loop"] | {"why": why, "accepted": 0}}
    assert f"The draft is the answer of 2 passes: {words}." in explain(trace)


def test_a_refusal_is_told() -> None:
    lines = explain(THINKING | {"refused": VERDICT})
    assert "No draft was good enough, so the answer says what is missing and asks one question." in lines


def test_a_trace_without_the_new_parts_is_told_as_before() -> None:
    old = {"template": {"name": "mirror", "why": "asked for", "scores": {}}, "prompt": {"tokens": 9}}
    text = "\n".join(explain(old))
    for word in ("critics", "consilium", "Channels", "will", "Remark", "was read"):
        assert word not in text
    plain = old | {"loop": {"passes": 1, "accepted": 0, "why": "accepted", "judged": [{"verdicts": [], "score": 1.0}]}}
    assert explain(plain) == explain(old)  # with every critic off there is nothing to tell
    assert council_lines(old) == []


def test_the_drafts_of_a_consilium_side_by_side() -> None:
    assert council_lines(THINKING) == [
        "poet: score 0.7, will 0.1  <- chosen",
        "  OBSTRUCTIO 0.8",
        "  | scene: 1",
        "",
        "ironist: score 0.4, will 0.0, apart 0.2",
        "  | scene: 2",
    ]
