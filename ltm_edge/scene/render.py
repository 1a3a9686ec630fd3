"""A scene in the form that was asked for: text, YAML, JSON, a card, or an image (образ) as SVG."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from ltm_edge.scene.record import Scene

__all__ = ["card_lines", "render_form", "scene_svg", "scene_text", "wrap"]

_CARD_WIDTH = 76
_LABELS = {
    "actors": "actors",
    "tension": "tension",
    "archetype": "archetype",
    "resonance_center": "centre",
    "self_commentary": "aside",
}
_LABEL_WIDTH = max(map(len, _LABELS.values()))


def scene_text(scene: Scene) -> str:
    """The response alone, and the self-commentary below it where there is one."""
    return f"{scene.response}\n\n({scene.self_commentary})" if scene.self_commentary else scene.response


def render_form(scene: Scene, form: str, lang: str = "en") -> str:
    """The scene in one of the forms text, yaml, json, image; `auto` is text.

    Raises:
        ValueError: an unknown form.
    """
    if form in ("auto", "text", "refusal"):
        return scene_text(scene)
    if form == "yaml":
        return scene.to_yaml()
    if form == "json":
        return scene.to_json()
    if form == "image":
        return scene_svg(scene, lang)
    raise ValueError(f"unknown form {form!r}; known are auto, text, yaml, json, image, refusal")


def _cells(char: str) -> float:
    """Width of a character in columns: 0 for marks, 2 for wide ones."""
    code = ord(char)
    if unicodedata.combining(char) or code in (0x200B, 0x200C, 0x200D, 0x2060) or 0xFE00 <= code <= 0xFE0F:
        return 0.0
    return 2.0 if unicodedata.east_asian_width(char) in "WF" else 1.0


def text_width(text: str) -> float:
    """Width of a text in columns of a fixed-width font."""
    return sum(map(_cells, text))


def _cut(word: str, width: float) -> list[str]:
    """A word in pieces of at most `width` columns, one character at least."""
    pieces, start, used = [], 0, 0.0
    for i, char in enumerate(word):
        cells = _cells(char)
        if used + cells > width and i > start:
            pieces.append(word[start:i])
            start, used = i, 0.0
        used += cells
    return [*pieces, word[start:]]


def wrap(text: str, width: float, max_lines: int | None = None) -> list[str]:
    """Lines of at most `width` columns, cut at blanks where there are some and inside words where not.

    Args:
        max_lines: drop what is left after so many lines, with an ellipsis.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        indent = paragraph[: len(paragraph) - len(paragraph.lstrip(" "))][: int(width // 2)]
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else indent + word
            if text_width(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
                line = ""
            pieces = _cut(indent + word, width)
            lines.extend(pieces[:-1])
            line = pieces[-1]
        lines.append(line)
    if max_lines is not None and len(lines) > max_lines:
        lines = lines[:max_lines]
        last = lines[-1].rstrip()
        while last and text_width(last) > width - 1:
            last = last[:-1].rstrip()
        lines[-1] = last + "…"
    return lines


def card_lines(fields: Mapping[str, Any], width: int = _CARD_WIDTH) -> list[str]:
    """A scene's fields without the response, one to a row, wrapped to `width` columns.

    Args:
        fields: the scene as a mapping; it may be incomplete, with actors as pairs or as one-key mappings.
    """
    out = []
    for name, value in fields.items():
        if name == "response" or not value:
            continue
        label = _LABELS.get(name, name.replace("_", " "))
        for line in wrap(" ".join(_plain(name, value).split()), max(width - _LABEL_WIDTH - 2, 20)):
            out.append(f"{label:<{_LABEL_WIDTH}}  {line}")
            label = ""
    return out


def _plain(name: str, value: Any) -> str:
    if name == "actors":
        return " · ".join(f"{role.replace('_', ' ')}: {who}" for role, who in _pairs(value))
    if isinstance(value, str):
        return value
    return ", ".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def _pairs(value: Any) -> Iterator[tuple[str, str]]:
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, Mapping):
            yield from ((str(role), str(who)) for role, who in item.items())
        elif isinstance(item, (list, tuple)) and len(item) == 2:
            yield str(item[0]), str(item[1])


# The image ---------------------------------------------------------------------------------------------------------

_WIDTH = 840
_MARGIN = 40
# Mean advance of a sans-serif letter, in ems; wide characters count as two columns of it.
_EM = 0.56

_STYLE = """
  .paper { fill: #fbfaf7; } .ink { fill: #22252b; } .soft { fill: #5d636e; } .rule { stroke: #c9c6bd; }
  .node { fill: #ffffff; stroke: #8a8f9a; } .axis { stroke: #22252b; } .left { fill: #2f6f9f; }
  .right { fill: #b4552d; } .core { fill: #fbfaf7; stroke: #22252b; } .tie { stroke: #c9c6bd; } .tag { fill: #eceae3; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #17191e; } .ink { fill: #e9e7e1; } .soft { fill: #a2a8b4; } .rule { stroke: #3a3e47; }
    .node { fill: #20242b; stroke: #6c7380; } .axis { stroke: #e9e7e1; } .left { fill: #7db8e4; }
    .right { fill: #ef9b73; } .core { fill: #17191e; stroke: #e9e7e1; }
    .tie { stroke: #3a3e47; } .tag { fill: #2a2e36; }
  }
  text { font-family: system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
"""

_SCENE_WORD = {"en": "scene", "ru": "сцена"}


def _safe(text: str) -> str:
    """Text for XML: escaped, without the control characters and surrogates that XML can't hold."""
    kept = "".join(
        char
        for char in text
        if char in "\n\t" or (ord(char) >= 0x20 and not 0x7F <= ord(char) <= 0x9F and not 0xD800 <= ord(char) <= 0xDFFF)
    )
    return escape("".join(char for char in kept if ord(char) & 0xFFFE != 0xFFFE), quote=True)


def _lines(text: str, size: int, room: float, max_lines: int | None = None) -> list[str]:
    return wrap(text, max(room / (size * _EM), 4), max_lines)


class _Canvas:
    """Collects SVG elements."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, element: str) -> None:
        self.parts.append(f"  {element}\n")

    def text(
        self, lines: Iterable[str], x: float, y: float, size: int, *, anchor: str = "middle", kind: str = "ink",
        weight: int = 400, leading: float = 1.35,
    ) -> None:  # fmt: skip
        for i, line in enumerate(lines):
            # xml:space keeps the indentation of code.
            self.add(
                f'<text class="{kind}" x="{x:.0f}" y="{y + i * size * leading:.0f}" font-size="{size}" '
                f'font-weight="{weight}" text-anchor="{anchor}" xml:space="preserve">{_safe(line)}</text>'
            )


def _draw_actors(canvas: _Canvas, scene: Scene, top: float, meet: tuple[float, float]) -> float:
    """Actors as boxes in rows of up to four, tied to the centre; the y below them."""
    per_row = min(4, len(scene.actors)) or 1
    room = (_WIDTH - 2 * _MARGIN) / per_row
    box = min(room - 20, 240.0)
    boxes: list[tuple[float, float, float, list[str], list[str]]] = []
    y = top
    for start in range(0, len(scene.actors), per_row):
        row = scene.actors[start : start + per_row]
        left = (_WIDTH - room * len(row)) / 2
        texts = [(_lines(role.replace("_", " "), 14, box - 20, 2), _lines(who, 15, box - 20, 4)) for role, who in row]
        tall = max(len(names) * 19 + len(whos) * 20 for names, whos in texts) + 26
        for i, (names, whos) in enumerate(texts):
            boxes.append((left + room * (i + 0.5), y, float(tall), names, whos))
        y += tall + 18
    # Ties first, so that the boxes stand over them.
    for x, at, height, _, _ in boxes:
        canvas.add(
            f'<line class="tie" x1="{x:.0f}" y1="{at + height:.0f}" x2="{meet[0]:.0f}" y2="{y + meet[1]:.0f}" '
            'stroke-width="1.5"/>'
        )
    for x, at, height, names, whos in boxes:
        canvas.add(
            f'<rect class="node" x="{x - box / 2:.0f}" y="{at:.0f}" width="{box:.0f}" height="{height:.0f}" rx="12"/>'
        )
        canvas.text(names, x, at + 22, 14, kind="soft", leading=19 / 14)
        canvas.text(whos, x, at + 26 + len(names) * 19, 15, weight=600, leading=20 / 15)
    return y


def _draw_axis(canvas: _Canvas, scene: Scene, top: float) -> float:
    """The tension as an axis with a pole at each end and the centre in the middle; the y below it."""
    radius = 86.0
    middle = _WIDTH / 2
    y = top + radius
    canvas.add(
        f'<line class="axis" x1="{_MARGIN + 8}" y1="{y:.0f}" x2="{_WIDTH - _MARGIN - 8}" y2="{y:.0f}" '
        'stroke-width="2"/>'
    )
    canvas.add(f'<circle class="left" cx="{_MARGIN + 8}" cy="{y:.0f}" r="8"/>')
    canvas.add(f'<circle class="right" cx="{_WIDTH - _MARGIN - 8}" cy="{y:.0f}" r="8"/>')
    room = middle - radius - _MARGIN - 24
    first, second = scene.poles
    below = 0
    for pole, x, anchor, kind in (
        (first, _MARGIN, "start", "left"),
        (second, _WIDTH - _MARGIN, "end", "right"),
    ):
        lines = _lines(pole, 17, room, 5)
        below = max(below, len(lines))
        canvas.text(lines, x, y + 36, 17, anchor=anchor, kind=kind, weight=600)
    canvas.add(f'<circle class="core" cx="{middle:.0f}" cy="{y:.0f}" r="{radius:.0f}" stroke-width="2"/>')
    center = _lines(scene.resonance_center, 15, radius * 1.45, 5)
    canvas.text(center, middle, y + 5 - (len(center) - 1) * 10, 15, weight=600, leading=20 / 15)
    return y + max(radius, 36 + below * 23)


def _draw_archetypes(canvas: _Canvas, scene: Scene, top: float) -> float:
    rows: list[list[tuple[str, float]]] = [[]]
    for name in scene.archetype:
        label = _lines(name, 14, _WIDTH - 2 * _MARGIN - 40, 1)[0]
        width = text_width(label) * 14 * _EM + 28
        if rows[-1] and sum(w + 12 for _, w in rows[-1]) + width > _WIDTH - 2 * _MARGIN:
            rows.append([])
        rows[-1].append((label, width))
    y = top
    for row in rows:
        x = (_WIDTH - sum(w for _, w in row) - 12 * (len(row) - 1)) / 2
        for label, width in row:
            canvas.add(f'<rect class="tag" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="28" rx="14"/>')
            canvas.text([label], x + width / 2, y + 19, 14)
            x += width + 12
        y += 38
    return y


def scene_svg(scene: Scene, lang: str = "en") -> str:
    """The scene as a picture (образ): actors, the tension as an axis, the centre, archetypes, the response.

    One SVG 1.1 document, 840 units wide, as high as its text needs; follows the viewer's light or dark scheme; holds
    no scripts, links or fonts.
    """
    canvas = _Canvas()
    y = _draw_actors(canvas, scene, _MARGIN, (_WIDTH / 2, 24.0 + 10.0))
    y = _draw_axis(canvas, scene, y + 24)
    y = _draw_archetypes(canvas, scene, y + 26)
    canvas.add(
        f'<line class="rule" x1="{_MARGIN}" y1="{y + 6:.0f}" x2="{_WIDTH - _MARGIN}" y2="{y + 6:.0f}" '
        'stroke-width="1"/>'
    )
    y += 38
    response = _lines(scene.response, 16, _WIDTH - 2 * _MARGIN, 200)
    canvas.text(response, _MARGIN, y, 16, anchor="start", leading=24 / 16)
    y += len(response) * 24
    if scene.self_commentary:
        remark = _lines(scene.self_commentary, 14, _WIDTH - 2 * _MARGIN, 20)
        canvas.text(remark, _MARGIN, y + 8, 14, anchor="start", kind="soft", leading=20 / 14)
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
