from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory

from .hashed import HashedEmbedder


def scene(
    response: str, center: str = "an ordinary day", tension: str = "work vs rest", archetype: str = "host"
) -> Scene:
    return Scene((("you", "guest"),), tension, (archetype,), center, response)


Opener = Callable[..., SceneMemory]


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    """Opens memories of one folder with the hashed embedder, and closes them at the end."""
    opened: list[SceneMemory] = []

    def open_(folder: Path | None = None, embedder: object = None, **options: object) -> SceneMemory:
        made = SceneMemory.open(folder or tmp_path / "memory", embedder or HashedEmbedder(), **options)
        opened.append(made)
        return made

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def memory(opener: Opener) -> SceneMemory:
    return opener()
