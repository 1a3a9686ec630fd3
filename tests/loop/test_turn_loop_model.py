"""The loop on the real demo model: what is computed, what is shared, and what is kept for the next turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder
from ltm_edge.grammar.template import document_head, template_gbnf
from ltm_edge.loop.prompt import common_prefix, next_prompt
from ltm_edge.scene.record import Scene
from ltm_edge.session import Session
from tests.loop.talking import QUESTION, QUIET, SHORT, Heard, Says, Spy, kinds, plain, variant, with_critics

pytestmark = pytest.mark.needs_model

ASK = "My garden keeps dying and I do not know why."


def counts(reply: Any, number: int = 0) -> dict[str, int]:
    found: dict[str, int] = reply.trace["passes"][number]["tokens"]
    return found


def goes_on_from(session: Session, before: np.ndarray, reply: Any) -> None:
    """The prompt of a turn begins with all that was committed before it, and none of that is computed again."""
    assert np.array_equal(session._known[0].tokens[: len(before)], before)
    assert counts(reply)["reused"] >= len(before)


def test_with_all_off_a_turn_is_a_plain_constrained_answer_token_by_token(quick_bundle: Bundle) -> None:
    """The same calls, made by hand on a context of their own, give the same tokens: in a first turn and in a next."""
    bundle = plain(quick_bundle)
    model, names = bundle.model, bundle.overlay_set.archetype_names()["en"]
    gbnf = template_gbnf(bundle.templates["brief"], names)
    by_hand = Decoder(model)
    with bundle.session(sampling=SHORT | {"temperature": 0.7}) as session:
        for text in (ASK, "And then?"):
            heard = Heard()
            reply = session.send(text, **heard.ears)
            assert heard.streamed == reply.document and heard.replaced == [] and "revise" not in heard.stages
            assert kinds(reply.trace) == ["draft"] and reply.trace["loop"]["judged"][0]["verdicts"] == []
            assert not {"lift", "routing", "consilium"} & set(reply.trace) and reply.remark == ""
            assert reply.trace["field"]["state"] == {} and reply.trace["notices"] == []
            prompt, both = session._known
            assert "Manner" not in prompt.text and prompt.text.count(text) == 1
            assert session._composer is not None
            head, _ = next_prompt(session._composer, model, (), ())
            by_hand.warm(prompt.tokens, common_prefix(prompt.tokens, head))
            sampling = replace(session._settings.sampling, seed=SHORT["seed"])
            done = by_hand.write(prompt.tokens, max_tokens=SHORT["max_tokens"], sampling=sampling, gbnf=gbnf)
            assert np.array_equal(done.tokens, both.tokens[len(prompt.tokens) :]) and done.text == reply.document
            session.settle()
            by_hand.commit(next_prompt(session._composer, model, session.history, session._known)[0])


def test_a_revision_keeps_the_scene_and_the_next_turn_goes_on_from_it(quick_bundle: Bundle) -> None:
    with variant(quick_bundle, QUIET).session(sampling=SHORT) as session:
        with_critics(session, Says(0.2, 0.9))
        heard = Heard()
        reply = session.send(ASK, **heard.ears)
        assert kinds(reply.trace) == ["draft", "revision"] and reply.trace["loop"]["accepted"] == 1
        assert document_head(heard.streamed) == document_head(reply.document) != ""
        assert heard.streamed != reply.document == heard.replaced[-1] and len(heard.replaced) == 1
        assert Scene.from_yaml(heard.streamed).tension == reply.scene.tension  # type: ignore[union-attr]
        assert Scene.from_yaml(reply.document) == reply.scene and reply.remark
        # The revision reads the draft's prompt from what is there; only the question is new to it.
        asked = len(session.bundle.model.tokenize(QUESTION))
        assert counts(reply, 1)["prefilled"] <= asked + 20 < counts(reply, 1)["reused"]
        assert counts(reply, 1)["proposed"] > 0  # from the draft
        session.settle()
        before = session._known[-1].tokens
        following = session.send("And then?")
        goes_on_from(session, before, following)
        assert QUESTION not in session._known[0].text and reply.document in session._known[0].text


def test_seats_share_their_prompt_and_the_next_turn_goes_on_from_the_chosen_one(quick_bundle: Bundle) -> None:
    with variant(quick_bundle, QUIET).session(sampling=SHORT) as session:
        spy = Spy(with_critics(session, Says(0.7, 0.9, 0.8, 0.7, 0.9)))
        heard = Heard()
        reply = session.send(ASK, council="on", **heard.ears)
        passes = reply.trace["passes"]
        first, *others = (order.prompt for order in spy.orders[0])
        assert len(passes) == 4 and len({one["channel"] for one in passes}) == 4
        for one, prompt in zip(passes[1:], others, strict=True):
            own = len(prompt) - common_prefix(first, prompt)
            assert one["tokens"]["prompt"] == len(prompt) and one["tokens"]["prefilled"] <= own + 1 < len(prompt) // 2
        for one in passes:
            assert one["tokens"]["reused"] + one["tokens"]["prefilled"] == one["tokens"]["prompt"]
        council = reply.trace["consilium"]
        assert council["chosen"] == passes[1]["channel"] and council["why"] == "asked for"
        assert council["drafts"][1]["document"] == reply.document == heard.replaced[-1]
        assert council["drafts"][0]["document"] == heard.streamed
        words = session.bundle.field.channels[council["chosen"]].directive["en"]
        assert words in reply.trace["routing"]["manner"]
        session.settle()
        before = session._known[-1].tokens
        following = session.send("And then?")
        goes_on_from(session, before, following)
        text = session._known[0].text
        assert text.index(words) < text.index(ASK) < text.index(reply.document)
        others_words = (session.bundle.field.channels[one["channel"]].directive["en"] for one in passes)
        assert not any(one in text[: text.index(ASK)] for one in others_words if one != words)


@pytest.mark.parametrize("council", ["off", "on"])
def test_a_budget_that_is_spent_still_lands_on_a_whole_document(quick_bundle: Bundle, council: str) -> None:
    with variant(quick_bundle, QUIET).session(sampling=SHORT) as session:
        with_critics(session, Says(0.2))
        first = session.send(ASK, budget=0.001)  # nothing is known of the speed yet
        second = session.send("And then?", budget=0.001, council=council)
    for reply in (first, second):
        assert not reply.partial and reply.scene == Scene.from_yaml(reply.document)
        assert reply.trace["loop"]["why"] == "budget" and "revision" not in kinds(reply.trace)
    smallest = session._loop._decoder.smallest(session.bundle.templates["brief"], "en")
    for one in second.trace["passes"]:
        tokens = one["tokens"]
        assert tokens["sampled"] + tokens["forced"] + tokens["copied"] <= smallest


def test_a_consilium_can_be_asked_for_where_nothing_is_routed(quick_bundle: Bundle) -> None:
    with plain(quick_bundle).session(sampling=SHORT) as session:
        reply = session.send(ASK, council="on")
        assert [one["channel"] for one in reply.trace["passes"]] == list(session.bundle.channels)[:4]
        assert reply.trace["consilium"]["why"] == "asked for" and not reply.partial
        # It stands in the next prompt as it was said.
        before = session._known[0].text
        session.send("And then?", max_tokens=60)
        assert session._known[0].text.startswith(before) and reply.trace["routing"]["manner"] in before
