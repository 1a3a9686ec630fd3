"""What `ltm-edge inspect` shows of a bundle: lines, the map (`ltm_architect_map.yaml`), and the field as a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_tools import keys
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.printable import byte_count, printable
from ltm_edge.overlay_set import OverlaySet
from ltm_edge.schemas.field import ChannelZone, FieldArchitecture

__all__ = ["architect_map", "bundle_lines"]


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
