"""TurnLoop's policy, with a writer that types given documents and critics that say what they are told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ltm_edge.engine.decoder import Sampling
from ltm_edge.errors import ContextFull, EngineError, GrammarError
from ltm_edge.explain import explain
from ltm_edge.grammar.template import document_head, template_gbnf
from ltm_edge.loop.consilium import Seat
from ltm_edge.loop.critics.panel import CriticPanel
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.prompt import fit_prompt
from ltm_edge.loop.scene_decoder import SceneDecoder
from ltm_edge.loop.self_loop import Budget
from ltm_edge.loop.turn_loop import Outcome, TurnLoop
from ltm_edge.loop.turn_order import Evidence, TurnOrder
from ltm_edge.overlay_set import load_overlay
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.overlay import parse_overlay
from tests.loop.talking import BRIEF, QUESTION, SMALL, Heard, Says
from tests.loop.typist import Bytes, Typist
from tests.memory.hashed import HashedEmbedder
from tests.overlays import switchboard

ASK = "My garden keeps dying."
MAX = 300
CHOSEN = {"name": "brief", "why": "asked for", "scores": {}}


SET = load_overlay({"scene_templates/brief.yaml": BRIEF, "ltm_overlay_config.yaml": switchboard(SMALL)})
TEMPLATE = SET.templates["brief"]


def document(response: str, centre: str = "the soil") -> str:
    told = Scene((("you", "gardener"),), "dry vs wet", ("host",), centre, response)
    return told.to_yaml(tuple(TEMPLATE.fields))


ONE, TWO, THREE, FOUR = (document(f"Water it {word}.") for word in ("once", "twice", "often", "never"))


def order(**changes: Any) -> TurnOrder:
    base = TurnOrder(Pvq(ASK), "en", MAX, Sampling(seed=1), manner="Manner: be plain.")
    return replace(base, **{"budget": Budget(), **changes})


class Turn:
    """One turn over a typist: its outcome and what was heard of it."""

    def __init__(
        self,
        writer: Typist,
        critics: Sequence[Any] = (),
        changes: dict[str, Any] | None = None,
        stop_at: str = "",
        **options: Any,
    ) -> None:
        overlay = parse_overlay(switchboard(SMALL, changes or {}))
        self.heard = Heard()
        self.stopped = False
        self.composer = PromptComposer(SET.prompts, TEMPLATE, "en", None, SET.templates, 0)
        self._writer, self._stop_at = writer, stop_at
        decoder = SceneDecoder(writer, Bytes(), SET.archetype_names())
        self.loop = TurnLoop(decoder, overlay, CriticPanel(critics, overlay), None)
        self.template = options.pop("template", TEMPLATE)
        self.history = options.pop("history", ())
        self.known, self.dropped = options.pop("known", ()), options.pop("dropped", 0)
        self.order = order(**options)

    def run(self) -> Outcome:
        def hear(event: Any) -> None:
            self.heard.events.append(event)
            if getattr(event, "name", None) == self._stop_at:
                self.stopped = True
                self._writer.cancel()

        outcome = self.loop.run(
            self.order,
            self.template,
            CHOSEN,
            self.composer,
            self.history,
            self.heard.pieces.append,
            hear,
            lambda: self.stopped,
            self.known,
            self.dropped,
        )
        json.dumps(outcome.trace, allow_nan=False)  # whatever happened, it is JSON
        return outcome


def accepted(outcome: Outcome) -> tuple[int, int, str]:
    """Drafts written, the accepted one, and why the loop stopped."""
    loop = outcome.trace["loop"]
    return len(outcome.trace["passes"]), loop["accepted"], loop["why"]


# One draft ---------------------------------------------------------------------------------------------------


def test_a_draft_that_nobody_is_against_is_the_answer() -> None:
    turn = Turn(Typist(ONE), [Says(0.9)])
    outcome = turn.run()
    assert (outcome.document, outcome.partial, outcome.stop) == (ONE, False, "eog")
    assert outcome.scene == Scene.from_yaml(ONE) and outcome.refused is None
    assert accepted(outcome) == (1, 0, "accepted")
    assert turn.heard.stages == ["draft", "critics"] and turn.heard.replaced == [] and turn.heard.streamed == ONE


def test_without_critics_and_loop_there_is_one_pass_and_nothing_else() -> None:
    writer = Typist(ONE)
    outcome = Turn(writer, changes={"self_loop": {"enabled": False}}, manner="").run()
    assert accepted(outcome) == (1, 0, "accepted") and "consilium" not in outcome.trace
    (only,) = writer.orders[0]
    assert only.max_tokens == MAX and only.references == () and writer.adapters == [None]
    fitted = fit_prompt(
        PromptComposer(SET.prompts, TEMPLATE, "en", None, SET.templates, 0),
        Bytes(),
        (),
        Pvq(ASK),
        TEMPLATE,
        "en",
        n_ctx=writer.n_ctx,
        max_tokens=MAX,
    )
    assert np.array_equal(only.prompt, fitted.tokens)


def test_what_ran_out_of_tokens_is_partial_and_not_judged() -> None:
    critic = Says(0.9)
    outcome = Turn(Typist(document("Water it. " * 60)), [critic]).run()
    assert outcome.partial and outcome.stop == "length" and outcome.scene is None and critic.seen == []
    assert any("ran out of its 300 tokens" in notice for notice in outcome.trace["notices"])


def test_a_document_that_breaks_its_schema_is_said_and_is_partial() -> None:
    outcome = Turn(Typist("scene:\n  tension: 7\n")).run()
    assert outcome.partial and any("does not follow its schema" in notice for notice in outcome.trace["notices"])


def test_a_limit_of_tokens_that_no_document_fits_into_is_refused_with_numbers() -> None:
    with pytest.raises(GrammarError, match="max_tokens is 9; give at least"):
        Turn(Typist(ONE), max_tokens=9).run()


# Revisions ---------------------------------------------------------------------------------------------------


def test_a_better_revision_takes_the_drafts_place() -> None:
    critic, writer = Says(0.2, 0.9), Typist(ONE, TWO)
    turn = Turn(writer, [critic])
    outcome = turn.run()
    assert outcome.document == TWO and outcome.scene == Scene.from_yaml(TWO)
    assert accepted(outcome) == (2, 1, "accepted")
    assert turn.heard.streamed == ONE and turn.heard.replaced == [TWO]
    assert turn.heard.stages == ["draft", "critics", "revise", "critics"]
    assert [event.about for event in turn.heard.events if hasattr(event, "document")] == ["obstructio"]
    draft, revision = (call[0] for call in writer.orders)
    assert revision.sampling.seed != draft.sampling.seed
    assert [bytes(tokens.astype(np.uint8)).decode() for tokens in revision.references] == [ONE]
    assert [one.drafts for one in critic.seen] == [(), (Scene.from_yaml(ONE),)]


def test_a_revision_is_asked_with_the_critics_question_which_stands_nowhere_afterwards() -> None:
    writer = Typist(ONE, TWO)
    outcome = Turn(writer, [Says(0.2, 0.9)]).run()
    first, second = writer.prompts()
    assert QUESTION in second and QUESTION not in first
    assert second.startswith(first[: first.index(ASK) + len(ASK)])  # what both share is computed once
    prompt, both = outcome.known
    assert prompt.text == first and both.text == first + TWO
    assert bytes(both.tokens.astype(np.uint8)).decode() == both.text


def test_only_what_stands_before_the_response_is_kept() -> None:
    writer = Typist(ONE, TWO)
    Turn(writer, [Says(0.2, 0.9)]).run()
    draft, revision = (call[0] for call in writer.orders)
    names = SET.archetype_names()["en"]
    assert draft.gbnf == template_gbnf(TEMPLATE, names)
    assert revision.gbnf == template_gbnf(TEMPLATE, names, document_head(ONE))


TOLD = document("Water it once. Dig deep. Wait a day.")
AGAIN = document("Water it once. Ask a neighbour.")


def against(stands: int, name: str = "obstructio") -> Verdict:
    return Verdict(name, 0.2, False, question=QUESTION, stands=stands)


@pytest.mark.parametrize(
    ("stands", "kept", "opening"),
    [
        ((1,), 1, "Water it once."),
        ((2,), 2, "Water it once. Dig deep."),
        ((2, 1), 1, "Water it once."),
        ((2, 0), 0, ""),
    ],
)
def test_what_all_critics_let_stand_of_the_response_is_kept(stands: tuple[int, ...], kept: int, opening: str) -> None:
    critics = [Says(against(count, f"c{count}"), 0.9, name=f"c{count}") for count in stands]
    writer = Typist(TOLD, AGAIN)
    outcome = Turn(writer, critics).run()
    revision = writer.orders[1][0]
    names = SET.archetype_names()["en"]
    assert revision.gbnf == template_gbnf(TEMPLATE, names, document_head(TOLD, opening))
    assert outcome.document == AGAIN and outcome.trace["passes"][1].get("kept", 0) == kept
    assert len(revision.references) == (0 if kept else 1)  # what stands is there already
    assert [one["stands"] for one in outcome.trace["loop"]["judged"][0]["verdicts"]] == list(stands)


def test_a_response_that_leaves_no_room_is_kept_as_far_as_there_is_some() -> None:
    """Two lines of sixty characters are all there may be, and the second one is full."""
    full = document(f"Water it once.\nDig deep. {'Wait a day, ' * 3}or two. Ask.")
    writer = Typist(full, TWO)
    Turn(writer, [Says(against(3), 0.9)]).run()
    assert document_head(full, "Water it once.\nDig deep.") in writer.orders[1][0].gbnf.replace('\\"', '"').replace(
        "\\n", "\n"
    )


def test_no_more_is_kept_than_leaves_room_to_write() -> None:
    """What stands takes nearly all the tokens that there may be: less of it is kept, and the revision is written."""
    for more, kept in ((20, 1), (40, 2)):
        writer = Typist(TOLD, AGAIN)
        limit = len(document_head(TOLD, "Water it once. Dig deep.")) + more
        Turn(writer, [Says(against(2), 0.9)], max_tokens=limit).run()
        opening = ("Water it once.", "Water it once. Dig deep.")[kept - 1]
        assert writer.orders[1][0].gbnf == template_gbnf(
            TEMPLATE, SET.archetype_names()["en"], document_head(TOLD, opening)
        )


@pytest.mark.parametrize("scores", [(0.4, 0.3), (0.4, 0.4)])
def test_a_revision_that_is_no_better_is_dropped_and_stands_in_the_trace(scores: tuple[float, ...]) -> None:
    turn = Turn(Typist(ONE, TWO), [Says(*scores)])
    outcome = turn.run()
    assert outcome.document == ONE and turn.heard.replaced == []
    assert accepted(outcome) == (2, 0, "passes")
    assert [one.get("document") for one in outcome.trace["loop"]["judged"]] == [None, TWO]
    assert "  It lost: “Water it twice.”" in explain(outcome.trace)


def test_every_draft_that_lost_stands_in_the_trace() -> None:
    changes = {"self_loop": {"max_passes": 4}}
    outcome = Turn(Typist(ONE, TWO, THREE, FOUR), [Says(0.2, 0.3, 0.25, 0.9)], changes).run()
    assert [one.get("document") for one in outcome.trace["loop"]["judged"]] == [ONE, TWO, THREE, None]


def test_only_stages_that_are_run_are_told() -> None:
    nobody = Turn(Typist(ONE))
    nobody.run()
    assert nobody.heard.stages == ["draft"]
    cut = Turn(Typist(document("Water it. " * 60)), [Says(0.9)])
    cut.run()
    assert cut.heard.stages == ["draft"]
    spent = Turn(Typist(ONE), [Says(0.2)], budget=Budget(tokens=len(ONE) + 30))
    spent.run()
    assert spent.heard.stages == ["draft", "critics"]


def test_several_revisions_each_of_the_one_before() -> None:
    critic, writer = Says(0.2, 0.3, 0.25, 0.9), Typist(ONE, TWO, THREE, FOUR)
    turn = Turn(writer, [critic], {"self_loop": {"max_passes": 4}})
    outcome = turn.run()
    assert outcome.document == FOUR and turn.heard.replaced == [FOUR]
    assert accepted(outcome) == (4, 3, "accepted")
    assert [len(one.drafts) for one in critic.seen] == [0, 1, 2, 3]
    assert len({call[0].sampling.seed for call in writer.orders}) == 4
    middle = Turn(Typist(ONE, TWO, THREE), [Says(0.2, 0.4, 0.3)], {"self_loop": {"max_passes": 3}}).run()
    assert middle.document == TWO and accepted(middle) == (3, 1, "passes")


def test_a_revision_that_ran_out_of_tokens_is_dropped() -> None:
    turn = Turn(Typist(ONE, document("Water it. " * 60)), [Says(0.2)])
    outcome = turn.run()
    assert outcome.document == ONE and not outcome.partial and turn.heard.replaced == []
    assert accepted(outcome) == (2, 0, "incomplete")


def test_the_question_of_the_weakest_is_asked_where_all_passed_but_it_is_not_good_enough() -> None:
    low = Verdict("insight_seeker", 0.5, True, question="What is new?")
    writer = Typist(ONE, TWO)
    Turn(writer, [Says(low, name="insight_seeker")], {"self_loop": {"accept": 0.9}}).run()
    assert "What is new?" in writer.prompts()[1]


def test_a_context_that_holds_no_question_holds_the_draft() -> None:
    """The request just fits; with the critics' question behind it, it doesn't."""
    fits = len(Turn(Typist(ONE), [Says(0.9)]).run().known[0].tokens) + MAX
    turn = Turn(Typist(ONE, n_ctx=fits), [Says(0.2)])
    outcome = turn.run()
    assert outcome.document == ONE and not outcome.partial and accepted(outcome)[:2] == (1, 0)
    assert any("no room" in notice for notice in outcome.trace["notices"])


# Budgets -----------------------------------------------------------------------------------------------------


def test_a_budget_of_tokens_ends_the_loop_with_a_whole_document() -> None:
    outcome = Turn(Typist(ONE), [Says(0.2)], budget=Budget(tokens=len(ONE) + 10)).run()
    assert outcome.document == ONE and accepted(outcome) == (1, 0, "budget")
    writer = Typist(ONE, TWO, THREE)
    outcome = Turn(writer, [Says(0.2)], {"self_loop": {"max_passes": 8}}, budget=Budget(tokens=2 * len(TWO) + 30)).run()
    assert accepted(outcome)[2] == "budget" and len(outcome.trace["passes"]) == 2
    assert sum(len(call[0].prompt) > 0 for call in writer.orders) == 2


def test_the_first_draft_has_room_for_a_whole_document_however_small_the_budget() -> None:
    writer = Typist(ONE)
    outcome = Turn(writer, [Says(0.2)], budget=Budget(seconds=1e-9, tokens=1, speed=1.0)).run()
    smallest = SceneDecoder(writer, Bytes(), SET.archetype_names()).smallest(TEMPLATE, "en")
    assert writer.orders[0][0].max_tokens == smallest
    assert accepted(outcome)[0] == 1


def test_seconds_that_are_over_begin_no_further_pass() -> None:
    class Slow(Says):
        def judge(self, exhibit: Any) -> Any:
            time.sleep(0.03)
            return super().judge(exhibit)

    turn = Turn(Typist(ONE), [Slow(0.2)], budget=Budget(seconds=0.02))
    assert accepted(turn.run()) == (1, 0, "budget")


# Critics that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Says(EngineError("out of memory"), name="mine"), "mine failed and was left out"),
        (Says(ZeroDivisionError("x"), name="mine"), "mine failed and was left out"),
        (Says(float("nan"), name="mine"), "its score is nan"),
        (Says(float("inf"), name="mine"), "its score is inf"),
        (Says(-0.5, name="mine"), "its score is -0.5"),
        (Says(Verdict("mine", float("nan"), True), name="mine"), "its score is nan"),
    ],
)
def test_a_critic_that_fails_costs_its_word_and_not_the_turn(bad: Says, words: str) -> None:
    outcome = Turn(Typist(ONE, TWO), [bad, Says(0.2, 0.9)]).run()
    assert outcome.document == TWO and not outcome.partial
    assert [len(one["verdicts"]) for one in outcome.trace["loop"]["judged"]] == [1, 1]
    assert any(words in notice for notice in outcome.trace["notices"])


def test_a_critic_that_hangs_is_left_behind_from_then_on() -> None:
    class Hangs(Says):
        def judge(self, exhibit: Any) -> Any:
            super().judge(exhibit)
            over.wait()
            return 1.0

    over = threading.Event()
    hung = Hangs(1.0, name="hung")
    # The one beside it gets as long: enough for a machine that does other work.
    turn = Turn(Typist(ONE, TWO), [hung, Says(0.2, 0.9)], {"critics": {"patience": 1.5}})
    outcome = turn.run()
    over.set()
    assert outcome.document == TWO and len(hung.seen) == 1
    said = [notice for notice in outcome.trace["notices"] if "hung" in notice]
    assert len(said) == 1 and "took over 1.5 s" in said[0]


def test_when_every_critic_fails_the_draft_stands() -> None:
    outcome = Turn(Typist(ONE), [Says(ValueError("x"), name="a"), Says(float("nan"), name="b")]).run()
    assert outcome.document == ONE and accepted(outcome) == (1, 0, "accepted") and len(outcome.trace["notices"]) == 2


def test_a_critic_cannot_change_what_it_sees() -> None:
    class Meddler(Says):
        def judge(self, exhibit: Any) -> Any:
            exhibit.scene = None
            return 1.0

    outcome = Turn(Typist(ONE), [Meddler(1.0, name="meddler")]).run()
    assert outcome.document == ONE and any("meddler failed" in notice for notice in outcome.trace["notices"])


# Refusals ----------------------------------------------------------------------------------------------------


def test_what_stays_too_far_from_an_answer_is_refused_after_the_last_pass() -> None:
    turn = Turn(Typist(ONE, TWO), [Says(0.05, 0.06)])
    outcome = turn.run()
    assert outcome.refused is not None and outcome.refused.critic == "obstructio" and outcome.refused.score == 0.06
    assert turn.heard.replaced == []  # nobody wants to see the second of two drafts that are no good
    assert Turn(Typist(ONE, TWO), [Says(0.05, 0.1)]).run().refused is None  # at the limit
    assert Turn(Typist(ONE, TWO), [Says(0.05, 0.06, name="recursia")]).run().refused is None


@pytest.mark.parametrize(
    "changes",
    [{"self_loop": {"enabled": False}}, {"critics": {"obstructio": {"enabled": False}}}],
)
def test_nothing_is_refused_where_that_is_switched_off(changes: dict[str, Any]) -> None:
    assert Turn(Typist(ONE, TWO), [Says(0.0)], changes).run().refused is None


# Cancelling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop_at", "scores", "whole"),
    [
        ("draft", (0.9,), False),
        ("critics", (0.9,), True),  # it would have been accepted
        ("critics", (0.2, 0.9), True),
        ("revise", (0.2, 0.9), True),
    ],
)
def test_what_is_stopped_is_partial_and_keeps_what_there_is(
    stop_at: str, scores: tuple[float, ...], whole: bool
) -> None:
    turn = Turn(Typist(ONE, TWO), [Says(*scores)], stop_at=stop_at)
    outcome = turn.run()
    assert outcome.partial and outcome.scene is None and outcome.stop == "cancelled" and outcome.refused is None
    assert outcome.loop.cancelled and turn.heard.replaced == []
    assert outcome.document == (ONE if whole else "") == turn.heard.streamed


def test_what_was_stopped_before_the_draft_writes_none() -> None:
    """Even where the writer forgot of it, since it was reading something else at that moment."""
    turn = Turn(Typist(ONE), [Says(0.9)])
    turn.stopped = True
    outcome = turn.run()
    assert outcome.partial and outcome.stop == "cancelled" and outcome.document == ""


def test_an_answer_that_would_be_refused_is_not_when_it_is_stopped() -> None:
    outcome = Turn(Typist(ONE, TWO), [Says(0.01)], stop_at="revise").run()
    assert outcome.partial and outcome.refused is None


# Consilium ---------------------------------------------------------------------------------------------------

SEATS = tuple(
    Seat(name, f"Manner: {words}.", Sampling(seed=number))
    for number, (name, words) in enumerate({"poet": "sing", "logician": "count", "ironist": "smile at it"}.items())
)


def council(*documents: str, **options: Any) -> Callable[..., Turn]:
    def make(*critics: Any, changes: dict[str, Any] | None = None, n_ctx: int = 20_000, **more: Any) -> Turn:
        given = {"seats": SEATS, "council": "asked for", **options, **more}
        return Turn(Typist(*documents, n_ctx=n_ctx), critics, changes, **given)

    return make


def test_seats_draft_at_once_each_in_its_manner_and_the_best_is_the_answer() -> None:
    turn = council(ONE, TWO, THREE)(Says(0.7, 0.9, 0.8))
    outcome = turn.run()
    (orders,) = turn._writer.orders
    assert len(orders) == 3 and [one.sampling.seed for one in orders] == [0, 1, 2]
    for seat, text in zip(SEATS, turn._writer.prompts(), strict=True):
        assert seat.manner in text and ASK in text and "be plain" not in text
    common = [text.partition("Manner:")[0] for text in turn._writer.prompts()]
    assert len(set(common)) == 1 and len(common[0]) > 50  # what they share stands before what tells them apart
    assert outcome.document == TWO and outcome.manner == "Manner: count."
    assert turn.heard.streamed == ONE and turn.heard.replaced == [TWO]
    assert [event.about for event in turn.heard.events if hasattr(event, "document")] == ["council"]
    assert turn.heard.stages == ["council", "critics"]
    assert [one["channel"] for one in outcome.trace["passes"]] == ["poet", "logician", "ironist"]
    assert outcome.trace["consilium"]["chosen"] == "logician" and outcome.trace["consilium"]["why"] == "asked for"
    prompt, both = outcome.known
    assert "Manner: count." in prompt.text and both.text == prompt.text + TWO


def test_the_first_seat_wins_a_tie_and_nothing_is_replaced() -> None:
    turn = council(ONE, TWO, THREE)(Says(0.8))
    assert turn.run().document == ONE and turn.heard.replaced == []


def test_critics_hear_how_far_the_drafts_are_apart() -> None:
    critic = Says(0.8)
    apart = document("Buy bread and flour.")
    council(ONE, TWO, apart)(critic, evidence=Evidence(embed=HashedEmbedder(256).embed)).run()
    near, also, far = (one.disagreement for one in critic.seen)
    assert near == also and near is not None and far is not None and near < far
    critic = Says(0.8)
    council(ONE, TWO, apart)(critic).run()
    assert [one.disagreement for one in critic.seen] == [None] * 3


def test_the_will_decides_between_drafts_of_the_same_score() -> None:
    embed = HashedEmbedder(256).embed
    turn = council(ONE, document("Water it.", "a garden in bloom"), THREE)(
        Says(0.8), evidence=Evidence(embed=embed, will=embed(["garden bloom"])[0])
    )
    outcome = turn.run()
    assert outcome.trace["consilium"]["chosen"] == "logician"
    assert outcome.trace["consilium"]["drafts"][1]["will"] > 0.5


def test_an_embedder_that_fails_in_a_consilium_costs_no_draft() -> None:
    def fails(texts: Sequence[str]) -> Any:
        raise EngineError("out of memory")

    evidence = Evidence(embed=fails, will=np.ones(4, dtype=np.float32))
    outcome = council(ONE, TWO, THREE)(Says(0.7, 0.9, 0.8), evidence=evidence).run()
    assert outcome.document == TWO


def test_the_chosen_draft_is_revised_in_its_own_manner() -> None:
    turn = council(ONE, TWO, THREE, FOUR)(Says(0.2, 0.4, 0.3, 0.9))
    outcome = turn.run()
    last = turn._writer.prompts()[-1]
    assert "Manner: count." in last and QUESTION in last
    assert turn._writer.orders[1][0].sampling.seed not in (0, 1, 2)
    assert outcome.document == FOUR and outcome.manner == "Manner: count." and turn.heard.replaced == [FOUR]
    assert outcome.trace["passes"][-1]["channel"] == "logician"
    assert outcome.trace["loop"]["accepted"] == 1  # of those that the loop saw: the chosen one and its revision


@pytest.mark.parametrize(
    ("room", "stages", "written", "words"),
    [
        (3, "council", 3, ""),
        (2, "council", 2, "2 of 3 channels draft"),
        (1, "draft", 1, "no consilium is held"),
    ],
)
def test_a_small_context_seats_fewer(room: int, stages: str, written: int, words: str) -> None:
    first = council(ONE, TWO, THREE)(Says(0.8))
    prompt = len(first.run().known[0].tokens)
    each = MAX + max(len(seat.manner) for seat in SEATS) + 8
    turn = council(ONE, TWO, THREE)(Says(0.8), n_ctx=prompt + room * each + each // 2)
    outcome = turn.run()
    assert turn.heard.stages[0] == stages and len(outcome.trace["passes"]) == written
    notices = outcome.trace["notices"]
    assert (notices == []) if not words else (len(notices) == 1 and words in notices[0] and "--ctx" in notices[0])
    # Alone, nobody speaks for one channel: it is the draft of the whole mix.
    assert outcome.document == ONE and outcome.manner == (SEATS[0].manner if room > 1 else "Manner: be plain.")


def test_a_consilium_shares_one_budget() -> None:
    turn = council(ONE, TWO, THREE)(Says(0.2), budget=Budget(tokens=len(TWO) + 10))
    outcome = turn.run()
    assert [one.max_tokens for one in turn._writer.orders[0]] == [len(TWO) + 10] * 3
    assert outcome.trace["loop"]["why"] == "budget" and not outcome.partial


def test_a_consilium_that_is_stopped() -> None:
    turn = council(ONE, TWO, THREE)(Says(0.9), stop_at="council")
    outcome = turn.run()
    assert outcome.partial and outcome.stop == "cancelled" and outcome.document == ""


# Prompts -----------------------------------------------------------------------------------------------------


def test_recalled_text_gives_way_to_a_request_that_leaves_no_room() -> None:
    recalled = "Notes of earlier talks, facts and no orders:\n- " + "The well is dry. " * 40
    room = len(Turn(Typist(ONE)).run().known[0].tokens) + MAX + 50
    turn = Turn(Typist(ONE, n_ctx=room), recalled=recalled)
    outcome = turn.run()
    assert not outcome.reminded and "The well is dry" not in turn._writer.prompts()[0]
    assert any("no room for what was recalled" in notice for notice in outcome.trace["notices"])
    assert Turn(Typist(ONE), recalled=recalled).run().reminded


@pytest.mark.parametrize(("lang", "passes"), [("en", 2), ("ru", 1)])
def test_what_a_template_says_itself_is_neither_revised_nor_refused(lang: str, passes: int) -> None:
    answering = replace(TEMPLATE, answer={"ru": Scene.from_yaml(ONE)})
    outcome = Turn(Typist(ONE, TWO), [Says(0.05, 0.06)], template=answering, lang=lang).run()
    assert len(outcome.trace["passes"]) == passes and (outcome.refused is None) == (lang == "ru")


def test_a_request_that_does_not_fit_is_refused_with_numbers() -> None:
    with pytest.raises(ContextFull) as caught:
        Turn(Typist(ONE, n_ctx=400), recalled="Notes: none.").run()
    assert caught.value.limit == 400 and caught.value.needed > 400
