"""A memory of thousands of scenes to recall from, made in seconds: texts joined of two others, vectors of theirs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.memory.protocols import Embedder, Floats
from ltm_edge.overlay_set import OverlaySet
from ltm_edge.scene_memory import SceneMemory

__all__ = ["JoinedEmbedder", "fill_memory", "joined_scenes"]

_LANG = "en"
_JOINTS = ("and", "because", "although", "while", "since", "so", "but")
_FIRST = datetime(2020, 1, 1, tzinfo=timezone.utc)
_BETWEEN = timedelta(hours=5)
_SESSION = 20  # scenes of one


class JoinedEmbedder:
    """Gives a text that was joined of two others the sum of their vectors, cut to length 1, so it needn't be embedded.

    Such a vector lies where the text's own would: nearer to either part than to anything else.
    """

    def __init__(self, embedder: Embedder, pairs: dict[str, tuple[str, str]]) -> None:
        """Take what embeds the parts (and any other text), and the parts of each text."""
        self._embedder = embedder
        self._pairs = pairs
        self._known: dict[str, Floats] = {}

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self._embedder.dim

    @property
    def id(self) -> str:
        """Name of the vector space: the embedder's own."""
        return self._embedder.id

    def covers(self, text: str, /) -> bool:
        """Whether its vocabulary can represent the text: what is joined here is English."""
        return True

    def embed(self, texts: list[str], /) -> Floats:
        """Vectors of the texts, float32 [n, dim]."""
        parts = [part for text in texts for part in self._pairs.get(text, (text,))]
        new = [part for part in dict.fromkeys(parts) if part not in self._known]
        if new:
            self._known.update(zip(new, self._embedder.embed(new), strict=True))
        rows: Floats = np.stack([sum(self._known[part] for part in self._pairs.get(text, (text,))) for text in texts])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def joined_scenes(
    overlay: OverlaySet, count: int, seed: int = 0
) -> tuple[list[dict[str, Any]], dict[str, tuple[str, str]]]:
    """Scenes as an export of a memory holds them, from the overlay's anchors and examples, no text twice.

    Returns:
        The scenes, and the two parts of each joined text.
    """
    templates = overlay.templates.values()
    said = sorted({text for template in templates for text in template.anchors.get(_LANG, ())})
    shown = [one.scene for template in templates for one in template.examples.get(_LANG, ())]
    lines = {line for scene in shown for line in scene.response.split("\n")}
    answers = sorted(line for line in lines if line and not line.startswith(" "))  # indented is code
    random = np.random.default_rng(seed)
    pairs: dict[str, tuple[str, str]] = {}

    def joined(parts: Sequence[str], mark: str) -> str:
        while True:
            first, second = (parts[int(i)] for i in random.choice(len(parts), size=2, replace=False))
            text = f"{first}{mark}{second}"
            if text not in pairs:
                pairs[text] = (first, second)
                return text
            mark += "again, "  # so that there is always one more

    scenes = []
    for number in range(count):
        example = shown[int(random.integers(len(shown)))]
        created = (_FIRST + number * _BETWEEN).isoformat(timespec="microseconds")
        text = joined(said, f" {_JOINTS[number % len(_JOINTS)]} ")
        scenes.append(
            {
                "kind": "scene",
                "uid": hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=16).hexdigest(),
                "level": "scene",
                "created": created,
                "session": f"made-{number // _SESSION}",
                "template": "",
                "phase": None,
                "provenance": "",
                "strength": 0.0,
                "strengthened": created,
                "pinned": False,
                "echo": False,
                "text": text,
                "scene": {**example.to_dict(), "response": joined(answers, "\n")},
            }
        )
    return scenes, pairs


def fill_memory(folder: Path, overlay: OverlaySet, embedder: Embedder, count: int) -> None:
    """Make a memory of ``count`` scenes in a folder that has none.

    Raises:
        MemoryStoreError: it can't be written.
    """
    scenes, pairs = joined_scenes(overlay, count)
    lines = [json.dumps(one) for one in ({"format": "ltm-memory", "version": 1}, *scenes)]
    with SceneMemory.open(folder, JoinedEmbedder(embedder, pairs)) as memory:
        memory.import_(io.BytesIO("\n".join(lines).encode()), name="<made>")
        memory.recall(scenes[0]["text"])  # builds the index, which is saved with the memory
