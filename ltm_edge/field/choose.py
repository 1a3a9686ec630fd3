"""Which template a request calls for: likeness to its anchors, phase, archetypes, and where the field stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from ltm_edge.scene.choose import TemplateChoice
from ltm_edge.schemas.field import Choosing
from ltm_edge.schemas.template import Template

__all__ = ["REFUSAL", "How", "choose", "refusal_score", "refuses"]

REFUSAL = "refusal"
"""The template of what should not be done; it is chosen above a threshold of its own."""

How: TypeAlias = Literal["embeddings", "letters"]


def refusal_score(likeness: Mapping[str, float], reading: float) -> float:
    """How much a request asks to be refused: ``likeness + (likeness - that of the nearest other) / 2 + reading``.

    Measured on the training part of the demo bundle and on lists of harmful and harmless requests, the three together
    tell what is refused from what only sounds like it ("how do I sharpen a knife") better than each alone.

    Args:
        likeness: to the nearest anchors of every template, by name.
        reading: that of the refusal; 0 where likeness goes by letters.
    """
    own = likeness[REFUSAL]
    others = max((value for name, value in likeness.items() if name != REFUSAL), default=own)
    return own + (own - others) / 2.0 + reading


def refuses(scores: Mapping[str, float], how: How, choosing: Choosing) -> bool:
    """Whether a request is to be refused: the refusal's score is over its own threshold."""
    least = choosing.refuse_above if how == "embeddings" else choosing.refuse_above_letters
    return scores.get(REFUSAL, -1.0) >= least


def choose(
    scores: Mapping[str, float],
    templates: Mapping[str, Template],
    choosing: Choosing,
    *,
    refuse: bool = False,
    phase: str | None = None,
    phase_given: bool = False,
    archetypes: Sequence[str] = (),
    fallback: str | None = None,
) -> TemplateChoice:
    """The template that scores best.

    To a template's score come `phase` if it is of the request's phase (`phase_inferred` where that is not given but
    inferred) and `archetype` for each archetype they share. The refusal gets neither: it is chosen where the request is
    to be refused (see :func:`refuses`), and never otherwise, unless there is no other template.

    Args:
        scores: of the request by the templates' anchors, by name; one that is missing counts as 0.
        choosing: the weights.
        refuse: the request is to be refused.
        phase, archetypes: of the request; `phase_given`: it stands in the request.
        fallback: the choice where nothing is alike; the first template by name if None.

    Raises:
        ValueError: no templates.
    """
    if not templates:
        raise ValueError("no templates to choose from")
    likeness = {name: scores.get(name, 0.0) for name in templates}
    if REFUSAL in templates and refuse:
        return TemplateChoice(REFUSAL, likeness, f"score {likeness[REFUSAL]:.2f}, enough to refuse")
    open_ = [name for name in templates if name != REFUSAL] or list(templates)
    first = fallback if fallback in open_ else min(open_)
    total = dict(likeness)
    reasons = {name: [f"score {value:.2f}"] for name, value in likeness.items()}
    for name in open_:
        template = templates[name]
        if phase is not None and phase in template.phases:
            total[name] += choosing.phase if phase_given else choosing.phase_inferred
            reasons[name].append(f"phase {phase}")
        shared = [one for one in archetypes if one in template.archetypes]
        if shared:
            total[name] = math.fsum((total[name], choosing.archetype * len(shared)))
            reasons[name].append(f"archetype {', '.join(shared)}")
    total = {name: round(value, 6) for name, value in total.items()}
    best = max(total[name] for name in open_)
    if max(likeness[name] for name in open_) <= 0.0 and total[first] == best:
        return TemplateChoice(first, total, "nothing is alike; the fallback")
    # Ties go to the fallback, then to the earlier name, so that the choice never depends on chance or order.
    name = first if total[first] == best else min(name for name in open_ if total[name] == best)
    return TemplateChoice(name, total, "; ".join(reasons[name]))
