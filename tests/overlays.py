"""Overlays for tests: the packaged one with some of its switches thrown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ltm_edge.overlay_set import packaged_documents

# Everything that is more than one constrained answer is off, and no examples stand before it, which take longer to read
# than an answer to write.
PLAIN: dict[str, Any] = {
    "pvq": {"infer": "off"},
    "self_loop": {"enabled": False},
    "critics": {name: {"enabled": False} for name in ("insight_seeker", "obstructio", "recursia")},
    "consilium": {"enabled": "never"},
    "routing": {"inputs": False, "heads": False},
    "few_shot": 0,
}


def overlay_folder(folder: Path, changes: Mapping[str, Any]) -> Path:
    """A folder with the packaged switchboard, changed; the other files stay the packaged ones."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ltm_overlay_config.yaml").write_text(switchboard(changes), "utf-8")
    return folder


def switchboard(*changes: Mapping[str, Any]) -> str:
    """The text of the packaged switchboard, changed."""
    config = yaml.safe_load(packaged_documents()["ltm_overlay_config.yaml"])
    for one in changes:
        _merge(config["ltm_overlay"], one)
    return yaml.safe_dump(config, allow_unicode=True)


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
