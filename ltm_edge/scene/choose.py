"""Which template a request calls for: by likeness to the templates' anchor texts, letter by letter.

Lexical and deterministic, so that it works with no embedder: likeness of trigrams to the nearest anchors of each
template. `ltm_edge.field.choose` does the same by meaning where there is an embedder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltm_edge.scene.trigrams import Trigrams
from ltm_edge.schemas.template import Template

__all__ = ["TemplateChoice", "choose_template"]

_PHASE_BONUS = 0.05
_ARCHETYPE_BONUS = 0.05
# The nearest anchor says most; a second near one says that it was no accident.
_NEAREST_WEIGHTS = (0.7, 0.3)


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """The chosen template, every template's score, and the reason in words."""

    name: str
    scores: Mapping[str, float]
    why: str


def _anchors(template: Template, lang: str) -> tuple[str, ...]:
    """Anchors in the request's language; in all languages where there are none in it."""
    own = template.anchors.get(lang)
    return own if own else tuple(text for texts in template.anchors.values() for text in texts)


def choose_template(
    text: str,
    templates: Mapping[str, Template],
    lang: str,
    phase: str | None = None,
    archetype: Sequence[str] = (),
    fallback: str | None = None,
) -> TemplateChoice:
    """The template whose anchors are most like `text`.

    Args:
        phase: favours templates of this phase.
        archetype: favours templates with an affinity to these archetypes (ids).
        fallback: the choice where nothing is alike; the first template if None.

    Raises:
        ValueError: no templates.
    """
    if not templates:
        raise ValueError("no templates to choose from")
    anchors = {name: _anchors(template, lang) for name, template in templates.items()}
    likeness = iter(Trigrams([text for texts in anchors.values() for text in texts]).likeness(text))
    scores: dict[str, float] = {}
    reasons: dict[str, list[str]] = {}
    for name, template in templates.items():
        nearest = sorted((next(likeness) for _ in anchors[name]), reverse=True)
        score = math.fsum(weight * value for weight, value in zip(_NEAREST_WEIGHTS, nearest, strict=False))
        reasons[name] = [f"likeness {score:.2f}"]
        if phase is not None and phase in template.phases:
            score += _PHASE_BONUS
            reasons[name].append(f"phase {phase}")
        shared = [one for one in archetype if one in template.archetypes]
        if shared:
            score += _ARCHETYPE_BONUS * len(shared)
            reasons[name].append(f"archetype {', '.join(shared)}")
        scores[name] = round(score, 6)
    first = fallback if fallback is not None and fallback in templates else next(iter(templates))
    best = max(scores.values())
    if best <= 0.0:
        return TemplateChoice(first, scores, "nothing is alike; the fallback")
    # Ties go to the fallback, then to the earlier template, so that the choice never depends on chance.
    name = first if scores[first] == best else next(key for key, score in scores.items() if score == best)
    return TemplateChoice(name, scores, "; ".join(reasons[name]))
