"""Lift: from what was said to its place in the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ltm_edge.field.choose import REFUSAL, How, choose, refusal_score, refuses
from ltm_edge.field.state import FieldState
from ltm_edge.field.vectors import Anchors, Embedder, Kind, KnownScene, Vector, unit
from ltm_edge.field.wishes import wish
from ltm_edge.scene.choose import TemplateChoice
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.field import FieldArchitecture
from ltm_edge.schemas.template import Template

__all__ = ["Inferred", "Lift", "Reading"]

_SAMPLE_CHARS = 4000  # of a request that are embedded: more than the contexts of small embedding models hold
_DEFAULT_PHASE = "myth"
_NEAREST_REFUSALS = 2  # one near anchor can be an accident of words, a second is none


@dataclass(frozen=True, slots=True)
class Inferred:
    """A value and where it comes from.

    Attributes:
        value: an id, or text.
        source: ``given`` in the request, ``inferred`` from it, or ``default``.
        similarity: score that it was inferred by (see :meth:`AnchorSet.reading` and its neighbours); None where
            nothing was measured.
    """

    value: str
    source: Literal["given", "inferred", "default"]
    similarity: float | None = None

    def to_trace(self) -> dict[str, Any]:
        """For the trace, the likeness rounded to three places."""
        result: dict[str, Any] = {"value": self.value, "source": self.source}
        if self.similarity is not None:
            result["similarity"] = round(self.similarity, 3)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A request lifted into the field (поднятый PVQ).

    Attributes:
        vector: its embedding, float32 [dim] of length 1; None where nothing embeds it.
        phase: myth, drama, logic or irony.
        archetypes: ids (a given one that has no id: its name), most telling first.
        templates: score of each template by its anchors, that of the field mixed in; the refusal's is on a scale
            of its own (see :func:`refusal_score`).
        channels: how the field, as the request moves it, reads against each channel's anchors.
        refuse: it is like what is refused.
        goal, tension, centre: None where neither given nor found.
        weight: how strongly the goal pulls.
        goal_vector: the goal's embedding, float32 [dim] of length 1.
        how: what the likeness was measured by.
    """

    vector: Vector | None
    phase: Inferred
    archetypes: tuple[Inferred, ...]
    templates: Mapping[str, float]
    channels: Mapping[str, float]
    refuse: bool
    goal: Inferred | None
    tension: Inferred | None
    centre: Inferred | None
    weight: float
    goal_vector: Vector | None
    how: How

    @property
    def archetype_ids(self) -> tuple[str, ...]:
        """The archetypes' values alone."""
        return tuple(one.value for one in self.archetypes)

    def to_trace(self) -> dict[str, Any]:
        """What was given, inferred and measured, as JSON takes it."""
        result: dict[str, Any] = {
            "how": self.how,
            "phase": self.phase.to_trace(),
            "archetypes": [one.to_trace() for one in self.archetypes],
        }
        for name, one in (("goal", self.goal), ("tension", self.tension), ("centre", self.centre)):
            if one is not None:
                result[name] = one.to_trace()
        if self.goal is not None:
            result["weight"] = self.weight
        result["templates"] = {name: round(value, 3) for name, value in self.templates.items()}
        result["channels"] = {name: round(value, 3) for name, value in self.channels.items()}
        return result


class Lift:
    """Lifts requests (PVQ, полевекторная сцепка) into the field: what is given stays, the rest is inferred."""

    def __init__(
        self,
        field: FieldArchitecture,
        templates: Mapping[str, Template],
        anchors: Anchors,
        embedder: Embedder | None = None,
        names: Mapping[str, Mapping[str, str]] | None = None,
        fallback: str | None = None,
    ) -> None:
        """Take the parts.

        Args:
            field: its thresholds and beginnings of wishes.
            templates: by name.
            anchors: made with the same embedder.
            embedder: None: everything goes letter by letter.
            names: the archetypes' names by language, then by id; a request may give either.
            fallback: template for requests that are like none.
        """
        self._field = field
        self._templates = templates
        self._anchors = anchors
        self._embedder = embedder
        self._fallback = fallback
        self._ids = {name.casefold(): key for group in (names or {}).values() for key, name in group.items()}

    def lift(self, pvq: Pvq, lang: str, state: FieldState | None = None) -> Reading:
        """Read a request.

        Likeness is by meaning where there is an embedder that covers both the request and the anchors of the language,
        else letter by letter. The field where the session stands favours the templates that it is near to;
        the refusal is measured by the request alone.

        Args:
            pvq: the request.
            lang: its language.
            state: the field before it; None: an empty one.

        Raises:
            LtmError: what the embedder raises.
        """
        choosing = self._field.choosing
        state = state or FieldState()
        vector = self._embedded(pvq.text, lang)
        how: How = "letters" if vector is None else "embeddings"
        templates = self._templates_by(vector, pvq.text, lang)
        refuse = refuses(templates, how, choosing)
        goal = self._goal(pvq, lang, refuse=refuse)
        tension, centre = self._scene(pvq, vector, lang)
        moved = state if vector is None else state.towards(vector, self._field.dynamics.rate)
        return Reading(
            vector=vector,
            phase=self._phase(pvq, vector, lang),
            archetypes=self._archetypes(pvq, vector, lang),
            templates=self._leaning(templates, state.meaning, lang) if how == "embeddings" else templates,
            channels=self._scores("channel", moved.meaning if vector is not None else None, pvq.text, lang),
            refuse=refuse,
            goal=goal,
            tension=tension,
            centre=centre,
            weight=pvq.weight if pvq.goal is not None else self._field.dynamics.wish,
            goal_vector=None if goal is None or vector is None else self._embedded(goal.value, lang),
            how=how,
        )

    def channels(self, meaning: Vector | None, lang: str) -> dict[str, float]:
        """How a place in the field, float32 [dim], reads against the channels' anchors; empty without such anchors.

        For a field that recalled scenes have pulled at since the request was read.
        """
        one = None if meaning is None else unit(meaning)
        return {} if one is None else self._scores("channel", one, "", lang)

    def choose(self, reading: Reading) -> TemplateChoice:
        """The template that the reading calls for."""
        return choose(
            reading.templates,
            self._templates,
            self._field.choosing,
            refuse=reading.refuse,
            phase=reading.phase.value if reading.phase.source != "default" else None,
            phase_given=reading.phase.source == "given",
            # An inferred archetype comes from the same vector as the score and adds nothing to it; a given one does.
            archetypes=[one.value for one in reading.archetypes if one.source == "given"],
            fallback=self._fallback,
        )

    def _embedded(self, text: str, lang: str) -> Vector | None:
        """The text's vector; None where it has no letters, or the embedder or the anchors don't reach it."""
        sample = text[:_SAMPLE_CHARS]
        if self._embedder is None or lang not in self._anchors.embedded or not any(map(str.isalnum, sample)):
            return None
        return unit(self._embedder.embed([sample])[0]) if self._embedder.covers(sample) else None

    def _likeness(self, kind: Kind, vector: Vector | None, text: str, lang: str, nearest: int) -> dict[str, float]:
        """Likeness to the nearest anchors of each name: by meaning if there is a vector, else letter by letter."""
        anchors = self._anchors.of_kind(kind, lang)
        if anchors is None:
            return {}
        return anchors.by_letters(text, nearest) if vector is None else anchors.by_meaning(vector, nearest)

    def _scores(self, kind: Kind, vector: Vector | None, text: str, lang: str) -> dict[str, float]:
        """What decides between names: the anchors' reading if there is a vector, else likeness letter by letter."""
        anchors = self._anchors.of_kind(kind, lang)
        if anchors is None or vector is None:
            return self._likeness(kind, vector, text, lang, self._field.choosing.nearest)
        return anchors.reading(vector)

    def _templates_by(self, vector: Vector | None, text: str, lang: str) -> dict[str, float]:
        """Scores of the templates by the request alone, in which letters have a say beside meaning."""
        scores = self._scores("template", vector, text, lang)
        reading = 0.0 if vector is None else scores.get(REFUSAL, 0.0)
        if vector is not None:
            choosing = self._field.choosing
            letters = self._likeness("template", None, text, lang, choosing.nearest)
            scores = {name: value + choosing.letters * letters[name] for name, value in scores.items()}
        if REFUSAL in scores:
            scores[REFUSAL] = refusal_score(self._likeness("template", vector, text, lang, _NEAREST_REFUSALS), reading)
        return scores

    def _leaning(self, templates: Mapping[str, float], meaning: Vector | None, lang: str) -> dict[str, float]:
        """Scores of the templates with where the field stands mixed in."""
        near = {} if meaning is None else self._scores("template", meaning, "", lang)
        weight = self._field.choosing.field
        return {
            name: value + weight * near.get(name, 0.0) if name != REFUSAL else value
            for name, value in templates.items()
        }

    def _phase(self, pvq: Pvq, vector: Vector | None, lang: str) -> Inferred:
        if pvq.phase is not None:
            return Inferred(pvq.phase, "given")
        scores = self._scores("phase", vector, pvq.text, lang)
        best = _best(scores)
        return Inferred(_DEFAULT_PHASE, "default") if best is None else Inferred(best, "inferred", scores[best])

    def _archetypes(self, pvq: Pvq, vector: Vector | None, lang: str) -> tuple[Inferred, ...]:
        if pvq.archetype:
            return tuple(Inferred(self._ids.get(name.casefold(), name), "given") for name in pvq.archetype)
        choosing = self._field.choosing
        scores = self._scores("archetype", vector, pvq.text, lang)
        near = sorted(scores, key=lambda name: (-scores[name], name))[: choosing.archetypes]
        return tuple(
            Inferred(name, "inferred", scores[name]) for name in near if scores[name] >= choosing.archetype_above
        )

    def _goal(self, pvq: Pvq, lang: str, *, refuse: bool) -> Inferred | None:
        if pvq.goal is not None:
            return Inferred(pvq.goal, "given")
        # What is refused must not become what the session works towards.
        found = None if refuse else wish(pvq.text, self._field.wishes.get(lang, ()))
        return None if found is None else Inferred(found, "inferred")

    def _scene(self, pvq: Pvq, vector: Vector | None, lang: str) -> tuple[Inferred | None, Inferred | None]:
        """The tension and the centre: given, or of the nearest request whose scene is known."""
        scores = self._likeness("scene", vector, pvq.text, lang, 1)
        best = _best(scores)
        known, likeness = KnownScene(None, None), 0.0
        if best is not None and scores[best] >= self._field.choosing.scene_above:
            known, likeness = self._anchors.scenes[best], scores[best]

        def pick(key: str, found: str | None) -> Inferred | None:
            given = pvq.scene.get(key)
            if isinstance(given, str):
                return Inferred(given, "given")
            return None if found is None else Inferred(found, "inferred", likeness)

        return pick("tension", known.tension), pick("resonance_center", known.centre)


def _best(scores: Mapping[str, float]) -> str | None:
    """The name of the highest score over 0; of equals the first by name."""
    name = min(scores, key=lambda name: (-scores[name], name), default=None)
    return name if name is not None and scores[name] > 0.0 else None
