"""Router: how a request is divided among the channels (soft routing)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm_edge.errors import InputError
from ltm_edge.field.spread import Spread
from ltm_edge.schemas.check import nearest
from ltm_edge.schemas.field import FieldArchitecture
from ltm_edge.schemas.overlay import Routing as RoutingLimits

__all__ = ["Router", "Routing", "mixed_sampling", "parse_channels"]

_SLACK = 1e-9  # a share that is a multiple of the step but for rounding counts as one
_DECIMALS = 10


@dataclass(frozen=True, slots=True)
class Routing:
    """How a turn is divided among the channels.

    Attributes:
        weights: by channel, strongest first; they sum to 1. All of them stand here, also those of weight 0.
        raw: the softmax before it was quantised.
        similarity: what the softmax was taken over: spread likeness plus archetype prior.
        entropy: of `raw`, or of the weights where they were asked for, divided by that of an even share: 0 is
            decided, 1 undecided.
        why: the reason in words.
    """

    weights: dict[str, float]
    raw: dict[str, float]
    similarity: dict[str, float]
    entropy: float
    why: str

    @property
    def leading(self) -> str | None:
        """The strongest channel; None if there are none."""
        return next(iter(self.weights), None)

    def to_trace(self) -> dict[str, Any]:
        """For the trace, numbers rounded to three places."""

        def rounded(values: Mapping[str, float]) -> dict[str, float]:
            return {name: round(value, 3) for name, value in values.items()}

        return {
            "weights": rounded(self.weights),
            "raw": rounded(self.raw),
            "similarity": rounded(self.similarity),
            "entropy": round(self.entropy, 3),
            "why": self.why,
        }


class Router:
    """Soft routing: softmax over likeness to the channels, spread along the links, plus the archetypes' priors."""

    def __init__(self, field: FieldArchitecture, limits: RoutingLimits) -> None:
        """Take the zones and links, and the overlay's temperature and step."""
        self._field = field
        self._limits = limits
        self._channels = tuple(sorted(field.channels))
        self._spread = Spread(field.zones, field.links, field.routes.steps, field.routes.damping)

    def route(
        self,
        similarity: Mapping[str, float],
        activations: Mapping[str, float] | None = None,
        archetypes: Sequence[str] = (),
        override: Mapping[str, float] | None = None,
    ) -> Routing:
        """Divide a turn among the channels.

        The softmax, over ``(spread likeness + prior * mean of the archetypes' priors) / temperature``, is cut to
        multiples of `step`: each share is rounded down, the steps left over go one by one to those that rounding
        cost most (the stronger of two alike), and what is less than a step goes to the strongest.

        Args:
            similarity: likeness of the field to each channel's anchors, in [-1, 1]; one that is missing counts as 0.
            activations: what stirs in the other zones, in [0, 1], such as how near the best recalled scene is in a
                zone of memory, and the pull in that of will.
            archetypes: ids of the request's archetypes; unknown ones have no prior.
            override: weights that were asked for, taken as they are (see :func:`parse_channels`); the rest is
                computed for the trace only.

        Raises:
            InputError: the override names what isn't a channel, or its numbers don't make weights.
        """
        if not self._channels:
            return Routing({}, {}, {}, 0.0, "no channels")
        known = {name: value for name, value in (activations or {}).items() if name not in self._field.channels}
        spread = self._spread.over(known | {name: similarity.get(name, 0.0) for name in self._channels})
        score = {name: spread[name] + self._prior(name, archetypes) for name in self._channels}
        raw = self._softmax(score)
        if override is not None:
            weights = _normalised(override, self._field)
            entropy, why = _entropy(weights, len(self._channels)), f"asked for: {_listed(weights)}"
        else:
            weights = _quantised(raw, self._limits.step)
            entropy = _entropy(raw, len(self._channels))
            why = self._reason(raw, score, similarity, archetypes, entropy)
        order = sorted(self._channels, key=lambda name: (-weights.get(name, 0.0), -raw[name], name))
        return Routing({name: weights.get(name, 0.0) for name in order}, raw, score, entropy, why)

    def _prior(self, channel: str, archetypes: Sequence[str]) -> float:
        if not archetypes:
            return 0.0
        priors = self._field.channels[channel].archetypes
        return self._field.routes.prior * math.fsum(priors.get(name, 0.0) for name in archetypes) / len(archetypes)

    def _softmax(self, score: Mapping[str, float]) -> dict[str, float]:
        values = np.array([score[name] for name in self._channels]) / self._limits.temperature
        shares = np.exp(values - values.max())
        return dict(zip(self._channels, (shares / shares.sum()).tolist(), strict=True))

    def _reason(
        self,
        raw: Mapping[str, float],
        score: Mapping[str, float],
        similarity: Mapping[str, float],
        archetypes: Sequence[str],
        entropy: float,
    ) -> str:
        first = min(raw, key=lambda name: (-raw[name], name))
        own, prior = similarity.get(first, 0.0), self._prior(first, archetypes)
        parts = [f"{first} leads: likeness {own:.2f}"]
        if abs(links := score[first] - prior - own) >= 0.005:
            parts.append(f"links {links:+.2f}")
        if abs(prior) >= 0.005:
            parts.append(f"archetypes {prior:+.2f}")
        return f"{', '.join(parts)}; entropy {entropy:.2f}"


def mixed_sampling(base: Mapping[str, float], routing: Routing, field: FieldArchitecture) -> dict[str, float]:
    """Sampling settings in which each key that a channel sets is the average by weight; `top_k` stays whole.

    Args:
        base: the settings without channels; a channel that doesn't set a key counts with the value here. Keys that
            aren't here (such as those that are None) are left alone.
        routing: gives the weights.
        field: gives the channels' settings.
    """
    own = {name: zone.sampling.to_dict() for name, zone in field.channels.items()}
    result = dict(base)
    for key in base:
        if not any(key in own[name] for name, weight in routing.weights.items() if weight > 0.0):
            continue
        mean = math.fsum(weight * own[name].get(key, base[key]) for name, weight in routing.weights.items())
        result[key] = round(mean) if key == "top_k" else round(mean, 6)
    return result


def parse_channels(text: str, field: FieldArchitecture) -> dict[str, float]:
    """The weights in ``poet=0.7,ironist=0.3``, brought to the sum 1; a name alone counts as 1.

    Raises:
        InputError: empty, an unknown channel, one named twice, or a weight that isn't a positive number.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = (piece.strip() for piece in part.partition("="))
        if not name:
            raise InputError(f"channels {text!r}: expected name=weight, such as {_sample(field)}")
        if name in weights:
            raise InputError(f"channels {text!r}: {name} stands twice; name each channel once")
        try:
            weights[name] = float(number) if sign else 1.0
        except ValueError:
            raise InputError(f"channels {text!r}: {number!r} is no weight; write a number such as 0.5") from None
    return _normalised(weights, field)


def _sample(field: FieldArchitecture) -> str:
    return ",".join(f"{name}=0.5" for name in list(field.channels)[:2]) or "poet=1"


def _normalised(weights: Mapping[str, float], field: FieldArchitecture) -> dict[str, float]:
    """Weights that sum to 1, those of 0 left out."""
    for name, weight in weights.items():
        if name not in field.channels:
            raise InputError(f"no channel {name!r}{nearest(name, list(field.channels))}")
        if not 0.0 <= weight <= 1e6:  # not a number fails too
            raise InputError(f"channel {name}: weight {weight:g}; it must be from 0 to 1000000")
    total = math.fsum(weights.values())
    if total <= 0.0:
        raise InputError("channels: all weights are 0; give one of them more")
    return {name: weight / total for name, weight in weights.items() if weight > 0.0}


def _quantised(raw: Mapping[str, float], step: float) -> dict[str, float]:
    order = sorted(raw, key=lambda name: (-raw[name], name))
    steps = int(1.0 / step + _SLACK)
    counts = {name: int(raw[name] / step + _SLACK) for name in order}
    lost = {name: raw[name] / step - counts[name] for name in order}
    left = steps - sum(counts.values())
    for name in sorted(order, key=lambda name: (-round(lost[name], 9), order.index(name)))[: max(0, left)]:
        counts[name] += 1
    weights = {name: round(counts[name] * step, _DECIMALS) for name in order}
    rest = 1.0 - math.fsum(weights.values())
    weights[order[0]] = round(weights[order[0]] + rest, _DECIMALS)
    return weights


def _entropy(weights: Mapping[str, float], among: int) -> float:
    """Entropy of weights divided by that of an even share among so many, in [0, 1]."""
    if among < 2:
        return 0.0
    entropy = -math.fsum(share * math.log(share) for share in weights.values() if share > 0.0)
    return min(1.0, max(0.0, entropy / math.log(among)))


def _listed(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in sorted(weights.items(), key=lambda item: -item[1]))
