"""Passes: what one run of the loop writes and has judged: the first draft or a consilium's, and their revisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ltm_edge.errors import ContextFull, GrammarError
from ltm_edge.grammar.template import document_head, goes_on
from ltm_edge.loop.consilium import Council, Seat, disagreements, wills
from ltm_edge.loop.critics.exhibit import Exhibit
from ltm_edge.loop.critics.panel import CriticPanel, Judged
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.loop.critics.reading import opening
from ltm_edge.loop.events import OnEvent, Stage
from ltm_edge.loop.prompt import FittedPrompt, Known, common_prefix, fit_prompt, moved_tokens, next_prompt
from ltm_edge.loop.scene_decoder import Draft, DraftOrder, SceneDecoder
from ltm_edge.loop.self_loop import JudgedDraft, LoopResult
from ltm_edge.loop.turn_order import TurnOrder
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import Template

__all__ = ["Passes"]

_TRACE_VERSION = 1

_LEAST_RESPONSE = 24  # tokens that a revision must have for what it writes anew, or it isn't begun
_MARKERS = 16  # tokens around a message
_SEEDS = (1 << 32) - 1


class Passes:
    """The passes of one turn: its prompts, its drafts, and what the critics say of them."""

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
        tell: OnEvent,
    ) -> None:
        """Take the parts; the rest is as for :meth:`ltm_edge.loop.turn_loop.TurnLoop.run`."""
        self._decoder = decoder
        self._tell = tell
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

    def draft(self, on_text: Callable[[str], None] | None) -> JudgedDraft:
        """The one draft of the whole mix."""
        self._tell(Stage("draft"))
        (draft,) = self._write([self.prompt], [self._one(self.prompt, self._order.sampling)], on_text)
        self._bases.append((draft, self.prompt, self._order.manner))
        self.streamed = draft
        self._tell_critics([draft])
        return self._judged(draft)

    def council(self, on_text: Callable[[str], None] | None) -> Council:
        """One draft for each seat, in common batches, ranked. The first seat's streams."""
        self._tell(Stage("council", ", ".join(seat.channel for seat in self.seats)))
        prompts = self._prompts
        orders = [self._one(prompt, seat.sampling) for prompt, seat in zip(prompts, self.seats, strict=True)]
        drafts = self._write(prompts, orders, on_text, channels=[seat.channel for seat in self.seats])
        self._bases += [
            (draft, prompt, seat.manner) for draft, prompt, seat in zip(drafts, prompts, self.seats, strict=True)
        ]
        self.streamed = drafts[0]
        self._tell_critics(drafts)
        evidence = self._order.evidence
        apart = disagreements(drafts, evidence.embed)
        judged = [self._judged(draft, apart[i]) for i, draft in enumerate(drafts)]
        found = wills(drafts, evidence.will, evidence.embed)
        return Council(self._order.council, tuple(judged), tuple(found), tuple(apart))

    def revise(self, last: JudgedDraft) -> JudgedDraft | None:
        """The draft again with the critics' questions: what stands is kept, and the rest of its response written anew.

        Where none of it stands, what the model says again is copied from the draft. None if the budget or the context
        doesn't hold a revision.
        """
        order, lang = self._order, self._order.lang
        base, manner = self._base(last.draft)
        if last.draft.scene is not None:
            self._line.append(last.draft.scene)
        against = last.judged.objections
        weakest = min(last.judged.verdicts, key=lambda verdict: verdict.score, default=None)
        if not any(verdict.question for verdict in against) and weakest is not None:
            against = (weakest,)
        questions = [verdict.question for verdict in against if verdict.question]
        try:
            prompt = self._fit(manner, self._composer.again(questions, lang))
        except ContextFull:
            self._notices.append("the context has no room for the critics' questions: no revision was written")
            return None
        room = order.budget.room(order.max_tokens)
        found = self._standing(last.draft, min((verdict.stands for verdict in against), default=0), room)
        if found is None:
            return None
        kept, head = found
        sampling = self._sampling_of(last.draft)
        one = self._decoder.order(
            prompt,
            self._template,
            lang,
            max_tokens=room,
            sampling=replace(sampling, seed=(sampling.seed + len(self._drafts)) % _SEEDS),
            head=head,
            # What stands needn't be proposed, and what doesn't is seldom written again: a guess would cost more than it
            # saves.
            references=() if kept else (last.draft.done.tokens,),
        )
        self._tell(Stage("revise", last.judged.against))
        try:
            (draft,) = self._write([prompt], [one], None, kind="revision", channels=[last.draft.channel], kept=kept)
        except GrammarError:  # even the smallest response behind this head takes more
            return None
        self._bases.append((draft, base, manner))
        self._tell_critics([draft])
        return self._judged(draft)

    def _standing(self, draft: Draft, most: int, room: int) -> tuple[int, str] | None:
        """Sentences of a draft's response that are kept, ``most`` at most, and its document up to where they end.

        As many as leave some of ``room`` tokens for what is written anew; None if not even the scene does.
        """
        plain = document_head(draft.document)
        response = draft.scene.response if draft.scene is not None else ""
        for count in range(most, -1, -1):
            text = opening(response, count)
            head = document_head(draft.document, text)
            if count and (head == plain or not goes_on(self._template, text)):
                continue
            if len(self._decoder.vocabulary.tokenize(head)) + _LEAST_RESPONSE <= room:
                return count, head
        return None

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
        kept: int = 0,
    ) -> list[Draft]:
        start = time.perf_counter()
        drafts = self._decoder.write(
            prompts, orders, kind=kind, channels=channels, kept=kept, adapters=self._order.adapters, on_text=on_text
        )
        longest = max(drafts, key=lambda draft: len(draft.done.tokens))
        self._order.budget.note(longest, time.perf_counter() - start)
        self._drafts += drafts
        for draft in drafts:
            self._notices += draft.notices
        return drafts

    def _tell_critics(self, drafts: Sequence[Draft]) -> None:
        if self._panel.critics and any(draft.scene is not None for draft in drafts):
            self._tell(Stage("critics"))

    def _judged(self, draft: Draft, disagreement: float | None = None) -> JudgedDraft:
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
            "version": _TRACE_VERSION,
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
