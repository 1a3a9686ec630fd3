"""Session: one conversation with a bundle. The composition root: here the parts of a turn are put together."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ltm_edge.acceptance import Acceptance
from ltm_edge.engine.decoder import Decoder, Sampling
from ltm_edge.engine.state_files import StateFiles, StateKey
from ltm_edge.errors import InputError, LtmError, SessionError
from ltm_edge.loop.critics.panel import CriticPanel
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.loop.events import OnEvent
from ltm_edge.loop.idle import IdleWork
from ltm_edge.loop.inferring import Inferring
from ltm_edge.loop.one_thread import OneThread
from ltm_edge.loop.prompt import Known, next_prompt
from ltm_edge.loop.remembering import Clock, Remembering, Reminder
from ltm_edge.loop.respond import Reply
from ltm_edge.loop.scene_decoder import SceneDecoder
from ltm_edge.loop.turn_loop import TurnLoop
from ltm_edge.loop.turn_order import TurnOrder
from ltm_edge.planner import Plan, TurnPlanner
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.settings import MAX_SEED, Settings
from ltm_edge.turn import Turn

if TYPE_CHECKING:
    from ltm_edge.bundle import Bundle
    from ltm_edge.scene_memory import SceneMemory
    from ltm_edge.schemas.template import Template

__all__ = ["Reply", "Session"]

_log = logging.getLogger(__name__)

_ARC = 3  # scenes from which a session's end is worth a look for arcs


class Session:
    """One conversation with a bundle.

    Belongs to one thread at a time: a second :meth:`send` while one is running raises SessionBusy. :meth:`cancel` may
    be called from any thread and from a signal handler. Sessions of one bundle share its weights and nothing else.

    Attributes:
        bundle: the model and its overlay.
        name: what it is called, in the trace and in memory; None: it has no name.
        memory: the scene memory that turns recall from and store in; None: there is none. It may be set between two
            turns; whoever opened it closes it.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        name: str | None,
        history: Iterable[Turn],
        settings: Mapping[str, Any],
        memory: SceneMemory | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use :meth:`Bundle.session`."""
        self.bundle = bundle
        self.name = name
        self.memory = memory
        self._clock: Clock = clock or (lambda: None)
        self._unnamed = secrets.token_hex(4)
        self._stored = 0
        overlay = bundle.overlay_set
        model = bundle.model
        sampling = overlay.overlay.sampling
        base = Settings(
            sampling=Sampling(
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                repeat_penalty=sampling.repeat_penalty,
                repeat_last_n=sampling.repeat_last_n,
                dry_multiplier=sampling.dry_multiplier,
            ),
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            form=overlay.overlay.response.form,
        )
        given = {key: value for key, value in settings.items() if value is not None}
        if given.get("form") == "auto":
            del given["form"]  # the overlay's own choice stands
        self._settings = self._changed(base, given)
        self._own = {key for key in given if key in Settings.sampling_keys()}
        self._history: list[Turn] = list(history)
        decoder = Decoder(model)
        self._decoder: Decoder | None = decoder
        self._states, self._state_key = self._open_states()
        self._loop = TurnLoop(
            SceneDecoder(decoder, model, overlay.archetype_names()),
            overlay.overlay,
            CriticPanel.of(overlay.overlay),
            Prober(decoder, model, overlay.prompts),
        )
        self._inferring = Inferring(decoder, model, overlay.prompts, base.sampling)
        self._planner = TurnPlanner(bundle, self._inferring)
        self._cancelled = threading.Event()
        self._speed = 0.0
        self._acceptance = Acceptance(bundle)
        self._composer: PromptComposer | None = None
        self._busy = OneThread()
        self._known: tuple[Known, ...] = ()
        self._dropped = 0
        self._idle = IdleWork()
        if overlay.overlay.pvq.infer != "off":
            self._idle.start(bundle.orienter.warm)  # while the person types

    @property
    def history(self) -> tuple[Turn, ...]:
        """All turns, oldest first."""
        return tuple(self._history)

    @property
    def settings(self) -> dict[str, Any]:
        """The present settings by name."""
        return self._settings.to_dict()

    def set(self, key: str, value: Any) -> None:
        """Change one setting from the next turn on. Text is read as the setting's type.

        Raises:
            InputError: unknown name, or out of range.
        """
        self._settings = self._changed(self._settings, {key: value})
        if key in Settings.sampling_keys():
            self._own.add(key)
        if key == "system":
            self._composer = None

    def _changed(self, settings: Settings, values: Mapping[str, Any]) -> Settings:
        overlay = self.bundle.overlay_set
        return settings.changed(
            values, templates=overlay.templates, languages=overlay.languages, field=self.bundle.field
        )

    def send(
        self,
        request: str | Pvq,
        *,
        on_token: Callable[[str], None] | None = None,
        on_event: OnEvent | None = None,
        template: str | None = None,
        form: str | None = None,
        lang: str | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        channels: str | Mapping[str, float] | None = None,
        council: str | None = None,
        budget: float | None = None,
    ) -> Reply:
        """Answer a request.

        Args:
            request: plain text, or a PVQ.
            on_token: gets the first draft (YAML) as it is written, in pieces of whole characters. What it raises stops
                the answer, which is kept as partial in the history, and is raised again here.
            on_event: hears which part of the turn begins (:class:`~ltm_edge.loop.events.Stage`), and of a document that
                takes the first draft's place (:class:`~ltm_edge.loop.events.Replaced`).
            template, form, lang, seed, max_tokens, channels, council, budget: override the settings for this turn.

        Returns:
            The reply; ``partial`` if :meth:`cancel` was called or the tokens ran out.

        Raises:
            InputError: an empty or oversized request, or a setting out of range.
            ContextFull: the request doesn't fit into the context even alone.
            SessionBusy: another thread is in this session.
        """
        overrides = {
            "template": template,
            "form": form,
            "lang": lang,
            "seed": seed,
            "max_tokens": max_tokens,
            "channels": channels,
            "council": council,
            "budget": budget,
        }
        return self._answer(request, on_token, on_event, overrides)

    def regenerate(self, *, on_token: Callable[[str], None] | None = None, on_event: OnEvent | None = None) -> Reply:
        """Answer the last request again, with a new seed. A complete old answer only gives way to a complete new one.

        Raises:
            InputError: there is no last request.
        """
        if not self._history:
            raise InputError("nothing to answer again: this conversation has no turn yet")
        last = self._history[-1]
        given = last.trace.get("asked", last.trace.get("request"))
        request = Pvq.from_dict(dict(given)) if isinstance(given, Mapping) else last.request
        overrides: dict[str, Any] = {}
        if self._settings.seed is not None:
            overrides["seed"] = secrets.randbelow(MAX_SEED)
        return self._answer(request, on_token, on_event, overrides, replaces_last=True)

    def infer(self, request: str | Pvq, lang: str) -> tuple[Pvq, tuple[str, ...]]:
        """Ask the model what a request leaves open: tension, resonance centre, goal. Nothing of it stays.

        Returns:
            The request with what it left open, and sentences for the user.
        """
        with self._busy.now():
            self._settle()
            return self._inferring.infer(request if isinstance(request, Pvq) else Pvq.from_text(request), lang)

    def cancel(self) -> None:
        """Stop the running answer; :meth:`send` then returns what there is, marked partial.

        Memory and field are then as they were before the request.
        """
        self._cancelled.set()
        if self._decoder is not None:
            self._decoder.cancel()

    def undo(self) -> Turn | None:
        """Take back the last turn; returns it, or None if there is none. A scene that it added is forgotten.

        Raises:
            MemoryStoreError: the scene can't be forgotten; nothing was taken back then. With the setting ``memory``
                off it isn't tried.
        """
        with self._busy.now():
            self._settle()
            if not self._history:
                return None
            remembering = self._remembering(self._settings)
            if remembering is not None:
                remembering.take_back(self._history[-1])
            return self._history.pop()

    def clear(self) -> None:
        """Forget the whole conversation, what was saved of its KV included.

        Raises:
            SessionError: a file of saved KV can't be removed; the conversation itself is forgotten all the same.
        """
        with self._busy.now():
            self._settle()
            self._history.clear()
            self._composer = None
            self._unnamed = secrets.token_hex(4)
            self._known, self._dropped = (), 0
            if self._decoder is not None:
                self._decoder.clear()
            if self._states is not None and self._state_key is not None and self.name is not None:
                self._states.forget(self._state_key.session(self.name))

    def close(self) -> None:
        """Free the context, and let the memory see whether the session's scenes make arcs. Closing twice is allowed.

        A running answer of another thread is stopped first.

        Raises:
            SessionBusy: called from ``on_token`` or ``on_event``; call :meth:`cancel` there, and close afterwards.
        """
        self.cancel()
        with self._busy.afterwards():
            self._settle()
            self._consolidate()
            self._save_conversation()
            self._decoder = None
            self.bundle._forget(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def settle(self) -> None:
        """Wait until the work between two turns is done: the last turn's tokens are computed and kept.

        Nothing needs this; whoever measures the next turn may want it.
        """
        with self._busy.now():
            self._idle.wait()

    def _settle(self) -> None:
        """Stop the work between two turns; what it computed until then stays."""
        if not self._idle.running:
            return
        if self._decoder is not None:
            self._decoder.cancel()
        self._idle.wait()
        if self._decoder is not None:
            self._decoder.resume()  # the work may have ended before it could be stopped

    def _open_states(self) -> tuple[StateFiles | None, StateKey | None]:
        if self._decoder is None:
            return None, None
        try:
            key = StateKey.of(self.bundle.model)
        except OSError as error:
            _log.warning("saved states are not used: %s", error)
            return None, None
        states = StateFiles()
        named = () if self.name is None else (key.session(self.name),)
        self._decoder.keep_states(states, *named, key)
        return states, key

    def _save_conversation(self) -> None:
        """Save what the model has read, so that going on with this conversation costs a file read.

        Conversations without a name leave nothing behind.
        """
        if self._states is None or self._state_key is None or self.name is None or not self._known:
            return
        if self._decoder is not None and self._history:
            self._states.save(self._state_key.session(self.name), self._known[-1].tokens, self._decoder)

    def _consolidate(self) -> None:
        """Write the arcs of this session, put together from its own words; nobody waits for their vectors here."""
        stored, self._stored = self._stored, 0
        if self.memory is None or stored < _ARC:
            return
        try:
            self.memory.consolidate(session=self._memory_name(), embed=False, at=self._clock())
        except LtmError as error:
            _log.warning("the session's scenes were not summed up: %s", error)

    def _remembering(self, settings: Settings) -> Remembering | None:
        if self.memory is None or settings.memory == "off":
            return None
        return Remembering(self.memory, self.bundle.model, self._clock)

    def _memory_name(self) -> str:
        return self.name if self.name is not None else f"unnamed-{self._unnamed}"

    def _start_idle(self) -> None:
        """Compute what the next turn's prompt will begin with, while the user reads."""
        decoder, composer = self._decoder, self._composer
        if decoder is None or composer is None:
            return
        history, known = tuple(self._history[self._dropped :]), self._known
        states, key = self._states, self._state_key
        # A user's own system prompt is part of the head; without a name nothing of it may be left behind.
        first = len(self._history) == 1 and (self.name is not None or not self._settings.system)

        def work() -> None:
            tokens, head = next_prompt(composer, self.bundle.model, history, known)
            done = decoder.commit(tokens) if len(tokens) < decoder.n_ctx else None
            if first and done is not None and done.complete and states is not None and key is not None:
                states.save(key, tokens[:head], decoder)

        self._idle.start(work)

    def _answer(
        self,
        request: str | Pvq,
        on_token: Callable[[str], None] | None,
        on_event: OnEvent | None,
        overrides: Mapping[str, Any],
        *,
        replaces_last: bool = False,
    ) -> Reply:
        with self._busy.now():
            if self._decoder is None:
                raise SessionError("the session is closed")
            self._settle()
            self._decoder.resume()
            self._cancelled.clear()
            tell = on_event or (lambda event: None)
            given = {key: value for key, value in overrides.items() if value is not None}
            settings = self._changed(self._settings, given)
            order, settings = self._planner.order(request, settings, self._decoder.n_ctx, self._speed)
            history = self._history[:-1] if replaces_last else self._history
            plan = self._plan(order, settings, history, self._history[-1:] if replaces_last else (), tell)
            written: list[str] = []

            def sink(piece: str) -> None:
                written.append(piece)
                if on_token is not None:
                    on_token(piece)

            try:
                outcome = self._loop.run(
                    plan.order,
                    plan.template,
                    plan.chosen,
                    plan.composer,
                    history,
                    sink,
                    tell,
                    self._cancelled.is_set,
                    self._known,
                    self._dropped,
                )
                self._speed = plan.order.budget.speed or self._speed
                self._known, self._dropped = outcome.known, outcome.dropped
                done = self._acceptance.accept(
                    outcome,
                    plan,
                    settings,
                    tell,
                    self._cancelled.is_set,
                    replaced=self._history[-1] if replaces_last else None,
                    session=self.name,
                    remembered_as=self._memory_name(),
                )
                if on_token is not None and plan.answer is not None:  # it is given whole, also where it was stopped
                    rest = done.reply.document[len("".join(written)) :]
                    if rest:
                        on_token(rest)
            except BaseException:
                # A reader of the stream or of the events failed, or Ctrl-C: what was written so far is kept.
                if written and not replaces_last:
                    self._history.append(self._acceptance.part("".join(written), plan, settings))
                raise
            self._known = done.known
            self._stored += done.stored
            if not replaces_last:
                self._history.append(done.turn)
            elif self._history[-1].partial or not done.turn.partial:
                self._history[-1] = done.turn  # a whole answer is never given up for a part of one
            self._start_idle()
            return done.reply

    def _plan(
        self,
        order: TurnOrder,
        settings: Settings,
        history: Sequence[Turn],
        answered: Sequence[Turn],
        tell: OnEvent,
    ) -> Plan:
        """Everything that is settled before the draft.

        Args:
            answered: the turn that is answered again, which reminds of itself only.
        """
        assert self._decoder is not None
        room = self._decoder.n_ctx - order.max_tokens
        standing = history[min(self._dropped, len(history)) :]

        def recall(remembering: Remembering, composer: PromptComposer) -> Reminder:
            return remembering.recall(order.pvq, composer, order.lang, standing, room, answered)

        return self._planner.plan(
            order,
            settings,
            frozenset(self._own),
            history,
            lambda template: self._head(history, template, order.lang),
            self._remembering(settings),
            recall,
            tell,
        )

    def _head(self, history: Sequence[Turn], template: Template, lang: str) -> PromptComposer:
        """What writes the prompts, with the examples of the conversation's first turn at the head."""
        if self._composer is None:
            overlay = self.bundle.overlay_set
            # The examples at the head stay those of the first turn, also in a session that is gone on with.
            first = history[0] if history else None
            head = overlay.templates.get(first.template) if first is not None else None
            self._composer = PromptComposer(
                overlay.prompts,
                head or template,
                first.lang if first is not None and head is not None else lang,
                self._settings.system,
                overlay.templates,
                overlay.overlay.few_shot,
            )
        return self._composer
