"""TurnLoop: one request from its prompt to the accepted document."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ltm_edge.errors import ContextFull, GrammarError
from ltm_edge.grammar.template import document_head
from ltm_edge.loop.consilium import Council, Seat, Vectors, disagreements, wills
from ltm_edge.loop.critics.exhibit import Exhibit
from ltm_edge.loop.critics.panel import CriticPanel, Judged
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.events import OnEvent, Replaced, Stage
from ltm_edge.loop.prompt import FittedPrompt, Known, common_prefix, fit_prompt, moved_tokens, next_prompt
from ltm_edge.loop.scene_decoder import Draft, DraftOrder, SceneDecoder
from ltm_edge.loop.self_loop import Budget, JudgedDraft, LoopResult, SelfLoop
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.overlay import Overlay
from ltm_edge.schemas.template import Template

__all__ = ["Evidence", "Outcome", "TurnLoop", "TurnOrder"]

TRACE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """What critics judge by, beside the request and the draft.

    Attributes:
        recalled: what was said and answered in the scenes that the memory brought up.
        earlier: scenes of the conversation's earlier turns, oldest first.
        embed: texts to vectors, float32 [n, dim] of length 1; None where nothing can embed the request's language.
        will: the goal that persists across turns, float32 [dim]; None: there is none.
    """

    recalled: tuple[str, ...] = ()
    earlier: tuple[Scene, ...] = ()
    embed: Callable[[Sequence[str]], Vectors] | None = None
    will: Vectors | None = None


@dataclass(frozen=True, slots=True)
class TurnOrder:
    """What one turn is asked to do.

    Attributes:
        pvq: the request.
        lang: language of the answer.
        max_tokens: tokens that the document may take.
        sampling: how tokens are chosen, the seed included.
        notices: what happened to the request before it got here.
        recalled: what the memory brings up, as it is to stand in the prompt.
        manner: the directives of the turn's channels, as they are to stand in the prompt.
        adapters: what the channels do to the model; None: nothing.
        seats: channels that draft at once; empty: one draft of the whole mix.
        council: why they do.
        evidence: what critics judge by.
        budget: what all passes together may spend.
    """

    pvq: Pvq
    lang: str
    max_tokens: int
    sampling: Any
    notices: tuple[str, ...] = ()
    recalled: str = ""
    manner: str = ""
    adapters: Any = None
    seats: tuple[Seat, ...] = ()
    council: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    budget: Budget = field(default_factory=Budget)


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
        turn = _Turn(self._decoder, self._panel, self._prober, order, template, composer, history, known, dropped)
        turn.begin()
        if stopped():  # what was stopped before this may have been something else, such as reading the head
            self._decoder.writer.cancel()
        council: Council | None = None
        if turn.seats:
            on_event(Stage("council", ", ".join(seat.channel for seat in turn.seats)))
            council = turn.council(on_text, on_event)
            first = council.best
        else:
            on_event(Stage("draft"))
            draft = turn.draft(on_text)
            on_event(Stage("critics"))
            first = turn.judged(draft)
        limits = self._overlay.self_loop

        def revise(last: JudgedDraft) -> JudgedDraft | None:
            on_event(Stage("revise", _objections(last.judged)))
            return turn.revise(last)

        def halted() -> str:
            return "cancelled" if stopped() else "budget" if not turn.affordable() else ""

        loop = SelfLoop(limits, self._overlay.critics.recursia.max_depth).run(first, revise, halted)
        best = loop.best.draft
        cancelled = loop.cancelled
        refused = None if cancelled else self._refusal(loop, order, template)
        if best is not turn.streamed and best.scene is not None and refused is None:
            on_event(Replaced(best.document, _objections(first.judged) if best is not first.draft else "council"))
        trace = turn.trace(chosen, loop, council)
        return Outcome(
            document=best.document,
            scene=None if cancelled else best.scene,
            template=template,
            partial=best.scene is None or cancelled,
            stop="cancelled" if cancelled and best.scene is not None else best.done.stop,
            trace=trace,
            loop=loop,
            refused=refused,
            manner=turn.manner_of(best),
            known=turn.known_after(best),
            dropped=turn.prompt.dropped_turns,
            reminded=turn.reminded,
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


class _Turn:
    """What one run of the loop holds."""

    def __init__(
        self,
        decoder: SceneDecoder,
        panel: CriticPanel,
        prober: Prober | None,
        order: TurnOrder,
        template: Template,
        composer: PromptComposer,
        history: Sequence[Any],
        known: Sequence[Known],
        dropped: int,
    ) -> None:
        self._decoder = decoder
        self._panel = panel
        self._prober = prober
        self._order = order
        self._template = template
        self._composer = composer
        self._history = history
        self._known = known
        self._dropped = dropped
        self._moved = self._restored = 0
        self._notices = list(order.notices)
        self._drafts: list[Draft] = []
        self._line: list[Scene] = []  # scenes that the present one is a revision of
        self._bases: list[tuple[Draft, FittedPrompt, str]] = []  # what stands before a draft if it is accepted
        self.reminded = bool(order.recalled)
        self.seats: tuple[Seat, ...] = ()
        self._prompts: list[FittedPrompt] = []  # one for each seat
        self.prompt: FittedPrompt
        self.streamed: Draft | None = None

    # Prompts -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Fit the prompt, and bring what is cached to where it begins."""
        order, writer = self._order, self._decoder.writer
        try:
            self.prompt = self._fit(order.manner)
        except ContextFull:
            if not self.reminded:
                raise
            self.reminded = False
            self.prompt = self._fit(order.manner)
            self._notices.append("the request leaves no room for what was recalled; this turn goes without it")
        prompt, dropped = self.prompt, self._dropped
        if prompt.dropped_turns > dropped and self._known:
            keep, count = moved_tokens(self._known[-1].tokens, prompt.tokens)
            self._moved = writer.rebase(self._known[-1].tokens, keep, count) if count else 0
        if not self._known:
            head, _ = next_prompt(self._composer, self._decoder.vocabulary, (), ())
            self._restored = writer.warm(prompt.tokens, common_prefix(prompt.tokens, head))
        if prompt.rendered.notice:
            self._notices.append(prompt.rendered.notice)
        if prompt.dropped_turns > dropped:
            count = prompt.dropped_turns
            self._notices.append(
                f"the context of {writer.n_ctx} tokens is full: the oldest {count} "
                f"{'turn' if count == 1 else 'turns'} of this conversation were left out of the prompt"
            )
        self._dropped = prompt.dropped_turns  # every further prompt of the turn begins as this one
        self.seats = self._fitting(order.seats)
        if self.seats:
            self._prompts = self._together(self.seats)
            self.prompt = self._prompts[0]

    def _together(self, seats: tuple[Seat, ...]) -> list[FittedPrompt]:
        """One prompt for each seat; all leave out the same turns, so that they begin alike."""
        prompts = [self._fit(seat.manner) for seat in seats]
        most = max(prompt.dropped_turns for prompt in prompts)
        if most > self._dropped:
            self._dropped = most
            prompts = [self._fit(seat.manner) for seat in seats]
        return prompts

    def _fit(self, manner: str, again: str = "") -> FittedPrompt:
        order = self._order
        return fit_prompt(
            self._composer,
            self._decoder.vocabulary,
            self._history,
            order.pvq,
            self._template,
            order.lang,
            n_ctx=self._decoder.writer.n_ctx,
            max_tokens=order.max_tokens,
            recalled=order.recalled if self.reminded else "",
            manner=manner,
            again=again,
            known=self._known,
            dropped=self._dropped,
        )

    def _fitting(self, seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
        """The seats whose drafts fit into the context together."""
        if not seats:
            return ()
        count = self._decoder.vocabulary.tokenize
        room = self._decoder.writer.n_ctx - len(self.prompt.tokens)
        # What stands behind the directives of each, the request itself, is not shared.
        own = len(count(self._order.pvq.text)) + max(len(count(seat.manner)) for seat in seats) + _MARKERS
        most = room // (self._order.max_tokens + own)
        if most >= len(seats):
            return seats
        left = seats[:most] if most >= 2 else ()
        held = f"{len(left)} of {len(seats)} channels draft" if left else "no consilium is held"
        self._notices.append(
            f"the context has room for {most} drafts of {self._order.max_tokens} tokens: {held}; "
            "lower --max-tokens or raise --ctx"
        )
        return left

    # Passes ------------------------------------------------------------------------------------------------

    def draft(self, on_text: Callable[[str], None] | None) -> Draft:
        """The one draft of the whole mix."""
        (draft,) = self._write([self.prompt], [self._one(self.prompt, self._order.sampling)], on_text)
        self._bases.append((draft, self.prompt, self._order.manner))
        self.streamed = draft
        return draft

    def council(self, on_text: Callable[[str], None] | None, on_event: OnEvent) -> Council:
        """One draft for each seat, in common batches, ranked. The first seat's streams."""
        prompts = self._prompts
        orders = [self._one(prompt, seat.sampling) for prompt, seat in zip(prompts, self.seats, strict=True)]
        drafts = self._write(prompts, orders, on_text, channels=[seat.channel for seat in self.seats])
        self._bases += [
            (draft, prompt, seat.manner) for draft, prompt, seat in zip(drafts, prompts, self.seats, strict=True)
        ]
        self.streamed = drafts[0]
        on_event(Stage("critics"))
        evidence = self._order.evidence
        apart = disagreements(drafts, evidence.embed)
        judged = [self.judged(draft, disagreement=apart[i]) for i, draft in enumerate(drafts)]
        found = wills(drafts, evidence.will, evidence.embed)
        return Council(self._order.council, tuple(judged), tuple(found), tuple(apart))

    def revise(self, last: JudgedDraft) -> JudgedDraft | None:
        """The draft again with the critics' questions: its scene is kept, its response written anew.

        What the draft says again is copied from it; None if the budget or the context doesn't hold it.
        """
        order, lang = self._order, self._order.lang
        base, manner = self._base(last.draft)
        if last.draft.scene is not None:
            self._line.append(last.draft.scene)
        questions = [verdict.question for verdict in last.judged.verdicts if not verdict.passed and verdict.question]
        weakest = min(last.judged.verdicts, key=lambda verdict: verdict.score, default=None)
        if not questions and weakest is not None and weakest.question:
            questions = [weakest.question]
        try:
            prompt = self._fit(manner, self._composer.again(questions, lang))
        except ContextFull:
            self._notices.append("the context has no room for the critics' questions: no revision was written")
            return None
        head = document_head(last.draft.document)
        room = order.budget.room(order.max_tokens)
        if room < len(self._decoder.vocabulary.tokenize(head)) + _LEAST_RESPONSE:
            return None
        sampling = self._sampling_of(last.draft)
        one = self._decoder.order(
            prompt,
            self._template,
            lang,
            max_tokens=room,
            sampling=replace(sampling, seed=(sampling.seed + len(self._drafts)) % _SEEDS),
            head=head,
            references=(last.draft.done.tokens,),
        )
        try:
            (draft,) = self._write([prompt], [one], None, kind="revision", channels=[last.draft.channel])
        except GrammarError:  # even the smallest response behind this head takes more
            return None
        self._bases.append((draft, base, manner))
        return self.judged(draft)

    def _one(self, prompt: FittedPrompt, sampling: Any) -> DraftOrder:
        order = self._order
        room = max(order.budget.room(order.max_tokens), self._decoder.smallest(self._template, order.lang))
        return self._decoder.order(prompt, self._template, order.lang, max_tokens=room, sampling=sampling)

    def _write(
        self,
        prompts: Sequence[FittedPrompt],
        orders: Sequence[DraftOrder],
        on_text: Callable[[str], None] | None,
        *,
        kind: str = "draft",
        channels: Sequence[str] = (),
    ) -> list[Draft]:
        start = time.perf_counter()
        drafts = self._decoder.write(
            prompts, orders, kind=kind, channels=channels, adapters=self._order.adapters, on_text=on_text
        )
        longest = max(drafts, key=lambda draft: len(draft.done.tokens))
        self._order.budget.note(longest, time.perf_counter() - start)
        self._drafts += drafts
        for draft in drafts:
            self._notices += draft.notices
        return drafts

    def judged(self, draft: Draft, disagreement: float | None = None) -> JudgedDraft:
        """What the critics say of a draft; of one that is not complete, nothing."""
        if draft.scene is None:
            return JudgedDraft(draft, Judged((), 0.0, False))
        evidence = self._order.evidence
        exhibit = Exhibit(
            request=self._order.pvq.text,
            goal=self._order.pvq.goal,
            lang=self._order.lang,
            scene=draft.scene,
            recalled=evidence.recalled,
            earlier=evidence.earlier,
            drafts=tuple(self._line),
            disagreement=disagreement,
            embed=evidence.embed,
        )
        judged = self._panel.judge(exhibit, self._prober, draft.read)
        self._notices += judged.notices
        return JudgedDraft(draft, judged)

    def affordable(self) -> bool:
        """Whether the budget holds another pass."""
        return self._order.budget.room(self._order.max_tokens) >= _LEAST_RESPONSE

    # Afterwards --------------------------------------------------------------------------------------------

    def _base(self, draft: Draft) -> tuple[FittedPrompt, str]:
        """What stands before a draft if it is accepted, and the directives in it."""
        return next((base, manner) for one, base, manner in self._bases if one is draft)

    def _sampling_of(self, draft: Draft) -> Any:
        seat = next((seat for seat in self._order.seats if seat.channel == draft.channel), None)
        return seat.sampling if seat is not None else self._order.sampling

    def manner_of(self, draft: Draft) -> str:
        """The directives that a draft was written under."""
        return self._base(draft)[1]

    def known_after(self, draft: Draft) -> tuple[Known, ...]:
        """What stands in the conversation once a draft is accepted: its prompt without the critics' questions."""
        base, _ = self._base(draft)
        text = base.rendered.text + draft.document
        return base.known, Known(text, np.concatenate([base.tokens, draft.done.tokens]).astype(np.int32))

    def trace(self, chosen: Mapping[str, Any], loop: LoopResult, council: Council | None) -> dict[str, Any]:
        """The turn's trace so far."""
        order, prompt = self._order, self.prompt
        trace: dict[str, Any] = {
            "version": TRACE_VERSION,
            "request": order.pvq.to_dict(),
            "template": dict(chosen),
            "lang": order.lang,
            "prompt": {
                "tokens": len(prompt.tokens),
                "format": prompt.rendered.source,
                "merged_system": prompt.rendered.merged_system,
                "dropped_turns": prompt.dropped_turns,
                "moved": self._moved,
                "restored": self._restored,
            },
            "passes": [draft.to_trace() for draft in self._drafts],
            "loop": loop.to_trace(),
            "notices": self._notices,
        }
        if council is not None:
            trace["consilium"] = council.to_trace()
        return trace


_LEAST_RESPONSE = 24  # tokens that a revision must have for its response, or it isn't begun
_MARKERS = 16  # tokens around a message
_SEEDS = (1 << 32) - 1


def _objections(judged: Judged) -> str:
    return ", ".join(verdict.critic for verdict in judged.verdicts if not verdict.passed)
