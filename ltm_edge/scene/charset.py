"""The characters a scene may be written in: one table for the grammar and for the YAML writer.

Left out are the characters that YAML refuses or takes for line breaks (C0, C1, U+0085, U+2028, U+2029, U+FEFF,
surrogates, noncharacters), the tab, those that hide or reorder text (bidirectional overrides and isolates, invisible
operators, tags), private use, the replacement characters and planes without characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = [
    "EDGE",
    "KEY_FIRST",
    "KEY_REST",
    "LINE",
    "RESERVED_KEYS",
    "Ranges",
    "first_outside",
    "in_ranges",
    "pattern",
    "without",
]

Ranges = tuple[tuple[int, int], ...]

LINE: Ranges = (
    (0x20, 0x7E),
    (0xA0, 0x2027),
    (0x202F, 0x205F),
    (0x2070, 0xD7FF),
    (0xF900, 0xFDCF),
    (0xFDF0, 0xFEFE),
    (0xFF00, 0xFFEF),
    (0x10000, 0x1FFFD),
    (0x20000, 0x2FFFD),
    (0x30000, 0x3FFFD),
)
"""Characters that may stand inside a line of text."""


def without(ranges: Ranges, removed: Iterable[tuple[int, int]]) -> Ranges:
    """`ranges` less the inclusive `removed` ones."""
    result = list(ranges)
    for low, high in removed:
        kept: list[tuple[int, int]] = []
        for start, end in result:
            if high < start or end < low:
                kept.append((start, end))
                continue
            if start < low:
                kept.append((start, low - 1))
            if high < end:
                kept.append((high + 1, end))
        result = kept
    return tuple(result)


# Blanks of any script (what str.strip takes away) and zero-width marks: a text neither begins nor ends with one.
_BLANK = (
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0xAD, 0xAD),
    (0x1680, 0x1680),
    (0x180E, 0x180E),
    (0x2000, 0x200F),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)

EDGE: Ranges = without(LINE, _BLANK)
"""Characters that a text may begin and end with: no blank of any kind."""

QUOTE_MARKS = ((0x22, 0x22), (0x5C, 0x5C))
COMMA = ((0x2C, 0x2C),)

# Small letters, Latin and Cyrillic (with the Ukrainian, Belarusian, Serbian … ones).
KEY_LETTERS: Ranges = ((0x61, 0x7A), (0x430, 0x45F))
KEY_FIRST: Ranges = KEY_LETTERS
KEY_REST: Ranges = ((0x5F, 0x5F), *KEY_LETTERS)

RESERVED_KEYS = ("false", "n", "no", "null", "off", "on", "true", "y", "yes")
"""Plain words that some YAML reader takes for a truth value or for nothing."""


def in_ranges(code: int, ranges: Ranges) -> bool:
    return any(low <= code <= high for low, high in ranges)


@lru_cache(maxsize=16)
def _outside(ranges: Ranges) -> re.Pattern[str]:
    return re.compile(f"[^{pattern(ranges)}]")


def first_outside(text: str, ranges: Ranges) -> str | None:
    """The first character of a text that is in none of the ranges."""
    found = _outside(ranges).search(text)
    return found[0] if found else None


def pattern(ranges: Ranges) -> str:
    """The ranges as the inside of a regular expression's class."""
    return "".join(f"{re.escape(chr(low))}-{re.escape(chr(high))}" for low, high in ranges)
