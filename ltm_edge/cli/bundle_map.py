"""What `ltm-edge inspect` shows of a bundle: lines, the map (`ltm_architect_map.yaml`), and the field as a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from gguf_tools import keys
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.printable import byte_count, printable
from ltm_edge.overlay_set import OverlaySet
from ltm_edge.schemas.field import ChannelZone, FieldArchitecture

__all__ = ["architect_map", "bundle_lines", "field_svg"]


def bundle_lines(reader: BundleReader, loaded: OverlaySet) -> list[tuple[str, str]]:
    """Label and value of what a bundle adds to a model; values are safe to print."""
    overlay, field = loaded.overlay, loaded.field
    critics = [name for name, critic in _critics(loaded).items() if critic["enabled"]]
    loop = f"at most {overlay.self_loop.max_passes} passes" if overlay.self_loop.enabled else "off"
    links = ", ".join(f"{link.source} -> {link.target} {link.weight:g}" for link in field.links)
    rows = [
        ("bundle", printable(reader.name or "none; the packaged overlay")),
        ("base", _made_of(reader.entries, keys.LTM_BASE_NAME, keys.LTM_BASE_SHA256)),
        ("LoRA", _lora(reader.entries)),
        ("self-loop", loop),
        ("critics", ", ".join(critics) or "none"),
        ("consilium", f"{overlay.consilium.enabled}, {overlay.consilium.channels} channels at most"),
        ("memory", f"recalls {overlay.memory.recall} scenes; {_memory(reader)}"),
        ("form", overlay.response.form),
        ("spoken", ", ".join(loaded.languages)),
        ("zones", ", ".join(f"{name} ({zone.kind})" for name, zone in field.zones.items())),
        ("links", links or "none"),
        ("templates", ", ".join(loaded.templates)),
        ("adapters", _adapters(reader)),
    ]
    if reader.folder is not None:
        rows.append(("sidecar folder", printable(str(reader.folder), 4096)))
        rows += [("", f"{path}  {byte_count(one.size)}  {one.sha256[:16]}…") for path, one in reader.files.items()]
    return rows


def architect_map(reader: BundleReader, loaded: OverlaySet) -> str:
    """The map of a bundle (`ltm_architect_map.yaml`): zones, critics, templates, adapters, and how they connect."""
    import yaml

    overlay, field = loaded.overlay, loaded.field
    info = reader.info
    found: dict[str, Any] = {
        "version": 1,
        "name": overlay.name,
        "model": {
            "name": info.text(keys.GENERAL_NAME),
            "architecture": info.architecture,
            "licence": info.text(keys.GENERAL_LICENSE),
            "base": reader.entries.get(keys.LTM_BASE_NAME),
            "base_sha256": reader.entries.get(keys.LTM_BASE_SHA256),
            "lora_sha256": reader.entries.get(keys.LTM_LORA_SHA256),
        },
        "zones": _zones(reader, field),
        "critics": _critics(loaded),
        "self_loop": {"enabled": overlay.self_loop.enabled, "max_passes": overlay.self_loop.max_passes},
        "consilium": {"enabled": overlay.consilium.enabled, "channels": overlay.consilium.channels},
        "memory": {
            "recall": overlay.memory.recall,
            "chain_depth": overlay.memory.chain_depth,
            "scenes": "memory/scenes.sqlite" if "memory/scenes.sqlite" in reader.files else None,
        },
        "templates": {
            name: {
                "about": template.about,
                "phases": list(template.phases),
                "archetypes": list(template.archetypes),
                "fields": list(template.fields),
            }
            for name, template in loaded.templates.items()
        },
        "archetypes": {
            name: {
                "names": dict(one.names),
                "templates": [t for t, template in loaded.templates.items() if name in template.archetypes],
            }
            for name, one in field.archetypes.items()
        },
        "turn": [
            "request -> pvq",
            "pvq -> field",
            "memory -> field",
            "field -> template, channels",
            "template, channels -> draft",
            *(f"draft -> {name}" for name, critic in _critics(loaded).items() if critic["enabled"]),
            *(["critics -> draft"] if overlay.self_loop.enabled else []),
            "draft -> response",
            "response -> memory",
        ],
    }
    text: str = yaml.safe_dump({"ltm_architect_map": found}, sort_keys=False, allow_unicode=True, width=110)
    return text


def field_svg(loaded: OverlaySet) -> str:
    """The field as a drawing: zones on a circle, links as arrows whose width is their weight."""
    field = loaded.field
    size, middle, radius, dot = 560, 280, 190, 44
    names = list(field.zones)
    places = {
        name: (
            middle + radius * math.sin(2 * math.pi * i / len(names)),
            middle - radius * math.cos(2 * math.pi * i / len(names)),
        )
        for i, name in enumerate(names)
    }
    colours = {"channel": "#d9e8f5", "memory": "#e3f0d8", "will": "#f7e3d0"}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(_xml(loaded.overlay.name))}</title>",
        '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{size}" height="{size}" fill="#fff"/>',
    ]
    for link in field.links:
        (x1, y1), (x2, y2) = places[link.source], places[link.target]
        length = math.hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        x1, y1, x2, y2 = x1 + dx * dot, y1 + dy * dot, x2 - dx * (dot + 4), y2 - dy * (dot + 4)
        dash = ' stroke-dasharray="5 4"' if link.weight < 0 else ""
        width = 1 + 4 * abs(link.weight)
        parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#667" '
            f'stroke-width="{width:.1f}" marker-end="url(#to)"{dash}/>'
        )
        x, y = (x1 + x2) / 2 + 6, (y1 + y2) / 2 - 4
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="#445">{link.weight:g}</text>')
    for name, zone in field.zones.items():
        x, y = places[name]
        acts = isinstance(zone, ChannelZone) and (zone.adapter is not None or zone.head_gates)
        stroke = "#336" if acts else "#99a"
        about = quoteattr(_xml(f"{name}: {zone.kind}{', with an adapter' if acts else ''}"))
        parts.append(
            f'<g role="img" aria-label={about}><circle cx="{x:.1f}" cy="{y:.1f}" r="{dot}" '
            f'fill="{colours[zone.kind]}" stroke="{stroke}" stroke-width="{2.5 if acts else 1}"/>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(_xml(_short(name)))}</text></g>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _zones(reader: BundleReader, field: FieldArchitecture) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, zone in field.zones.items():
        row: dict[str, Any] = {"kind": zone.kind}
        if isinstance(zone, ChannelZone):
            row["directive"] = sorted(zone.directive)
            row["adapter"] = f"channels/{name}.gguf" if name in reader.channels else None
            if zone.head_gates:
                row["head_gates"] = {layer: dict(heads) for layer, heads in zone.head_gates.items()}
            row["sampling"] = zone.sampling.to_dict()
        to = [{"to": link.target, "weight": link.weight} for link in field.links if link.source == name]
        if to:
            row["links"] = to
        found[name] = row
    return found


def _critics(loaded: OverlaySet) -> dict[str, dict[str, Any]]:
    critics = loaded.overlay.critics
    return {
        "INSIGHT-SEEKER": {"enabled": critics.insight_seeker.enabled, "threshold": critics.insight_seeker.threshold},
        "OBSTRUCTIO": {"enabled": critics.obstructio.enabled, "threshold": critics.obstructio.threshold},
        "RECURSIA": {"enabled": critics.recursia.enabled, "max_similarity": critics.recursia.max_similarity},
    }


def _made_of(entries: Mapping[str, str], name: str, sha256: str) -> str:
    if sha256 not in entries:
        return "-"
    return printable(f"{entries.get(name, 'unnamed')}, sha256 {entries[sha256][:16]}…")


def _lora(entries: Mapping[str, str]) -> str:
    if keys.LTM_LORA_SHA256 not in entries:
        return "none"
    scale = entries.get(keys.LTM_LORA_SCALE, "1.0")
    return printable(f"merged at scale {scale}, sha256 {entries[keys.LTM_LORA_SHA256][:16]}…")


def _memory(reader: BundleReader) -> str:
    sizes = [one.size for path, one in reader.files.items() if path.startswith("memory/")]
    return f"begins with {byte_count(sum(sizes))} in {len(sizes)} files" if sizes else "begins empty"


def _adapters(reader: BundleReader) -> str:
    found = [f"{name} ({byte_count(reader.files[f'channels/{name}.gguf'].size)})" for name in reader.channels]
    return ", ".join(found) or "none"


def _short(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"


def _xml(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)
