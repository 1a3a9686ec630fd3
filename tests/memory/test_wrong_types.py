"""What isn't text, a scene or an id is refused in words, and not by whatever it meets first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltm_edge.engine.options import EngineOptions
from ltm_edge.errors import InputError
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene_memory import SceneMemory

from .conftest import scene

NOT_TEXT: list[Any] = [b"x", 0, True, 1.5, float("nan"), [], {}, object(), np.float32(1)]
NOT_IDS: list[Any] = [None, b"x", "", "seven", 1.5, float("nan"), float("inf"), 10**30, [], object()]


@pytest.mark.parametrize("value", NOT_TEXT)
def test_not_a_text(memory: SceneMemory, value: Any) -> None:
    for call in (
        lambda: Pvq.from_text(value),
        lambda: memory.recall(value),
        lambda: memory.recall("roses", will=value),
        lambda: memory.add(scene("The roses want water."), text=value),
        lambda: memory.add(value),
        lambda: memory.forget(query=value),
    ):
        with pytest.raises(InputError):
            call()
    assert memory.scenes() == []


@pytest.mark.parametrize("value", NOT_IDS)
def test_not_an_id(memory: SceneMemory, value: Any) -> None:
    for call in (
        lambda: memory.chain(value),
        lambda: memory.pin(value),
        lambda: memory.edit(value, text="x"),
        lambda: memory.forget(value),
        lambda: memory.strengthen([value]),
    ):
        with pytest.raises(InputError):
            call()


def test_ids_of_other_whole_number_types_count(memory: SceneMemory) -> None:
    number = memory.add(scene("The roses want water.")).id
    assert memory.chain(np.int64(number)).scenes[0].id == number


@pytest.mark.parametrize("name", ["gpu_layers", "threads", "ctx", "flash_attn", "kv_type"])
@pytest.mark.parametrize("value", [b"x", 1.5, float("nan"), [], {}, np.array([1, 2]), "x" * 100_000])
def test_not_an_option(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        EngineOptions(**{name: value})
    assert str(caught.value).startswith(f"{name}: expected") and len(str(caught.value)) < 200
