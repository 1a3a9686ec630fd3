"""Text from files made safe to print: one line, no control characters, bounded."""

from __future__ import annotations

import os
import unicodedata

# Cc controls (ESC starts a terminal sequence), Cf formats (bidirectional overrides), Cs surrogates,
# Co private use, Zl and Zp line breaks. The joiners that scripts and emoji need are kept.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_KEPT = {"\u200c", "\u200d"}


def printable(text: str, limit: int = 200) -> str:
    """`text` on one line with hidden characters escaped, cut to `limit` characters."""
    cut = text[: limit + 1]
    shown = "".join(c if c in _KEPT or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in cut)
    return shown if len(cut) <= limit and len(shown) <= 2 * limit else shown[: limit - 1] + "…"


def printable_path(path: str | os.PathLike[str]) -> str:
    """A path for a message: not cut short, since the user has to find the file by it."""
    return printable(os.fspath(path), 4096)


def byte_count(number: int) -> str:
    """`number` of bytes in the unit people read: `98.4 MB` (powers of 1000, as file managers count)."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def _escape(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
