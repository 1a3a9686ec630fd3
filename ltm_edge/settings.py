"""Settings: what can be changed from one turn to the next (`/set` in the chat, keyword arguments in Python)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ltm_edge.engine.decoder import Sampling
from ltm_edge.errors import InputError
from ltm_edge.scene.pvq import FORMS

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
_TEXTS = ("form", "lang", "template", "system", "memory")
_MEMORY = ("on", "recall", "off")
_EMPTY = ("", "none", "null", "auto", "default", "random")


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be changed from one turn to the next.

    Attributes:
        sampling: how tokens are chosen; its seed is replaced for each turn.
        max_tokens: tokens that one document may take.
        seed: seed of every turn, 0 to 2**32 - 2; None: a new one each turn, shown in the trace.
        form: form of the answer, one of :data:`ltm_edge.scene.pvq.FORMS`.
        lang: language of the answers; None: the request's.
        template: scene template of every turn; None: chosen for each request.
        system: text added to the system message; None: nothing.
        memory: where there is a scene memory: ``on`` (recall and store), ``recall`` (store nothing) or ``off``.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 320
    seed: int | None = None
    form: str = "auto"
    lang: str | None = None
    template: str | None = None
    system: str | None = None
    memory: str = "on"

    @staticmethod
    def keys() -> tuple[str, ...]:
        """All names that :meth:`changed` takes."""
        return (*_FLOATS, *_INTEGERS, *_TEXTS)

    def to_dict(self) -> dict[str, Any]:
        """All values by name, sampling's among them."""
        values: dict[str, Any] = {key: getattr(self.sampling, key) for key in _SAMPLING}
        values.update({key: getattr(self, key) for key in ("max_tokens", "seed", *_TEXTS)})
        return values

    def changed(
        self, values: Mapping[str, Any], *, templates: Mapping[str, Any] | None = None, languages: tuple[str, ...] = ()
    ) -> Settings:
        """These settings with some values changed. Text is read as the value's type, so that it may come from a prompt.

        Raises:
            InputError: an unknown name or a value out of range; says what is allowed.
        """
        sampling: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in values.items():
            if key in _FLOATS or key in _INTEGERS:
                parsed = _number(key, value)
                (sampling if key in _SAMPLING else own)[key] = parsed
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


def _words(kind: type) -> str:
    return "a number" if kind is float else "a whole number"


def _text(key: str, value: Any, templates: Mapping[str, Any] | None, languages: tuple[str, ...]) -> str | None:
    if key == "memory" and isinstance(value, str) and value.strip().lower() in ("none", "null", "no", "false"):
        return "off"  # who says so of a memory doesn't mean its default
    if value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY):
        return {"form": "auto", "memory": "on"}.get(key)
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
    elif key == "template" and templates is not None:
        allowed = tuple(templates)
    elif key == "lang":
        allowed = languages
    if allowed and text not in allowed:
        near = difflib.get_close_matches(text, allowed, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"{key}: {value!r} is not one of {', '.join(allowed)}{hint}")
    return text
