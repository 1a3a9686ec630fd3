"""Acceptance: what becomes of a turn once its loop is done. It is responded, remembered, and kept in its trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ltm_edge.loop.events import OnEvent, Replaced, Stage
from ltm_edge.loop.prompt import Known
from ltm_edge.loop.respond import MetaResponder, Reply, refusal_scene, remark
from ltm_edge.loop.turn_loop import Outcome
from ltm_edge.planner import Plan
from ltm_edge.schemas.template import answer_document
from ltm_edge.settings import Settings
from ltm_edge.turn import Turn

if TYPE_CHECKING:
    from ltm_edge.bundle import Bundle

__all__ = ["Acceptance", "Accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A turn that is done.

    Attributes:
        reply: for the user.
        turn: for the history.
        known: what was read, and that with what was written, as far as it stands in the conversation.
        stored: memory holds its scene.
    """

    reply: Reply
    turn: Turn
    known: tuple[Known, ...]
    stored: bool


class Acceptance:
    """Makes a reply and a turn of what the loop came to. Holds no conversation: that is the session's."""

    def __init__(self, bundle: Bundle) -> None:
        """Take the bundle whose turns they are."""
        self._bundle = bundle
        self._responder = MetaResponder()

    def accept(
        self,
        outcome: Outcome,
        plan: Plan,
        settings: Settings,
        tell: OnEvent,
        stopped: Callable[[], bool],
        *,
        replaced: Turn | None,
        session: str | None,
        remembered_as: str,
    ) -> Accepted:
        """Respond, settle the field, remember, and close the trace.

        Args:
            outcome: what the loop came to.
            plan: what was settled before it.
            settings: of the turn, with its seed.
            tell: hears which part begins, and of a refusal that takes the answer's place.
            stopped: whether someone stopped the turn; then nothing is stored, and the answer counts as partial.
            replaced: the turn that is answered again; None: a new one.
            session: its name; None: it has none.
            remembered_as: what memory knows it as.
        """
        storing = _stores(plan, outcome, settings, replaced)
        if storing:
            tell(Stage("store"))
        if stopped() and not outcome.partial:
            outcome = replace(outcome, scene=None, partial=True, stop="cancelled", refused=None)
            outcome.trace["loop"]["why"] = "cancelled"
            storing = False
        order, template = plan.order, plan.template
        phrases = self._bundle.overlay_set.prompts.of(order.lang)
        scene, document, form, known = outcome.scene, outcome.document, settings.form, outcome.known
        if outcome.refused is not None and scene is not None:
            scene = refusal_scene(scene, outcome.refused, phrases)
            document, form = scene.to_yaml(tuple(template.fields)), "refusal"
            known = known[:1]
            tell(Replaced(document, "refusal"))
        elif plan.answer is not None and outcome.partial:  # stopped while it was read: it is there all the same
            scene, known = plan.answer, known[:1]
            document = answer_document(template, order.lang)
            outcome = replace(outcome, scene=scene, document=document)
        start = time.perf_counter()
        text = self._responder.respond(scene, document, form, order.lang)
        trace = outcome.trace
        trace["ms_respond"] = round((time.perf_counter() - start) * 1000, 2)
        settled = plan.before
        if not outcome.partial:
            settled = plan.oriented.state
            if scene is not None and outcome.refused is None:
                settled = self._bundle.orienter.settle(plan.oriented, scene.resonance_center)
        trace.update(plan.oriented.to_trace(settled))
        if outcome.manner or "routing" in trace:
            trace.setdefault("routing", {})["manner"] = outcome.manner
        stored = False
        if plan.remembering is not None:
            stored = _remember(plan, outcome, storing, replaced, remembered_as)
        if plan.asked != order.pvq:
            trace["asked"] = plan.asked.to_dict()
        trace["refused"] = outcome.refused.to_trace() if outcome.refused is not None else None
        wanted = "never" if outcome.partial else self._bundle.overlay.response.self_commentary
        said = remark(outcome.loop, phrases, wanted)
        trace["remark"] = said
        trace["settings"] = settings.to_dict()
        trace["model"] = self._bundle.model_info["name"]
        trace["session"] = session
        trace["ms_total"] = round((time.perf_counter() - order.budget.started) * 1000, 1)
        reply = Reply(text, scene, document, trace, outcome.partial, form, outcome.stop, said)
        return Accepted(reply, _turn(plan, document, text, trace, partial=reply.partial), known, stored)

    def part(self, document: str, plan: Plan, settings: Settings) -> Turn:
        """The turn of an answer that an exception ended, with what was written of it. The field stays where it was."""
        order, manner = plan.order, plan.order.seats[0].manner if plan.order.seats else plan.order.manner
        oriented = plan.oriented.to_trace(plan.before)
        if manner:
            oriented.setdefault("routing", {})["manner"] = manner
        trace = {
            "request": order.pvq.to_dict(),
            "template": dict(plan.chosen),
            "lang": order.lang,
            **oriented,
            **({"memory": plan.reminder.trace} if plan.reminder.trace else {}),
        }
        if plan.answer is not None:
            document = answer_document(plan.template, order.lang)
        text = self._responder.respond(None, document, settings.form, order.lang)
        return _turn(plan, document, text, trace, partial=True)


def _turn(plan: Plan, document: str, text: str, trace: dict[str, Any], *, partial: bool) -> Turn:
    return Turn(
        request=plan.order.pvq.text,
        document=document,
        reply_text=text,
        template=plan.template.name,
        lang=plan.order.lang,
        partial=partial,
        trace=trace,
    )


def _stores(plan: Plan, outcome: Outcome, settings: Settings, replaced: Turn | None) -> bool:
    """Whether memory changes by the turn: its scene goes in, or the one that a refusal takes the place of goes."""
    if plan.remembering is None or settings.memory != "on" or outcome.scene is None:
        return False
    return outcome.refused is None or replaced is not None


def _remember(plan: Plan, outcome: Outcome, storing: bool, replaced: Turn | None, session: str) -> bool:
    """Store the turn's scene, and put into its trace what memory did; whether it is stored."""
    reminder, remembering = plan.reminder, plan.remembering
    assert remembering is not None
    if reminder.text and not outcome.reminded:
        left = {"recalled": [], "text": "", "tokens": 0}
        reminder = replace(reminder, text="", recalled=(), trace={**reminder.trace, **left})
    memory, notices = reminder.trace, ()  # type: tuple[dict[str, Any], tuple[str, ...]]
    if storing and outcome.refused is not None and replaced is not None:
        notices = remembering.drop(replaced)  # the answer that the refusal takes the place of
    elif storing and outcome.scene is not None:
        judged = outcome.loop.best.judged
        memory, notices = remembering.store(
            reminder,
            outcome.scene,
            plan.order.pvq,
            session=session,
            template=plan.template.name,
            before=plan.history,
            replaces=replaced,
            score=judged.score if judged.verdicts else None,
        )
    outcome.trace["memory"] = memory
    outcome.trace["notices"] += notices
    return "stored" in memory
