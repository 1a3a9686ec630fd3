"""A scene as a picture (образ) for a terminal, in box-drawing characters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import wcwidth

from ltm_edge.scene.measure import text_width, wrap
from ltm_edge.scene.record import Scene

__all__ = ["draw"]

_LEAST, _MOST = 24, 120  # columns of a picture
_GAP = 2  # between two boxes
_BOX_LEAST, _BOX_MOST = 16, 40  # columns of an actor's box; a box alone in its row may be as wide as the picture
_ROLE_LINES, _WHO_LINES = 2, 4  # wanted; where no width gives them, texts are cut at twice as many
_CENTRE_LINES, _POLE_LINES = 3, 5
_POLE_ROOM = 8  # columns beside the centre; with less a pole stands below it

_ROLE, _WHO, _EDGE, _LEFT, _RIGHT, _CENTRE, _NAME = "2", "1", "", "1;34", "1;33", "1", "36"  # SGR codes

# What would break the line or turn the reading direction of what follows.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
_NO_TEXT = re.compile("[\ud800-\udfff\ufffe\uffff]")


class _Grid:
    """Cells of a terminal, each with a character (one cluster of code points) and its style."""

    def __init__(self) -> None:
        self._rows: list[dict[int, tuple[str, str]]] = []

    def put(self, x: int, y: int, text: str, style: str = _EDGE) -> None:
        """Write a text from a cell on."""
        while len(self._rows) <= y:
            self._rows.append({})
        row = self._rows[y]
        for cluster in wcwidth.iter_graphemes(text):
            columns = text_width(cluster)
            if columns:
                for cell in range(x, x + columns):
                    row.pop(cell, None)
                row[x] = (cluster, style)
                x += columns

    def lines(self, colour: bool) -> list[str]:
        """The rows as text, without blanks at their ends."""
        return [self._line(row, colour) for row in self._rows]

    def _line(self, row: dict[int, tuple[str, str]], colour: bool) -> str:
        out, place, current = "", 0, ""
        for x in sorted(row):
            cluster, style = row[x]
            if cluster == " ":
                continue
            out += " " * (x - place) if not current else f"\x1b[0m{' ' * (x - place)}" if x > place else ""
            current = "" if x > place else current
            if colour and style != current:
                out += ("\x1b[0m" if current else "") + (f"\x1b[{style}m" if style else "")
                current = style
            out += cluster
            place = x + text_width(cluster)
        return out + ("\x1b[0m" if current else "")


def _plain(text: str) -> str:
    """One line without what isn't text."""
    return " ".join(_NO_TEXT.sub("\ufffd", _CONTROLS.sub(" ", text)).split())


def _wide(lines: Sequence[str]) -> int:
    return max(map(text_width, lines), default=0)


def _unbroken(text: str, room: int) -> bool:
    """Whether no word has to be broken; those of wide characters may be, as everywhere."""
    return all(text_width(word) <= room for word in text.split() if text_width(word) <= len(word))


@dataclass(frozen=True, slots=True)
class _Actor:
    """An actor's words, wrapped."""

    role: list[str]
    who: list[str]

    @property
    def lines(self) -> list[tuple[str, str]]:
        return [*((line, _ROLE) for line in self.role), *((line, _WHO) for line in self.who)]


def _actors(scene: Scene, width: int) -> tuple[int, list[list[_Actor]]]:
    """Columns of a box, and the actors in rows: as many to a row as leaves every text short."""
    texts = [(_plain(role.replace("_", " ")), _plain(who)) for role, who in scene.actors]
    made: list[_Actor] = []
    per_row = 1
    for per_row in range(min(4, len(texts)), 0, -1):
        room = (width + _GAP) // per_row - _GAP
        if per_row > 1 and room < _BOX_LEAST:
            continue
        inner = (min(room, _BOX_MOST) if per_row > 1 else room) - 4
        made = [_Actor(wrap(role, inner, 2 * _ROLE_LINES), wrap(who, inner, 2 * _WHO_LINES)) for role, who in texts]
        short = all(len(one.role) <= _ROLE_LINES and len(one.who) <= _WHO_LINES for one in made)
        if short and all(_unbroken(text, inner) for pair in texts for text in pair):
            break
    box = max([_BOX_LEAST - 4, *(_wide([*one.role, *one.who]) for one in made)]) + 4
    rows = math.ceil(len(made) / per_row)
    size = math.ceil(len(made) / rows) if rows else 1
    return min(box, width), [made[start : start + size] for start in range(0, len(made), size)]


def _draw_box(grid: _Grid, left: int, top: int, width: int, lines: Sequence[tuple[str, str]], height: int) -> None:
    """A box; its lines stand in the middle of it."""
    grid.put(left, top, "╭" + "─" * (width - 2) + "╮")
    for y in range(top + 1, top + height - 1):
        grid.put(left, y, "│")
        grid.put(left + width - 1, y, "│")
    grid.put(left, top + height - 1, "╰" + "─" * (width - 2) + "╯")
    first = top + 1 + (height - 2 - len(lines)) // 2
    for i, (line, style) in enumerate(lines):
        grid.put(left + (width - text_width(line)) // 2, first + i, line, style)


def _draw_actors(grid: _Grid, scene: Scene, width: int) -> int:
    """Actors as boxes, and the line that leads from them to the centre; the row below."""
    box, rows = _actors(scene, width)
    middle, y = width // 2, 0
    centres: list[int] = []
    for row in rows:
        left = middle - (len(row) * (box + _GAP) - _GAP) // 2
        height = max(len(one.lines) for one in row) + 2
        for i, one in enumerate(row):
            _draw_box(grid, left + i * (box + _GAP), y, box, one.lines, height)
        centres = [left + i * (box + _GAP) + box // 2 for i in range(len(row))]
        y += height
    if len(rows) == 1:
        for x in centres:
            grid.put(x, y - 1, "┬")
        first, last = centres[0], centres[-1]
        joints = {**dict.fromkeys(centres, "┴"), first: "╰", last: "╯"}
    elif rows:
        wide = max(map(len, rows)) * (box + _GAP) - _GAP
        first, last = middle - wide // 2, middle - wide // 2 + wide - 1
        joints = {first: "╰", last: "╯"}
    else:
        return 0
    if first == last:
        grid.put(middle, y, "│")
        return y + 1
    joints[middle] = "┼" if joints.get(middle) == "┴" else "┬"
    grid.put(first, y, "".join(joints.get(x, "─") for x in range(first, last + 1)))
    return y + 1


def _draw_axis(grid: _Grid, scene: Scene, width: int, top: int) -> int:
    """The centre in its box on the axis, a pole at each end; the row below."""
    text = _plain(scene.resonance_center)
    lines: list[str] = []
    for inner in range(16, max(width // 2, 17), 4):
        lines = wrap(text, inner, 2 * _CENTRE_LINES)
        if len(lines) <= _CENTRE_LINES and _unbroken(text, inner):
            break
    box, height = _wide(lines) + 4, len(lines) + 2
    middle = width // 2
    left = middle - box // 2
    right = left + box - 1
    axis = top + height // 2
    _draw_box(grid, left, top, box, [(line, _CENTRE) for line in lines], height)
    if top:
        grid.put(middle, top, "┴")
    poles = [_plain(pole) for pole in scene.poles]
    grid.put(0, axis, "●" if poles[0] else "─", _LEFT if poles[0] else _EDGE)
    grid.put(1, axis, "─" * (left - 1) + "┤")
    grid.put(right, axis, "├" + "─" * (width - right - 2))
    grid.put(width - 1, axis, "●" if poles[1] else "─", _RIGHT if poles[1] else _EDGE)
    rooms, first = (left - 1, width - right - 2), axis + 1
    texts = [wrap(pole, max(room, _POLE_ROOM)) for pole, room in zip(poles, rooms, strict=True)]
    whole = min(rooms) >= _POLE_ROOM and all(map(_unbroken, poles, rooms))
    if not whole or max(map(len, texts)) > _POLE_LINES:
        texts = [wrap(pole, middle - 2, 2 * _POLE_LINES) for pole in poles]
        first = top + height
    for i, line in enumerate(texts[0]):
        grid.put(0, first + i, line, _LEFT)
    for i, line in enumerate(texts[1]):
        grid.put(width - text_width(line), first + i, line, _RIGHT)
    return max(top + height, first + max(map(len, texts)))


def _draw_archetypes(grid: _Grid, scene: Scene, width: int, top: int) -> None:
    rows = [""]
    for name in map(_plain, scene.archetype):
        label = f"‹{wrap(name, width - 2, 1)[0]}›"
        if rows[-1] and text_width(rows[-1]) + 2 + text_width(label) > width:
            rows.append("")
        rows[-1] += f"  {label}" if rows[-1] else label
    for i, row in enumerate(rows):
        grid.put(width // 2 - text_width(row) // 2, top + i, row, _NAME)


def draw(scene: Scene, width: int = 80, colour: bool = False) -> list[str]:
    """The scene as a picture in box-drawing characters, without the response.

    Actors stand in boxes that are tied to the centre; the centre lies on the axis of the tension, with a pole at each
    end; archetypes stand below. Wide characters and emoji take two columns. Texts are wrapped, and cut only where they
    are longer than such a picture can show: an actor after eight lines, the centre after six, a pole after ten.

    Args:
        scene: any scene, with empty parts too; what isn't text in it is left out.
        width: columns that the picture may take; from 24 to 120 are used.
        colour: with colours, as SGR sequences.

    Returns:
        Lines without line breaks and without blanks at their ends.
    """
    columns = min(max(width, _LEAST), _MOST)
    grid = _Grid()
    y = _draw_actors(grid, scene, columns)
    y = _draw_axis(grid, scene, columns, y)
    if scene.archetype:
        _draw_archetypes(grid, scene, columns, y + 1)
    return grid.lines(colour)
