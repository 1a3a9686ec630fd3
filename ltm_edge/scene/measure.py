"""How much room a text takes: columns of a terminal, ems of a sans-serif font; and wrapping by either."""

from __future__ import annotations

from collections.abc import Callable

import wcwidth

__all__ = ["Measure", "ems", "text_width", "wrap"]

Measure = Callable[[str], float]
"""Gives the width of a text in the unit that it is wrapped by."""


def text_width(text: str) -> int:
    """Width of a text in columns of a terminal: 0 for marks, 2 for wide characters and emoji."""
    return int(wcwidth.width(text, control_codes="ignore"))


# Advances of DejaVu Sans, which is wider than the other fonts of the picture, so that what fits there fits anywhere.
_ADVANCES = {
    char: advance
    for advance, chars in (
        (0.32, " ijl.,'|"),
        (0.36, ":;"),
        (0.42, "frtI()[]-/\\!·"),
        (0.47, '"'),
        (0.72, "ABCDEFJKLPRSTUVXYZАБВГЕЗКРСТУХЧЬЭц"),
        (0.77, "NHИЙЛНП"),
        (0.84, "GOQUDОДЦЯдъ+=<>~^_#Ъ"),
        (0.92, "wмюыфЫ&"),
        (1.00, "mMWжшщМФ@%—…→"),
        (1.18, "ЖШЩЮ№"),
    )
    for char in chars
}
_LETTER = 0.635
_WIDE = 1.0
_EMOJI = 1.3
_BOLD = 1.13


def ems(text: str, bold: bool = False) -> float:
    """Width of a text in a sans-serif font, in ems; rather too much than too little."""
    total = 0.0
    for cluster in wcwidth.iter_graphemes(text):
        advance = _ADVANCES.get(cluster)
        if advance is None:
            columns, first = text_width(cluster), cluster[0]
            if columns > 1:
                advance = _EMOJI if first >= "\U0001f000" else _WIDE
            else:
                advance = _ADVANCES.get(first, _LETTER) if columns else 0.0  # a letter with its marks
        total += advance
    return total * _BOLD if bold else total


def wrap(text: str, width: float, max_lines: int | None = None, measure: Measure = text_width) -> list[str]:
    """Lines of at most `width`, cut at blanks where there are some and inside words where not, never in a character.

    Args:
        text: one paragraph a line; indents are kept up to half of the width.
        width: in the measure's unit.
        max_lines: drop what is left after so many lines, with an ellipsis.
        measure: of a text; by default columns of a terminal.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        indent = paragraph[: len(paragraph) - len(paragraph.lstrip(" "))]
        while indent and measure(indent) > width / 2:
            indent = indent[:-1]
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else indent + word
            if measure(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
                if measure(word) <= width:
                    line = word
                    continue
            pieces = _cut(word if line else indent + word, width, measure)
            lines.extend(pieces[:-1])
            line = pieces[-1]
        lines.append(line)
    if max_lines is not None and len(lines) > max_lines:
        lines = lines[:max_lines]
        lines[-1] = _shortened(lines[-1], width, measure)
    return lines


def _cut(word: str, width: float, measure: Measure) -> list[str]:
    """A word in pieces of at most `width`, one character at least."""
    pieces, piece, used = [], "", 0.0
    for cluster in wcwidth.iter_graphemes(word):
        room = measure(cluster)
        if used + room > width and piece:
            pieces.append(piece)
            piece, used = "", 0.0
        piece += cluster
        used += room
    return [*pieces, piece]


def _shortened(line: str, width: float, measure: Measure) -> str:
    clusters = list(wcwidth.iter_graphemes(line.rstrip()))
    while clusters and measure("".join(clusters).rstrip() + "…") > width:
        clusters.pop()
    return "".join(clusters).rstrip() + "…"
