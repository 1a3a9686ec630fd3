"""Orientation: the field's part in a turn. The request is lifted into it, recalled scenes pull at it, and it routes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import LtmError
from ltm_edge.field.lift import Lift, Reading
from ltm_edge.field.router import Router, Routing, mixed_sampling
from ltm_edge.field.state import FieldState
from ltm_edge.field.vectors import Anchors, Embedder, Vector
from ltm_edge.scene.choose import TemplateChoice, choose_template
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.field import FieldArchitecture, MemoryZone, WillZone
from ltm_edge.schemas.overlay import Overlay
from ltm_edge.schemas.template import Template

__all__ = ["Lifted", "Oriented", "Orienter", "Pull"]


@dataclass(frozen=True, slots=True)
class Pull:
    """What recalled scenes do to the field.

    Attributes:
        masses: their vectors, float32 [n, dim].
        strengths: how often each has helped, [n], from 0 to 1.
        resonance: the best one's score, from 0 to 1.
    """

    masses: npt.NDArray[np.float32]
    strengths: Sequence[float]
    resonance: float


@dataclass(frozen=True, slots=True)
class Lifted:
    """A request in the field.

    Attributes:
        pvq: the request.
        lang: its language.
        reading: what was read of it; None: nothing was asked to be.
        state: the field once the request has moved it.
        before: the field as it was.
        ms: milliseconds that it took.
        notices: sentences for the user.
    """

    pvq: Pvq
    lang: str
    reading: Reading | None
    state: FieldState
    before: FieldState
    ms: float = 0.0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Oriented:
    """Where a turn goes.

    Attributes:
        lifted: the request in the field.
        state: the field after recalled scenes have pulled at it.
        routing: the channels' weights; None: nothing was routed.
        space: the embedder's id; empty where the field has no vectors.
        ms: milliseconds that routing took.
    """

    lifted: Lifted
    state: FieldState
    routing: Routing | None = None
    space: str = ""
    ms: float = 0.0

    def directives(self, architecture: FieldArchitecture) -> list[tuple[str, float]]:
        """Directives of the channels that have weight, in the request's language, with their weights."""
        if self.routing is None:
            return []
        found = []
        for name, weight in self.routing.weights.items():
            words = architecture.channels[name].directive
            text = words.get(self.lifted.lang) or words.get("en", "")
            if weight > 0 and text:
                found.append((text, weight))
        return found

    def to_trace(self, settled: FieldState) -> dict[str, Any]:
        """The parts ``lift``, ``routing`` and ``field`` of a turn's trace.

        Args:
            settled: the field after the turn.
        """
        trace: dict[str, Any] = {}
        if self.lifted.reading is not None:
            trace["lift"] = {**self.lifted.reading.to_trace(), "ms": round(self.lifted.ms, 1)}
        if self.routing is not None:
            trace["routing"] = {**self.routing.to_trace(), "ms": round(self.ms, 1)}
        trace["field"] = {"state": settled.to_dict(self.space), "goal": settled.goal, "pull": round(settled.pull, 3)}
        return trace


@dataclass(slots=True)
class Orienter:
    """Lifts, pulls and routes by a bundle's field; holds no session, and may be shared between threads.

    An embedder that is missing or fails costs no turn: likeness then goes letter by letter, and the field's vectors
    stay where they are. It is tried again at the next request. That it is lost is said once, and that it is back.

    Attributes:
        architecture: zones, links, anchors.
        templates: by name.
        names: names of the archetypes by language, then by id.
        languages: that the overlay speaks.
        overlay: the switches.
        embedder: turns texts into vectors; None: letters only.
        cache: folder for the anchors' vectors; None: they are made each time.
        structs: further requests whose scenes are known.
    """

    architecture: FieldArchitecture
    templates: Mapping[str, Template]
    names: Mapping[str, Mapping[str, str]]
    languages: Sequence[str]
    overlay: Overlay
    embedder: Embedder | None
    cache: Path | None = None
    structs: Sequence[Pvq] = ()
    _lift: Lift | None = None
    _letters: Lift | None = None
    _lost: bool = False
    _named: str = ""
    _said: list[str] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def warm(self) -> None:
        """Load the embedder and the anchors now, and read something, so that the first request needn't wait for it."""
        self._said.extend(self.lift(Pvq("Hello."), self.languages[0], FieldState.empty()).notices)

    def lift(self, pvq: Pvq, lang: str, state: FieldState) -> Lifted:
        """Read a request and move the field by it."""
        start = time.perf_counter()
        reading = self._read(pvq, lang, state)
        moved = state.moved(reading, self.architecture.dynamics)
        if reading.goal is not None:
            moved = moved.willed(reading.goal_vector, reading.goal.value, reading.weight)
        notices, self._said[:] = tuple(self._said), []
        return Lifted(pvq, lang, reading, moved, state, (time.perf_counter() - start) * 1000, notices)

    def choose(self, lifted: Lifted) -> TemplateChoice:
        """The template that a request calls for."""
        if lifted.reading is not None:
            return (self._lift or self._by_letters()).choose(lifted.reading)
        ids = {name: key for names in self.names.values() for key, name in names.items()}
        return choose_template(
            lifted.pvq.text,
            self.templates,
            lifted.lang,
            phase=lifted.pvq.phase,
            archetype=[ids.get(name, name) for name in lifted.pvq.archetype],
            fallback=self.overlay.default_template,
        )

    def route(self, lifted: Lifted, pull: Pull | None, override: Mapping[str, float] | None) -> Oriented:
        """Let recalled scenes pull at the field, and divide the turn among the channels.

        Args:
            pull: what was recalled; None: nothing.
            override: weights by channel that were asked for.
        """
        start = time.perf_counter()
        dynamics, state, reading = self.architecture.dynamics, lifted.state, lifted.reading
        if pull is not None and len(pull.masses):
            state = state.attracted(pull.masses, pull.strengths, dynamics)
        routing = None
        wanted = self.overlay.routing.inputs or self.overlay.routing.heads or override is not None
        if wanted and self.architecture.channels and (reading is not None or override is not None):
            likeness = reading.channels if reading is not None else {}
            if reading is not None and reading.vector is not None:
                likeness = self._by_meaning().channels(state.meaning, lifted.lang) or likeness
            active = self._active(lifted, pull)
            archetypes = reading.archetype_ids if reading is not None else ()
            routing = self._router().route(likeness, active, archetypes, override)
        placed = state.meaning is not None or state.will is not None  # else the embedder needn't even be loaded
        return Oriented(lifted, state, routing, self._space() if placed else "", (time.perf_counter() - start) * 1000)

    def settle(self, oriented: Oriented, centre: str) -> FieldState:
        """The field after an answer was accepted: its will reached, or a little weaker."""
        state = oriented.state
        if state.goal is None:
            return state
        vector: Vector | None = None
        if state.will is not None and self.embedder is not None:
            with contextlib.suppress(LtmError):  # the next request says it
                vector = self.embedder.embed([centre])[0]
        return state.reached(vector, self.architecture.dynamics, self.architecture.decay)

    def sampling(self, base: Mapping[str, float], oriented: Oriented) -> dict[str, float]:
        """Sampling settings with those of the channels mixed in by weight."""
        if oriented.routing is None:
            return dict(base)
        return mixed_sampling(base, oriented.routing, self.architecture)

    def state(self, saved: object) -> FieldState:
        """The field that an earlier turn's trace holds; an empty one where it holds none of this space."""
        part = saved.get("field") if isinstance(saved, Mapping) else None
        found = part.get("state") if isinstance(part, Mapping) else None
        return FieldState.from_dict(found, space=self._space()) if found else FieldState.empty()

    # ---------------------------------------------------------------------------------------------------------

    def _active(self, lifted: Lifted, pull: Pull | None) -> dict[str, float]:
        """What stirs in the zones that are no channels: the best recalled scene, and the will, as far as it is near."""
        will = lifted.state.pull
        if lifted.reading is not None and lifted.reading.vector is not None and lifted.state.will is not None:
            will *= max(lifted.state.likeness_to_will(lifted.reading.vector), 0.0)
        resonance = 0.0 if pull is None else pull.resonance
        return {
            name: resonance if isinstance(zone, MemoryZone) else will
            for name, zone in self.architecture.zones.items()
            if isinstance(zone, (MemoryZone, WillZone))
        }

    def _router(self) -> Router:
        return Router(self.architecture, self.overlay.routing)

    def _read(self, pvq: Pvq, lang: str, state: FieldState) -> Reading:
        if self.embedder is not None:
            try:
                reading = self._by_meaning().lift(pvq, lang, state)
            except LtmError as error:
                if not self._lost:
                    self._said.append(f"{error}; requests are read letter by letter until texts can be embedded again")
                self._lost = True
            else:
                if self._lost and reading.vector is not None:
                    self._said.append("texts can be embedded again; requests are read by meaning")
                    self._lost = False
                return reading
        return self._by_letters().lift(pvq, lang, state)

    def _by_meaning(self) -> Lift:
        with self._lock:
            if self._lift is None:
                self._lift = self._made(self.embedder)
            return self._lift

    def _by_letters(self) -> Lift:
        with self._lock:
            if self._letters is None:
                self._letters = self._made(None)
            return self._letters

    def _made(self, embedder: Embedder | None) -> Lift:
        anchors = Anchors.of(self.architecture, self.templates, self.languages, embedder, self.cache, self.structs)
        return Lift(self.architecture, self.templates, anchors, embedder, self.names, self.overlay.default_template)

    def _space(self) -> str:
        """The embedder's name, also while it is lost: what the field holds is of its space still."""
        if self.embedder is not None:
            with contextlib.suppress(LtmError):
                self._named = self.embedder.id
        return self._named
