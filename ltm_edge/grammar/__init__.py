"""Grammars: from scene template to GBNF, and from GBNF to the tokens that may come next.

`template_gbnf` is pure; `Grammar`, `Vocab` and `Matcher` wrap the native engine and are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ltm_edge.grammar.template import template_gbnf

if TYPE_CHECKING:
    from ltm_edge.grammar.matcher import ForcedTokens, Grammar, Matcher, Vocab

__all__ = ["ForcedTokens", "Grammar", "Matcher", "Vocab", "template_gbnf"]

_NATIVE = ("ForcedTokens", "Grammar", "Matcher", "Vocab")


def __getattr__(name: str) -> Any:
    if name in _NATIVE:
        return getattr(importlib.import_module("ltm_edge.grammar.matcher"), name)
    raise AttributeError(f"module 'ltm_edge.grammar' has no attribute {name!r}")
