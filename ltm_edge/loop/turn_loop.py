"""TurnLoop: one request from its prompt to the accepted document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltm_edge.loop.critics.panel import CriticPanel
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.events import OnEvent, Replaced
from ltm_edge.loop.passes import Passes
from ltm_edge.loop.prompt import Known
from ltm_edge.loop.scene_decoder import SceneDecoder
from ltm_edge.loop.self_loop import LoopResult, SelfLoop
from ltm_edge.loop.turn_order import TurnOrder
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.overlay import Overlay
from ltm_edge.schemas.template import Template

__all__ = ["Outcome", "TurnLoop"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn came to.

    Attributes:
        document: the accepted scene as written (YAML); cut off if ``partial``.
        scene: the scene, None if the document is not complete.
        template: the template it follows.
        partial: it was stopped, or ran out of tokens, before it was complete.
        stop: why it ended: ``eog``, ``length``, ``cancelled`` or ``sink``.
        trace: the turn's trace.
        loop: the drafts and what the critics said.
        refused: the verdict that makes a refusal of the answer; None: it stands.
        manner: the directives that the accepted draft was written under.
        known: what was read, and that with what was written.
        dropped: oldest turns that stand in the prompt no more.
        reminded: what the memory brought up stood in the prompt.
    """

    document: str
    scene: Scene | None
    template: Template
    partial: bool
    stop: str
    trace: dict[str, Any]
    loop: LoopResult
    refused: Verdict | None = None
    manner: str = ""
    known: tuple[Known, ...] = ()
    dropped: int = 0
    reminded: bool = False


class TurnLoop:
    """One request from its prompt to the accepted document. Holds no conversation: that is the session's."""

    def __init__(self, decoder: SceneDecoder, overlay: Overlay, panel: CriticPanel, prober: Prober | None) -> None:
        """Take the parts.

        Args:
            decoder: writes drafts.
            overlay: the limits.
            panel: the critics.
            prober: asks the model about a draft; None: nobody does.
        """
        self._decoder = decoder
        self._overlay = overlay
        self._panel = panel
        self._prober = prober

    def run(
        self,
        order: TurnOrder,
        template: Template,
        chosen: Mapping[str, Any],
        composer: PromptComposer,
        history: Sequence[Any],
        on_text: Callable[[str], None] | None = None,
        on_event: OnEvent = lambda event: None,
        stopped: Callable[[], bool] = lambda: False,
        known: Sequence[Known] = (),
        dropped: int = 0,
    ) -> Outcome:
        """Write the document of one turn.

        Args:
            order: what is asked.
            template: what the document follows.
            chosen: how it was chosen, for the trace.
            composer: how messages are put.
            history: earlier turns, oldest first.
            on_text: gets the first draft as it is written.
            on_event: hears which part of the turn begins, and of an answer that takes the first draft's place.
            stopped: whether someone stopped the turn.
            known: what has been read and written before, the latest last.
            dropped: oldest turns of the history that were left out before.

        Raises:
            GrammarError: the template's smallest document can't fit into ``max_tokens``.
            ContextFull: the request doesn't fit into the context even alone.
        """
        self._decoder.check_room(template, order.lang, order.max_tokens)
        passes = Passes(
            self._decoder, self._panel, self._prober, order, template, composer, history, known, dropped, on_event
        )
        passes.begin()
        if stopped():  # what was stopped before this may have been something else, such as reading the head
            self._decoder.writer.cancel()
        council = passes.council(on_text) if passes.seats else None
        first = council.best if council is not None else passes.draft(on_text)

        def halted() -> str:
            return "cancelled" if stopped() else "budget" if not passes.affordable() else ""

        limits = self._overlay
        said = template.answer_in(order.lang) is not None  # by the template itself: nothing of it is written again
        bounds = replace(limits.self_loop, enabled=False) if said else limits.self_loop
        loop = SelfLoop(bounds, limits.critics.recursia.max_depth).run(first, passes.revise, halted)
        best = loop.best.draft
        cancelled = loop.cancelled
        refused = None if cancelled or said else self._refusal(loop, order, template)
        if best is not passes.streamed and best.scene is not None and refused is None:
            on_event(Replaced(best.document, first.judged.against if best is not first.draft else "council"))
        trace = passes.trace(chosen, loop, council)
        return Outcome(
            document=best.document,
            scene=None if cancelled else best.scene,
            template=template,
            partial=best.scene is None or cancelled,
            stop="cancelled" if cancelled and best.scene is not None else best.done.stop,
            trace=trace,
            loop=loop,
            refused=refused,
            manner=passes.manner_of(best),
            known=passes.known_after(best),
            dropped=passes.prompt.dropped_turns,
            reminded=passes.reminded,
        )

    def _refusal(self, loop: LoopResult, order: TurnOrder, template: Template) -> Verdict | None:
        """The verdict by which even the best draft is too far from an answer."""
        limits = self._overlay.critics.obstructio
        if not limits.enabled or not self._overlay.self_loop.enabled or template.name == "refusal":
            return None
        for verdict in loop.best.judged.verdicts:
            if verdict.critic == "obstructio" and verdict.score < limits.refuse_below:
                return verdict
        return None
