"""The graph of a memory as DOT (for Graphviz) or as a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ltm_edge.memory.records import LEVELS, Link, StoredScene, to_iso

__all__ = ["graph_dot", "graph_svg"]

_LABEL = 28
_STEP_X, _STEP_Y, _MARGIN = 120, 110, 60
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLES = {"predecessor": "solid", "recalled": "dotted", "part_of": "dashed", "supersedes": "bold"}


def _label(scene: StoredScene) -> str:
    plain = " ".join((scene.text or scene.scene.resonance_center).split())
    return plain if len(plain) <= _LABEL else plain[: _LABEL - 1] + "…"


def graph_dot(scenes: Sequence[StoredScene], links: Sequence[Link]) -> str:
    """Scenes and links in the language of Graphviz."""
    shapes = ("ellipse", "box", "doubleoctagon")
    known = {one.id for one in scenes}
    out = ["digraph memory {", "  rankdir=LR;"]
    for one in scenes:
        text = f"{one.id}: {_label(one)}".replace("\\", "\\\\").replace('"', '\\"')
        colour = ", color=gray" if one.superseded_by is not None else ""
        out.append(f'  s{one.id} [label="{text}", shape={shapes[one.level]}{colour}];')
    for link in links:
        if link.source in known and link.target in known:
            out.append(f'  s{link.source} -> s{link.target} [style={_STYLES[link.kind]}, tooltip="{link.kind}"];')
    return "\n".join([*out, "}", ""])


def _xml(text: str) -> str:
    plain = _NOT_XML.sub("\ufffd", text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def graph_svg(scenes: Sequence[StoredScene], links: Sequence[Link]) -> str:
    """Scenes and links as one SVG 1.1 document: a row per session in time's order, arcs and sagas above their scenes.

    Holds no scripts, links or fonts.
    """
    ordered = sorted(scenes, key=lambda one: (one.created, one.id))
    rows = {name: i for i, name in enumerate(dict.fromkeys((one.level, one.session) for one in ordered))}
    lanes = {key: i for i, key in enumerate(sorted(rows, key=lambda key: (-key[0], rows[key])))}
    places: dict[int, tuple[int, int]] = {}
    used: dict[int, int] = {}
    for one in ordered:
        lane = lanes[one.level, one.session]
        column = used.get(lane, 0)
        used[lane] = column + 1
        places[one.id] = (_MARGIN + 60 + column * _STEP_X, _MARGIN + lane * _STEP_Y)
    width = 2 * _MARGIN + max(used.values(), default=1) * _STEP_X
    height = 2 * _MARGIN + max(1, len(lanes)) * _STEP_Y
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "  <style>text{font:12px sans-serif}.p{stroke:#557}.r{stroke:#9a6;stroke-dasharray:2 4}"
        ".a{stroke:#a55;stroke-dasharray:6 4}.s{stroke:#d80}circle,rect{fill:#eef;stroke:#334}.old{opacity:.4}</style>",
    ]
    kinds = {"predecessor": "p", "recalled": "r", "part_of": "a", "supersedes": "s"}
    for link in links:
        if link.source in places and link.target in places:
            (x1, y1), (x2, y2) = places[link.source], places[link.target]
            out.append(f'  <line class="{kinds[link.kind]}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for one in ordered:
        x, y = places[one.id]
        old = ' class="old"' if one.superseded_by is not None else ""
        title = f"{LEVELS[one.level]} {one.id}, {to_iso(one.created)[:16]}: {one.scene.tension}"
        shape = (
            f'<circle cx="{x}" cy="{y}" r="14"/>'
            if one.level == 0
            else f'<rect x="{x - 20}" y="{y - 14}" width="40" height="28" rx="5"/>'
        )
        out.append(
            f'  <g{old}><title>{_xml(title)}</title>{shape}<text x="{x}" y="{y + 4}" text-anchor="middle">{one.id}'
            f'</text><text x="{x}" y="{y + 32}" text-anchor="middle">{_xml(_label(one)[:18])}</text></g>'
        )
    return "\n".join([*out, "</svg>", ""])
