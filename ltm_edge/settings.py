"""Settings: what can be changed from one turn to the next (`/set` in the chat, keyword arguments in Python)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ltm_edge.engine.decoder import Sampling
from ltm_edge.errors import InputError
from ltm_edge.field.router import parse_channels
from ltm_edge.scene.pvq import FORMS
from ltm_edge.schemas.field import FieldArchitecture

__all__ = ["MAX_SEED", "Settings"]

MAX_SEED = (1 << 32) - 2  # llama.cpp reads 2**32 - 1 as "choose one"

# (lowest, highest) of the numbers; llama.cpp's own limits where it has any.
_FLOATS = {
    "temperature": (0.0, 10.0),
    "top_p": (0.001, 1.0),
    "min_p": (0.0, 0.999),
    "repeat_penalty": (0.01, 10.0),
    "frequency_penalty": (-10.0, 10.0),
    "presence_penalty": (-10.0, 10.0),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 100.0),
}
_INTEGERS = {
    "top_k": (0, 1 << 20),
    "repeat_last_n": (-1, 1 << 20),
    "dry_allowed_length": (0, 1 << 20),
    "dry_last_n": (-1, 1 << 20),
    "max_tokens": (1, 1 << 20),
    "seed": (0, MAX_SEED),
}
_TEXTS = ("form", "lang", "template", "system", "memory", "council")
_MEMORY = ("on", "recall", "off")
_COUNCIL = ("auto", "on", "off")
_MOST_SECONDS = 86400
_EMPTY = ("", "none", "null", "auto", "default", "random")


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be changed from one turn to the next. By name, those of ``Sampling`` among them, in ``Session.set``,
    ``Session.settings`` and the ``sampling`` of ``Bundle.session``.

    Attributes:
        sampling: how tokens are chosen; its seed is replaced for each turn.
        max_tokens: tokens that one document may take.
        seed: seed of every turn, 0 to 2**32 - 2; None: a new one each turn, shown in the trace.
        form: form of the answer: ``auto``, ``text``, ``yaml``, ``json``, ``image`` or ``refusal``.
        lang: language of the answers; None: the request's.
        template: scene template of every turn; None: chosen for each request.
        system: text added to the system message; None: nothing.
        memory: where there is a scene memory: ``on`` (recall and store), ``recall`` (store nothing) or ``off``.
        council: whether several channels draft at once: ``auto`` (as the overlay says), ``on`` or ``off``.
        channels: weights by channel, which sum to 1; None: each request is routed.
        budget: seconds that a turn may take until no further pass begins; None: as the overlay says.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 320
    seed: int | None = None
    form: str = "auto"
    lang: str | None = None
    template: str | None = None
    system: str | None = None
    memory: str = "on"
    council: str = "auto"
    channels: Mapping[str, float] | None = None
    budget: float | None = None

    @staticmethod
    def keys() -> tuple[str, ...]:
        """All names that :meth:`changed` takes."""
        return (*_FLOATS, *_INTEGERS, *_TEXTS, "channels", "budget")

    @staticmethod
    def sampling_keys() -> tuple[str, ...]:
        """Those of them that say how tokens are chosen."""
        return _SAMPLING

    def to_dict(self) -> dict[str, Any]:
        """All values by name, sampling's among them."""
        values: dict[str, Any] = {key: getattr(self.sampling, key) for key in _SAMPLING}
        values.update({key: getattr(self, key) for key in ("max_tokens", "seed", *_TEXTS, "budget")})
        values["channels"] = None if self.channels is None else dict(self.channels)
        return values

    def changed(
        self,
        values: Mapping[str, Any],
        *,
        templates: Mapping[str, Any] | None = None,
        languages: tuple[str, ...] = (),
        field: FieldArchitecture | None = None,
    ) -> Settings:
        """These settings with some values changed. Text is read as the value's type, so that it may come from a prompt.

        Args:
            values: by name.
            templates, languages, field: what templates, languages and channels there are.

        Raises:
            InputError: an unknown name or a value out of range; says what is allowed.
        """
        sampling: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in values.items():
            if key in _FLOATS or key in _INTEGERS:
                parsed = _number(key, value)
                (sampling if key in _SAMPLING else own)[key] = parsed
            elif key == "channels":
                own[key] = _channels(value, field)
            elif key == "budget":
                own[key] = _seconds(value)
            elif key in _TEXTS:
                own[key] = _text(key, value, templates, languages)
            else:
                near = difflib.get_close_matches(key, self.keys(), n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(self.keys())}"
                raise InputError(f"no setting is called {key!r}{hint}")
        return replace(self, sampling=replace(self.sampling, **sampling), **own)


_SAMPLING = (*_FLOATS, "top_k", "repeat_last_n", "dry_allowed_length", "dry_last_n")


def _number(key: str, value: Any) -> float | int | None:
    if key == "seed" and (value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)):
        return None
    low, high = _FLOATS.get(key) or _INTEGERS[key]
    kind: type = float if key in _FLOATS else int
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{key}: expected {_words(kind)} from {low} to {high}, found {value!r}") from None
    if not low <= number <= high or math.isnan(number):
        raise InputError(f"{key}: expected {_words(kind)} from {low} to {high}, found {value}")
    return number  # type: ignore[no-any-return]


def _channels(value: Any, field: FieldArchitecture | None) -> dict[str, float] | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY):
        return None
    if isinstance(value, Mapping):
        value = ",".join(f"{name}={weight}" for name, weight in value.items())
    if not isinstance(value, str):
        raise InputError(f"channels: expected weights such as poet=0.7,ironist=0.3, found {value!r}")
    if field is None:
        raise InputError("channels: this conversation has no channels")
    return parse_channels(value, field)


def _seconds(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 < seconds <= _MOST_SECONDS:
        raise InputError(f"budget: expected seconds from over 0 to {_MOST_SECONDS}, found {value!r}")
    return seconds


def _words(kind: type) -> str:
    return "a number" if kind is float else "a whole number"


def _text(key: str, value: Any, templates: Mapping[str, Any] | None, languages: tuple[str, ...]) -> str | None:
    if key == "memory" and isinstance(value, str) and value.strip().lower() in ("none", "null", "no", "false"):
        return "off"  # who says so of a memory doesn't mean its default
    if value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY):
        return {"form": "auto", "memory": "on", "council": "auto"}.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key}: expected text, found {value!r}")
    if key == "system":
        return value
    text = value.strip().lower()
    allowed: tuple[str, ...] = ()
    if key == "form":
        allowed = FORMS
    elif key == "memory":
        allowed = _MEMORY
    elif key == "council":
        allowed = _COUNCIL
    elif key == "template" and templates is not None:
        allowed = tuple(templates)
    elif key == "lang":
        allowed = languages
    if allowed and text not in allowed:
        near = difflib.get_close_matches(text, allowed, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"{key}: {value!r} is not one of {', '.join(allowed)}{hint}")
    return text
