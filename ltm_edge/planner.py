"""TurnPlanner: everything that is settled before a turn's draft: what is asked, template, recall, routing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ltm_edge.engine.decoder import AdapterMix, Sampling
from ltm_edge.errors import InputError, SchemaError
from ltm_edge.field.state import FieldState
from ltm_edge.loop.consilium import Seat, convened, seated
from ltm_edge.loop.events import OnEvent, Stage
from ltm_edge.loop.inferring import Inferring
from ltm_edge.loop.orientation import Lifted, Oriented, Pull
from ltm_edge.loop.remembering import Remembering, Reminder
from ltm_edge.loop.self_loop import Budget
from ltm_edge.loop.turn_order import Evidence, TurnOrder
from ltm_edge.scene.clean import clean_request, is_blank
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.form import wanted_form
from ltm_edge.scene.language import detect_language
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import answer_document
from ltm_edge.settings import MAX_SEED, Settings
from ltm_edge.turn import Turn

if TYPE_CHECKING:
    from ltm_edge.bundle import Bundle
    from ltm_edge.schemas.template import Template

__all__ = ["Plan", "TurnPlanner"]

_MIXED = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "dry_multiplier")  # what channels may set
_EARLIER = 32  # turns that critics look back at


@dataclass(frozen=True, slots=True)
class Plan:
    """What is settled of a turn before its draft.

    Attributes:
        order: what the loop is asked to do.
        asked: the request as it came, where the model was asked what it leaves open.
        template, chosen: the template, and how it was chosen.
        composer: how messages are put.
        oriented: the request in the field, and the routing.
        remembering, reminder: the memory and what it brought up; None and nothing without one.
        history: the turns before it.
    """

    order: TurnOrder
    template: Template
    chosen: dict[str, Any]
    composer: PromptComposer
    oriented: Oriented
    remembering: Remembering | None
    reminder: Reminder
    history: Sequence[Turn]
    asked: Pvq

    @property
    def answer(self) -> Scene | None:
        """The scene with which the template answers itself, in the turn's language; None: the model writes one."""
        return self.template.answer_in(self.order.lang)

    @property
    def before(self) -> FieldState:
        """The field as it was before the turn."""
        return self.oriented.lifted.before


class TurnPlanner:
    """Plans the turns of one session by its bundle's field, overlay and adapters."""

    def __init__(self, bundle: Bundle, inferring: Inferring) -> None:
        """Take the bundle, and what asks the model about a request."""
        self._bundle = bundle
        self._inferring = inferring
        self.orienter = bundle.orienter

    def order(self, request: str | Pvq, settings: Settings, n_ctx: int, speed: float) -> tuple[TurnOrder, Settings]:
        """What is to be answered, and the settings with the form that it asks for and the turn's seed.

        Args:
            request: plain text, or a PVQ.
            settings: of the turn.
            n_ctx: tokens that the context holds.
            speed: seconds that a token took last; 0: not known.

        Raises:
            InputError: an empty or oversized request.
        """
        overlay = self._bundle.overlay_set
        loop = overlay.overlay.self_loop
        pvq = request if isinstance(request, Pvq) else Pvq.from_text(request)
        text, cleaned = clean_request(pvq.text)
        if is_blank(text):
            raise InputError("the request is empty without its control characters; write something")
        lang = settings.lang or detect_language(text, overlay.languages, overlay.languages[0])
        form = settings.form
        if form == "auto":
            asked = wanted_form(text, overlay.prompts.of(lang).forms) if pvq.form == "auto" else None
            form = asked[0] if asked else "text" if pvq.form == "auto" else pvq.form
        seed = settings.seed if settings.seed is not None else secrets.randbelow(MAX_SEED)
        order = TurnOrder(
            pvq=replace(pvq, text=text, form=form),
            lang=lang,
            max_tokens=min(settings.max_tokens, max(n_ctx // 2, 1)),
            sampling=replace(settings.sampling, seed=seed),
            notices=tuple(cleaned),
            budget=Budget(settings.budget if settings.budget is not None else loop.seconds, loop.tokens, speed),
        )
        return order, replace(settings, form=form, seed=seed)

    def plan(
        self,
        order: TurnOrder,
        settings: Settings,
        own: frozenset[str],
        history: Sequence[Turn],
        head: Callable[[Template], PromptComposer],
        remembering: Remembering | None,
        recall: Callable[[Remembering, PromptComposer], Reminder],
        tell: OnEvent,
    ) -> Plan:
        """Settle a turn.

        Args:
            order: the request, with the settings' sampling.
            settings: of the turn.
            own: sampling settings that the user has set; channels leave them alone.
            history: the turns before it.
            head: gives the composer once the template is known.
            remembering: the memory; None: there is none.
            recall: asks it.
            tell: hears which part begins.
        """
        overlay = self._bundle.overlay
        before = self.orienter.state(history[-1].trace if history else None)
        lifted = self._lifted(order, before)
        template, chosen = self._template(settings.template, lifted)
        composer = head(template)
        reminder = Reminder()
        pull: Pull | None = None
        if remembering is not None:
            tell(Stage("recall"))
            reminder = recall(remembering, composer)
            pull = remembering.pull(reminder)
        oriented = self.orienter.route(lifted, pull, settings.channels)
        pvq, notices = order.pvq, (*order.notices, *lifted.notices, *reminder.notices)
        if overlay.pvq.infer == "model":
            pvq, said = self._inferring.infer(order.pvq, order.lang)
            notices += said
        inputs = overlay.routing.inputs or settings.channels is not None
        directives = oriented.directives(self._bundle.field) if inputs else []
        entropy = oriented.routing.entropy if oriented.routing is not None else None
        document = answer_document(template, order.lang)  # it is read and not written, so that no limit cuts it off
        why = "" if document else convened(overlay.consilium, entropy, settings.council)
        if why and len(self._bundle.field.channels) < 2:
            why, notices = "", (*notices, "no consilium is held: it takes two channels, and the field has fewer")
        mixable = {key: getattr(order.sampling, key) for key in _MIXED if key not in own}
        mixed = self.orienter.sampling(mixable, oriented) if inputs else {}
        planned = replace(
            order,
            max_tokens=max(order.max_tokens, len(self._bundle.model.tokenize(document))),
            pvq=pvq,
            sampling=_with(order.sampling, mixed),
            recalled=reminder.text,
            notices=notices,
            manner=composer.manner(directives, order.lang),
            adapters=self._mix(oriented, forced=settings.channels is not None),
            seats=self._seats(oriented, order.sampling, mixable, composer) if why else (),
            council=why,
            evidence=Evidence(
                recalled=reminder.said,
                earlier=tuple(scene for turn in history[-_EARLIER:] if (scene := _scene_of(turn)) is not None),
                embed=self._embed(lifted),
                will=oriented.state.will,
            ),
        )
        return Plan(planned, template, chosen, composer, oriented, remembering, reminder, history, order.pvq)

    def _lifted(self, order: TurnOrder, before: FieldState) -> Lifted:
        if self._bundle.overlay.pvq.infer == "off":
            return Lifted(order.pvq, order.lang, None, before, before)
        return self.orienter.lift(order.pvq, order.lang, before)

    def _template(self, asked: str | None, lifted: Lifted) -> tuple[Template, dict[str, Any]]:
        """The template of a turn and how it was chosen, as it stands in the trace."""
        templates = self._bundle.templates
        if asked is not None:
            if asked not in templates:
                raise InputError(f"no template {asked!r}; there are: {', '.join(templates)}")
            return templates[asked], {"name": asked, "why": "asked for", "scores": {}}
        if lifted.pvq.form == "refusal" and "refusal" in templates:
            return templates["refusal"], {"name": "refusal", "why": "the form asked for", "scores": {}}
        choice = self.orienter.choose(lifted)
        scores = {name: round(float(score), 3) for name, score in choice.scores.items()}
        return templates[choice.name], {"name": choice.name, "why": choice.why, "scores": scores}

    def _seats(
        self, oriented: Oriented, base: Sampling, mixable: Mapping[str, float], composer: PromptComposer
    ) -> tuple[Seat, ...]:
        """The channels of a consilium: each with its own directive and sampling, all under the turn's adapters.

        So they differ by directive only, and can share their batches. Where nothing was routed all are alike.
        """
        limits, lang = self._bundle.overlay.consilium, oriented.lifted.lang
        routing = oriented.routing
        weights = routing.raw if routing is not None else dict.fromkeys(self._bundle.field.channels, 1.0)
        seats = []
        for number, name in enumerate(seated(weights, limits.channels)):
            zone = self._bundle.field.channels[name]
            words = zone.directive.get(lang) or zone.directive.get("en", "")
            own = {key: value for key, value in zone.sampling.to_dict().items() if key in mixable}
            sampling = replace(_with(base, own), seed=(base.seed + number) % MAX_SEED)
            seats.append(Seat(name, composer.manner([(words, 1.0)], lang) if words else "", sampling))
        return tuple(seats)

    def _mix(self, oriented: Oriented, *, forced: bool) -> AdapterMix | None:
        """The adapters of the channels that have weight, as one mix; None: nothing acts on the base."""
        bundle = self._bundle
        if oriented.routing is None or not bundle.adapters or not (bundle.overlay.routing.heads or forced):
            return None
        loras = []
        for name, weight in oriented.routing.weights.items():
            scale = weight * bundle.field.channels[name].max_scale
            if scale > 0 and name in bundle.adapters:
                loras.append((bundle.adapter(name), scale))
        return AdapterMix(loras) if loras else None

    def _embed(self, lifted: Lifted) -> Any:
        """What critics embed with: nothing where the request's language isn't covered."""
        covered = lifted.reading is not None and lifted.reading.vector is not None
        return self.orienter.embedder.embed if self.orienter.embedder is not None and covered else None


def _with(sampling: Sampling, changes: Mapping[str, float]) -> Sampling:
    values: dict[str, Any] = {key: int(value) if key == "top_k" else value for key, value in changes.items()}
    return replace(sampling, **values)


def _scene_of(turn: Turn) -> Scene | None:
    """The scene of an earlier turn, if it is complete."""
    return None if turn.partial else _read(turn.document)


@lru_cache(maxsize=4 * _EARLIER)
def _read(document: str) -> Scene | None:
    try:
        return Scene.from_yaml(document)
    except SchemaError:
        return None
