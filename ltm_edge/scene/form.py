"""Which form a request asks for in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["wanted_form"]

_EDGES = " \t\n.,!?:;…"


def wanted_form(text: str, phrases: Mapping[Any, Sequence[str]]) -> tuple[str, str] | None:
    """The form whose phrase the request begins or ends with, and the phrase; None if it asks for none.

    Args:
        text: the request.
        phrases: by form, such as ``{"image": ["draw me"], "yaml": ["as yaml"]}``; case doesn't matter.
    """
    said = text.strip(_EDGES).casefold()
    for form, group in phrases.items():
        for phrase in group:
            words = phrase.casefold()
            rest = said.removeprefix(words) if said.startswith(words) else said.removesuffix(words)
            # Whole words only: what stands beside the phrase must not go on with it.
            beside = rest[:1] if said.startswith(words) else rest[-1:]
            if rest != said and not beside.isalnum():
                return form, phrase
    return None
