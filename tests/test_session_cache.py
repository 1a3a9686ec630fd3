"""What a conversation computes, and what it does not compute again, on the real demo model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltm_edge.bundle import Bundle
from ltm_edge.loop.prompt import Known, common_prefix, moved_tokens, next_prompt
from ltm_edge.overlay_set import load_overlay
from tests.overlays import PLAIN, switchboard

pytestmark = pytest.mark.needs_model

SHORT = {"seed": 1, "temperature": 0.0, "max_tokens": 70}


@pytest.fixture(scope="module")
def demo_bundle(demo_bundle: Bundle) -> Bundle:
    """With examples at the head of a session, as packaged: a prefix that is worth keeping."""
    overlay = load_overlay({"ltm_overlay_config.yaml": switchboard(PLAIN, {"few_shot": 2})})
    return Bundle(demo_bundle.model, overlay, "with examples")


def counts(reply):
    return reply.trace["passes"][0]["tokens"]


def test_a_next_turn_computes_only_what_is_new(demo_bundle: Bundle) -> None:
    with demo_bundle.session(sampling=SHORT, template="mirror") as session:
        session.send("I wait.")
        for settled in (True, False):
            if settled:
                session.settle()
            before = session._known[-1].tokens
            reply = session.send("And then?")
            # What was read and written stands at the head of the prompt, token by token, and none of it is computed.
            assert np.array_equal(session._known[0].tokens[: len(before)], before)
            new = counts(reply)["prompt"] - len(before)
            if settled:  # the words between two turns were computed meanwhile
                assert counts(reply)["prefilled"] < new
            else:  # the last tokens of a document are written without ever being computed
                assert counts(reply)["prefilled"] <= new + 8
        assert session._decoder is not None
        session.settle()
        assert session._decoder.stats["leased"] == 0 and session._decoder.stats["sequences"] <= 3


def test_work_between_turns_gives_way_to_the_next_one(demo_bundle: Bundle) -> None:
    with demo_bundle.session(sampling=SHORT | {"max_tokens": 50}, template="mirror") as session:
        documents = []
        for _ in range(2):
            session.clear()
            session.send("I wait.")
            session.undo()
            documents.append(session.send("I wait no more.").document)
        assert documents[0] == documents[1]


def test_a_full_context_moves_what_stays(demo_path: Path, plain_overlay: Path) -> None:
    with (
        Bundle.open(demo_path, ctx=512, overlay=plain_overlay) as bundle,
        bundle.session(sampling=SHORT, template="mirror") as session,
    ):
        moved = dropped = 0
        for n in range(6):
            reply = session.send(f"Tell me again, for time {n}, of the house by the river and of those who left it.")
            assert reply.scene is not None
            prompt = reply.trace["prompt"]
            if prompt["dropped_turns"] > dropped:
                assert any("context of 512 tokens is full" in line for line in reply.trace["notices"])
                moved += prompt["moved"]
                # Only what is behind the moved part is new.
                assert counts(reply)["reused"] > prompt["tokens"] // 3
            dropped = prompt["dropped_turns"]
        assert dropped > 0 and moved > 0


def test_a_saved_state_is_a_prefix_that_is_not_computed(
    demo_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTM_EDGE_STATE_MB", "512")
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path))
    replies = []
    for _ in range(2):
        with demo_bundle.session(sampling=SHORT, template="mirror") as session:
            replies.append(session.send("I wait."))
            session.settle()
    cold, warm = replies
    assert cold.trace["prompt"]["restored"] == 0
    assert warm.trace["prompt"]["restored"] >= cold.trace["prompt"]["tokens"] // 2
    assert warm.document == cold.document  # the same seed, the same bytes

    with demo_bundle.session(name="kept", sampling=SHORT, template="mirror") as session:
        session.send("I wait.")
        history = session.history
    with demo_bundle.session(name="kept", history=history, sampling=SHORT, template="mirror") as session:
        reply = session.send("And now?")
        assert reply.trace["prompt"]["restored"] > warm.trace["prompt"]["restored"]
        prompt = reply.trace["prompt"]
        assert counts(reply)["prefilled"] <= prompt["tokens"] - prompt["restored"] < prompt["tokens"] / 2


def test_a_conversation_that_is_cleared_leaves_no_kv_behind(
    demo_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTM_EDGE_STATE_MB", "512")
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path))
    with demo_bundle.session(name="kept", sampling=SHORT, template="mirror") as session:
        session.send("I wait.")
        session.settle()
    before = set(tmp_path.rglob("*.kv"))
    with demo_bundle.session(name="kept", sampling=SHORT, template="mirror") as session:
        session.clear()
    assert len(before) == 2 and len(set(tmp_path.rglob("*.kv"))) == 1  # what conversations begin with stays


def test_a_conversation_without_a_name_leaves_no_words_behind(
    demo_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTM_EDGE_STATE_MB", "512")
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path))
    with demo_bundle.session(sampling=SHORT, template="mirror", system="Call me Ishmael.") as session:
        session.send("I wait.")
        session.settle()
    assert not list(tmp_path.rglob("*.kv"))


def test_what_comes_next_is_known_up_to_the_request(demo_bundle: Bundle) -> None:
    with demo_bundle.session(sampling=SHORT, template="mirror") as session:
        session.send("I wait.")
        session.settle()
        assert session._composer is not None
        expected, head = next_prompt(session._composer, demo_bundle.model, session.history, session._known)
        session.send("Why?")
        assert common_prefix(expected, session._known[0].tokens) >= len(expected) - 1
        assert 0 < head < len(expected)


def test_moved_tokens() -> None:
    old = np.arange(200, dtype=np.int32)
    assert moved_tokens(old, np.concatenate([old[:50], old[90:], old[:9]])) == (50, 40)
    assert moved_tokens(old, old) == (0, 0)
    assert moved_tokens(old, old[::-1].copy()) == (0, 0)
    assert common_prefix(old, old[:30]) == 30
    assert Known("text", old).text == "text"
