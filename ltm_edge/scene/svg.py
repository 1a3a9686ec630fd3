"""A scene as a picture (образ) in SVG."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from ltm_edge.scene.measure import ems, wrap
from ltm_edge.scene.record import Scene

__all__ = ["scene_svg"]

_WIDTH = 840
_MARGIN = 40
_MIDDLE = _WIDTH / 2

_STYLE = """
  .paper { fill: #fbfaf7; } .ink { fill: #22252b; } .soft { fill: #5d636e; } .rule { stroke: #c9c6bd; }
  .node { fill: #ffffff; stroke: #8a8f9a; } .axis { stroke: #22252b; } .left { fill: #2f6f9f; }
  .right { fill: #b4552d; } .core { fill: #fbfaf7; stroke: #22252b; } .tie { fill: none; stroke: #c9c6bd; }
  .tag { fill: #eceae3; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #17191e; } .ink { fill: #e9e7e1; } .soft { fill: #a2a8b4; } .rule { stroke: #3a3e47; }
    .node { fill: #20242b; stroke: #6c7380; } .axis { stroke: #e9e7e1; } .left { fill: #7db8e4; }
    .right { fill: #ef9b73; } .core { fill: #17191e; stroke: #e9e7e1; } .tie { stroke: #4a4f5a; }
    .tag { fill: #2a2e36; }
  }
  text { font-family: system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
"""

_SCENE_WORD = {"en": "scene", "ru": "сцена"}

_ROLE, _WHO, _POLE, _CENTRE, _TAG, _BODY, _REMARK = 14, 15, 17, 15, 14, 16, 14  # font sizes
_BOXES = (240.0, 360.0, 720.0)  # widths of actors' boxes, the first in which all texts are short enough
_BOX_LINES = 5
_RADII = (72.0, 86.0, 104.0, 122.0)  # of the centre; a longer text stands in a box
_CENTRE_BOX = 400.0
_POLE_LINES = 6  # of a pole beside the centre; a longer one stands below it
_BODY_LINES = 1200


def _safe(text: str) -> str:
    """Text for XML: escaped, without the control characters and surrogates that XML can't hold."""
    kept = "".join(
        char
        for char in text
        if char in "\n\t" or (ord(char) >= 0x20 and not 0x7F <= ord(char) <= 0x9F and not 0xD800 <= ord(char) <= 0xDFFF)
    )
    return escape("".join(char for char in kept if ord(char) & 0xFFFE != 0xFFFE), quote=True)


def _lines(text: str, size: int, room: float, max_lines: int | None = None, bold: bool = False) -> list[str]:
    """Lines of a font size (units) that fit into so much room (units)."""
    return wrap(text, max(room / size, 3.0), max_lines, functools.partial(ems, bold=bold))


class _Canvas:
    """Collects SVG elements."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, element: str) -> None:
        self.parts.append(f"  {element}\n")

    def rect(self, kind: str, x: float, y: float, width: float, height: float, corner: float) -> None:
        self.add(
            f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="{corner:.0f}" '
            f'stroke-width="{2 if kind == "core" else 1}"/>'
        )

    def line(self, kind: str, x1: float, y1: float, x2: float, y2: float, stroke: float) -> None:
        self.add(
            f'<line class="{kind}" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke-width="{stroke:g}"/>'
        )

    def text(
        self, lines: Iterable[str], x: float, y: float, size: int, *, leading: int, anchor: str = "middle",
        kind: str = "ink", weight: int = 400,
    ) -> None:  # fmt: skip
        """Lines of text; `y` is the base of the first, `leading` the distance between two."""
        for i, line in enumerate(lines):
            # xml:space keeps the indentation of code.
            self.add(
                f'<text class="{kind}" x="{x:.0f}" y="{y + i * leading:.0f}" font-size="{size}" '
                f'font-weight="{weight}" text-anchor="{anchor}" xml:space="preserve">{_safe(line)}</text>'
            )


@dataclass(frozen=True, slots=True)
class _Actor:
    """An actor's words, wrapped."""

    role: list[str]
    who: list[str]

    @property
    def height(self) -> int:
        return len(self.role) * 19 + len(self.who) * 20


def _actors(scene: Scene) -> tuple[float, list[list[_Actor]]]:
    """Width of the boxes, and the actors in rows: as many to a row as leaves every text short."""
    made: list[_Actor] = []
    box, per_row = _BOXES[0], 1
    for per_row in range(min(4, len(scene.actors)), 0, -1):
        room = (_WIDTH - 2 * _MARGIN) / per_row - 20
        for box in sorted({min(width, room) for width in _BOXES}):
            made = [
                _Actor(_lines(role.replace("_", " "), _ROLE, box - 24), _lines(who, _WHO, box - 24, bold=True))
                for role, who in scene.actors
            ]
            if all(len(one.who) <= _BOX_LINES and len(one.role) <= 2 for one in made):
                break
        else:
            continue
        break
    rows = math.ceil(len(made) / per_row)
    size = math.ceil(len(made) / rows) if rows else 1
    return box, [made[start : start + size] for start in range(0, len(made), size)]


def _draw_actors(canvas: _Canvas, scene: Scene, top: float, meet: float) -> float:
    """Actors as boxes tied to the centre, whose top is `meet` below them; several rows are tied as one group."""
    box, rows = _actors(scene)
    y = top
    boxes: list[tuple[float, float, float, _Actor]] = []
    for row in rows:
        room = box + 20
        left = (_WIDTH - room * len(row)) / 2
        tall = max(one.height for one in row) + 22.0
        boxes += [(left + room * (i + 0.5), y, tall, one) for i, one in enumerate(row)]
        y += tall + 20
    y -= 20 if rows else 0
    # Ties first, so that the boxes stand over them.
    if len(rows) > 1:
        wide = (box + 20) * max(map(len, rows)) - 20 + 28
        canvas.rect("tie", (_WIDTH - wide) / 2, top - 14, wide, y - top + 28, 20)
        y += 14
        canvas.line("tie", _MIDDLE, y, _MIDDLE, y + meet, 1.5)
    else:
        for x, _, tall, _ in boxes:
            canvas.line("tie", x, top + tall, _MIDDLE, y + meet + 12, 1.5)
    for x, at, tall, one in boxes:
        canvas.rect("node", x - box / 2, at, box, tall, 12)
        base = at + (tall - one.height) / 2
        canvas.text(one.role, x, base + 14, _ROLE, leading=19, kind="soft")
        canvas.text(one.who, x, base + len(one.role) * 19 + 15, _WHO, leading=20, weight=600)
    return y + meet


def _longest(text: str, size: int) -> float:
    """Width of the longest word in bold, units."""
    return max((ems(word, bold=True) * size for word in text.split()), default=0.0)


@dataclass(frozen=True, slots=True)
class _Centre:
    """The centre's words and what they stand in: a circle, or a box where they are many.

    `half` and `tall` are half of its width and height.
    """

    lines: list[str]
    half: float
    tall: float
    round: bool


def _centre(scene: Scene) -> _Centre:
    text = scene.resonance_center
    longest = _longest(text, _CENTRE)
    for radius in _RADII:
        for count in range(1, int(radius / 10)):
            high = count * 10 + 4
            room = 2 * math.sqrt(radius**2 - high**2) - 16 if high < radius else 0
            if room < longest:
                break
            lines = _lines(text, _CENTRE, room, bold=True)
            if len(lines) <= count:
                return _Centre(lines, radius, radius, True)
    lines = _lines(text, _CENTRE, _CENTRE_BOX - 32, bold=True)
    half = max(ems(line, bold=True) for line in lines) * _CENTRE / 2 + 18
    return _Centre(lines, half, len(lines) * 10 + 18.0, False)


def _draw_axis(canvas: _Canvas, scene: Scene, centre: _Centre, top: float) -> float:
    """The tension as an axis with a pole at each end and the centre in the middle; the y below it."""
    y = top + centre.tall
    ends = (_MARGIN + 8, _WIDTH - _MARGIN - 8)
    canvas.line("axis", ends[0], y, ends[1], y, 2)
    poles = scene.poles
    beside = _MIDDLE - centre.half - _MARGIN - 20
    texts = [_lines(pole, _POLE, beside, bold=True) if pole else [] for pole in poles]
    base = y + 36
    if max(map(len, texts)) > _POLE_LINES or max(_longest(pole, _POLE) for pole in poles) > beside:
        texts = [_lines(pole, _POLE, _MIDDLE - _MARGIN - 20, bold=True) if pole else [] for pole in poles]
        base = y + centre.tall + 30
    for lines, x, edge, anchor, kind in zip(
        texts, ends, (_MARGIN, _WIDTH - _MARGIN), ("start", "end"), ("left", "right"), strict=True
    ):
        if lines:
            canvas.add(f'<circle class="{kind}" cx="{x}" cy="{y:.0f}" r="8"/>')
        canvas.text(lines, edge, base, _POLE, leading=23, anchor=anchor, kind=kind, weight=600)
    if centre.round:
        canvas.add(f'<circle class="core" cx="{_MIDDLE:.0f}" cy="{y:.0f}" r="{centre.half:.0f}" stroke-width="2"/>')
    else:
        canvas.rect("core", _MIDDLE - centre.half, top, 2 * centre.half, 2 * centre.tall, 18)
    canvas.text(centre.lines, _MIDDLE, y + 5 - (len(centre.lines) - 1) * 10, _CENTRE, leading=20, weight=600)
    return max(y + centre.tall, base + (max(map(len, texts)) - 1) * 23 + 6)


def _draw_archetypes(canvas: _Canvas, scene: Scene, top: float) -> float:
    room = _WIDTH - 2 * _MARGIN
    rows: list[list[tuple[list[str], float]]] = [[]]
    for name in scene.archetype:
        lines = _lines(name, _TAG, room - 40)
        width = max(ems(line) for line in lines) * _TAG + 28
        if rows[-1] and sum(w + 12 for _, w in rows[-1]) + width > room:
            rows.append([])
        rows[-1].append((lines, width))
    y = top
    for row in rows:
        x = (_WIDTH - sum(w for _, w in row) - 12 * (len(row) - 1)) / 2
        tall = max((len(lines) for lines, _ in row), default=0) * 18 + 10
        for lines, width in row:
            canvas.rect("tag", x, y, width, tall, 14)
            canvas.text(lines, x + width / 2, y + 19, _TAG, leading=18)
            x += width + 12
        y += tall + 10
    return y


def scene_svg(scene: Scene, lang: str = "en") -> str:
    """The scene as a picture (образ): actors, the tension as an axis, the centre, archetypes, the response.

    One SVG 1.1 document, 840 units wide, as high as its text needs; follows the viewer's light or dark scheme; holds
    no scripts, links or fonts. Texts are wrapped; only a response of more than 1200 lines is cut.
    """
    canvas = _Canvas()
    y = _draw_actors(canvas, scene, _MARGIN, 34.0) if scene.actors else float(_MARGIN)
    y = _draw_axis(canvas, scene, _centre(scene), y)
    y = _draw_archetypes(canvas, scene, y + 26)
    canvas.line("rule", _MARGIN, y + 6, _WIDTH - _MARGIN, y + 6, 1)
    y += 38
    response = _lines(scene.response, _BODY, _WIDTH - 2 * _MARGIN, _BODY_LINES)
    canvas.text(response, _MARGIN, y, _BODY, leading=24, anchor="start")
    y += len(response) * 24
    if scene.self_commentary:
        remark = _lines(scene.self_commentary, _REMARK, _WIDTH - 2 * _MARGIN)
        canvas.text(remark, _MARGIN, y + 8, _REMARK, leading=20, anchor="start", kind="soft")
        y += len(remark) * 20 + 8
    height = math.ceil(y + _MARGIN - 16)
    first, second = scene.poles
    title = f"{_SCENE_WORD.get(lang, 'scene')}: {first} ⟷ {second}" if second else _SCENE_WORD.get(lang, "scene")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" xml:lang="{_safe(lang)}">\n'
        f"  <title>{_safe(title)}</title>\n  <desc>{_safe(scene.resonance_center)}</desc>\n"
        f"  <style>{_STYLE}  </style>\n"
        f'  <rect class="paper" width="{_WIDTH}" height="{height}"/>\n' + "".join(canvas.parts) + "</svg>\n"
    )
