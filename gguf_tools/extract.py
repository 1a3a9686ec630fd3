"""From a bundle back to the folder that one edits.

Converted again, with the bundle as its base, the folder gives the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_tools import keys
from gguf_tools.bundle_converter import facts_of
from gguf_tools.bundle_folder import CONFIG, FIELD, OVERLAY, is_inner_path
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.errors import BadLtmValue, BadSource, OutputExists
from gguf_tools.files import keep_permissions, remove, room_for, sync_folder, temporary_folder
from gguf_tools.printable import printable
from gguf_tools.yaml_files import load_yaml

__all__ = ["extract"]


def extract(bundle: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[str]:
    """Write a bundle's documents and sidecar files into a new folder; returns their paths, sorted.

    The LoRA isn't among them: it is part of the weights. `config.json` says which one it was, and which base.

    Args:
        bundle: the GGUF file.
        folder: the folder to make.

    Raises:
        GgufError: it is no bundle, or damaged.
        OutputExists: the folder is there.
        OSError: it can't be written.
    """
    target = Path(folder)
    if target.exists() or target.is_symlink():
        raise OutputExists(target, "is there already", remedy="choose another name")
    reader = BundleReader.open(bundle)
    if not reader.is_bundle:
        raise BadLtmValue(bundle, "is a plain model, not a bundle", remedy="name a bundle that ltm-edge convert made")
    contents: dict[str, bytes | Path] = {CONFIG: _config(reader)}
    contents |= {name: text.encode("utf-8") for name, text in reader.documents.items()}
    for inside, outside in _places(reader).items():
        if outside in contents or not is_inner_path(outside):
            raise BadLtmValue(bundle, f"its documents give '{inside}' the place '{printable(outside, 120)}'")
        contents[outside] = reader.file(inside)
    with room_for(target):
        _write_all(target, contents, bundle)
    return sorted(contents)


def _write_all(target: Path, contents: Mapping[str, bytes | Path], bundle: str | os.PathLike[str]) -> None:
    temporary: Path | None = temporary_folder(target)
    assert temporary is not None
    try:
        for name, content in contents.items():
            _write(temporary / name, content)
        keep_permissions(temporary)
        sync_folder(temporary)
        temporary.rename(target)
        temporary = None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadSource(bundle, "names one path as a file and as a folder") from error
    finally:
        remove(temporary)


def _write(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        if isinstance(content, Path):
            with content.open("rb") as source:
                while chunk := source.read(8 << 20):
                    out.write(chunk)
        else:
            out.write(content)


def _places(reader: BundleReader) -> dict[str, str]:
    """Path in the sidecar folder to path in the bundle folder. What gates alone gave is made anew from them."""
    overlay = _root(reader, OVERLAY, "ltm_overlay")
    zones = _root(reader, FIELD, "field").get("zones")
    places = {}
    for path in reader.files:
        if path == "embedder.gguf":
            entry = overlay.get("embedder")
            named = entry.get("file") if isinstance(entry, dict) else None
            places[path] = named if isinstance(named, str) else path
        elif path.startswith("channels/"):
            name = path.removeprefix("channels/").removesuffix(".gguf")
            zone = zones.get(name) if isinstance(zones, dict) else None
            named = zone.get("adapter") if isinstance(zone, dict) else None
            if isinstance(named, str):
                places[path] = named
            elif not (isinstance(zone, dict) and zone.get("head_gates")):
                places[path] = path
        else:
            places[path] = path
    return places


def _root(reader: BundleReader, name: str, key: str) -> dict[str, Any]:
    text = reader.documents.get(name)
    if text is None:
        return {}
    try:
        data = load_yaml(text.encode("utf-8"))
    except ValueError as error:
        raise BadLtmValue(reader.info.path, f"its {name} {error}") from error
    root = data.get(key) if isinstance(data, dict) else None
    return root if isinstance(root, dict) else {}


def _config(reader: BundleReader) -> bytes:
    found: dict[str, Any] = {**facts_of(reader.info)}
    made_of = (keys.LTM_BASE_NAME, keys.LTM_BASE_SHA256, keys.LTM_LORA_SHA256, keys.LTM_LORA_SCALE)
    found["made_of"] = {
        key.removeprefix(keys.LTM_PREFIX): reader.entries[key] for key in made_of if key in reader.entries
    }
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
