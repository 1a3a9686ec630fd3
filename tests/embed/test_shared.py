"""SharedEmbedder: loaded when it is needed, tried again where it could not be, and closed for good."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltm_edge import embedders
from ltm_edge.embedders import SharedEmbedder
from ltm_edge.errors import ModelError
from tests.memory.hashed import HashedEmbedder


class Hashed(HashedEmbedder):
    def close(self) -> None: ...


def test_one_that_can_not_be_loaded_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def make() -> Any:
        tried.append(True)
        if len(tried) < 3:
            raise ModelError("embedder.gguf: not there")
        return Hashed(64)

    shared = SharedEmbedder(make)
    for _ in range(3):
        with pytest.raises(ModelError, match="not there"):
            shared.embed(["a"])
    assert len(tried) == 1
    monkeypatch.setattr(embedders, "_AGAIN_S", 0.0)
    shared._until = 0.0  # a while later
    with pytest.raises(ModelError, match="not there"):
        shared.embed(["a"])
    assert np.array_equal(shared.embed(["a"]), Hashed(64).embed(["a"])) and len(tried) == 3
    shared.close()
    with pytest.raises(ModelError, match="closed"):
        shared.embed(["b"])
    assert len(tried) == 3
