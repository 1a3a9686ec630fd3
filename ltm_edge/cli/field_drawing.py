"""The field as a drawing (SVG): zones on a circle, links as arrows whose width is their weight."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape, quoteattr

from ltm_edge.overlay_set import OverlaySet
from ltm_edge.schemas.field import ChannelZone, Link, Zone

__all__ = ["field_svg"]

_DOT = 44  # radius of a zone
_BESIDE = 7  # how far a link runs beside the one the other way
_LONGEST = 12  # characters of a name; the whole one is shown where the pointer rests

# On a dark page the drawing is dark; what doesn't know the query shows the light one on its own ground.
_STYLE = """\
.ground{fill:#fff}.link{stroke:#556}.head{fill:#556}text{fill:#223}
.weight{stroke:#fff;stroke-width:6px;paint-order:stroke;stroke-linejoin:round}
circle{stroke:#99a;stroke-width:1px}.acts{stroke:#336;stroke-width:2.5px}
.channel{fill:#d9e8f5}.memory{fill:#e3f0d8}.will{fill:#f7e3d0}
@media (prefers-color-scheme:dark){
.ground{fill:#16181d}.link{stroke:#aab}.head{fill:#aab}text{fill:#e8e8ee}
.weight{stroke:#16181d}circle{stroke:#778}.acts{stroke:#cdf}
.channel{fill:#233a4d}.memory{fill:#2c4226}.will{fill:#503a26}}"""


def field_svg(loaded: OverlaySet) -> str:
    """The drawing of an overlay's field; the circle grows with the number of zones."""
    field = loaded.field
    names = list(field.zones)
    radius = max(190.0, len(names) * (2 * _DOT + 12) / (2 * math.pi))
    middle = radius + _DOT + 46
    turn = 2 * math.pi / len(names)
    places = {
        name: (middle + radius * math.sin(turn * i), middle - radius * math.cos(turn * i))
        for i, name in enumerate(names)
    }
    size = f"{2 * middle:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(_xml(loaded.overlay.name))}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="ground" width="{size}" height="{size}"/>',
    ]
    both = {(link.target, link.source) for link in field.links}
    drawn = [_link(link, places, beside=(link.source, link.target) in both) for link in field.links]
    parts += [line for line, _ in drawn]
    parts += [label for _, label in drawn]
    parts += [_zone(name, zone, *places[name]) for name, zone in field.zones.items()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _link(link: Link, places: dict[str, tuple[float, float]], *, beside: bool) -> tuple[str, str]:
    """The arrow and its weight, which stands nearer to where it comes from: the middles of many links are one point."""
    (x1, y1), (x2, y2) = places[link.source], places[link.target]
    length = math.hypot(x2 - x1, y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    if beside:
        x1, y1, x2, y2 = x1 - dy * _BESIDE, y1 + dx * _BESIDE, x2 - dy * _BESIDE, y2 + dx * _BESIDE
    x1, y1, x2, y2 = x1 + dx * _DOT, y1 + dy * _DOT, x2 - dx * (_DOT + 4), y2 - dy * (_DOT + 4)
    dash = ' stroke-dasharray="5 4"' if link.weight < 0 else ""
    line = (
        f'<line class="link" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{1 + 4 * abs(link.weight):.1f}" marker-end="url(#to)"{dash}/>'
    )
    x, y = x1 + (x2 - x1) * 0.3, y1 + (y2 - y1) * 0.3 + 4
    return line, f'<text class="weight" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{link.weight:g}</text>'


def _zone(name: str, zone: Zone, x: float, y: float) -> str:
    acts = isinstance(zone, ChannelZone) and (zone.adapter is not None or bool(zone.head_gates))
    about = _xml(f"{name}: {zone.kind}{', with an adapter' if acts else ''}")
    kind = f"{zone.kind} acts" if acts else zone.kind
    shown = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return (
        f'<g role="img" aria-label={quoteattr(about)}><title>{escape(about)}</title>'
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(_xml(shown))}</text></g>'
    )


def _xml(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)
