"""Scenes that others' files hold: FAISS folders, character cards, lorebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltm_edge.errors import InputError
from ltm_edge.memory.store import STORE_NAME
from ltm_edge.scene.record import Scene

__all__ = ["foreign_scenes"]


def foreign_scenes(path: Path) -> list[tuple[Scene, dict[str, Any]]] | None:
    """The scenes of a folder or file that isn't an export, with what else is known of each, as ``SceneMemory.add``
    takes it; None where the path is none of these.

    Raises:
        InputError: it is one of these and can't be taken.
    """
    if path.is_dir():
        from ltm_edge.memory.faiss_folder import META, read_folder

        if (path / STORE_NAME).exists():
            raise InputError(f"{path}: is a memory itself; import what `ltm-edge memory export` writes of it")
        if not (path / META).exists():
            raise InputError(
                f"{path}: has no {META}, so it is no FAISS folder; name one, an export or a character card"
            )
        return [(scene, {"provenance": "imported", **known}) for scene, known in read_folder(path)]
    if path.suffix.lower() in (".png", ".json"):
        from ltm_edge.memory.cards import read_lore

        return [
            (lore.scene, {"keys": lore.keys, "provenance": lore.provenance, "pinned": True}) for lore in read_lore(path)
        ]
    return None
