"""The memory over the real demo embedder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ltm_edge.bundle import Bundle
from ltm_edge.embedders import demo_embedder, demo_embedder_path
from ltm_edge.engine.embedder import Embedder
from ltm_edge.errors import BundleError
from ltm_edge.scene_memory import SceneMemory

from .conftest import scene
from .hashed import HashedEmbedder

pytestmark = pytest.mark.needs_model


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with demo_embedder() as opened:
        yield opened


TOLD = {
    "Why was my pet scared last night?": "My dog Rex hates thunderstorms.",
    "How is my running going?": "I'm training for the Berlin marathon in September.",
    "What colour are the walls?": "We painted the kitchen yellow.",
    "Who is getting married?": "My cousin's wedding is in June.",
    "Where do I keep my savings?": "I opened an account at the credit union.",
}


def test_scenes_come_back_for_other_words_of_the_same_meaning(tmp_path: Path, embedder: Embedder):
    with SceneMemory.open(tmp_path, embedder) as memory:
        for text in TOLD.values():
            memory.add(scene("I see, thanks for telling me."), text=text, session="s")
    with SceneMemory.open(tmp_path, embedder) as memory:
        for question, text in TOLD.items():
            (hit,) = memory.recall(question, 1, chain_depth=0)
            assert hit.scene.text == text, question
            assert hit.parts["meaning"] > 0.1


def test_russian_is_noticed_once_and_found_by_its_words(tmp_path: Path, embedder: Embedder):
    said: list[str] = []
    with SceneMemory.open(tmp_path, embedder, notice=said.append) as memory:
        memory.add(scene("Хорошо."), text="Мою собаку зовут Рекс.")
        memory.add(scene("Good."), text="The kettle is broken.")
        assert memory.recall("как зовут собаку", 1, chain_depth=0)[0].scene.text == "Мою собаку зовут Рекс."
        assert len(said) == 1
        assert dict(memory.stats().embedders) == {embedder.id: 1}


def test_a_memory_of_another_embedder_is_taken_over(tmp_path: Path, embedder: Embedder):
    with SceneMemory.open(tmp_path, HashedEmbedder()) as memory:
        for text in TOLD.values():
            memory.add(scene("I see."), text=text)
    with SceneMemory.open(tmp_path, embedder) as memory:
        assert memory.recall("my pet was scared", 1)[0].scene.text == "My dog Rex hates thunderstorms."
        memory.compact()
        assert dict(memory.stats().embedders) == {embedder.id: 5}
        assert memory.verify() == []


def test_the_overlay_names_the_embedder(tmp_path: Path, demo_path: Path, embedder: Embedder):
    def ids(**named: object) -> set[str]:
        config = {"ltm_overlay": {"version": 1, "name": "own", **({"embedder": named} if named else {})}}
        (tmp_path / "ltm_overlay_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with (
            Bundle.open(demo_path, ctx=256, overlay=tmp_path) as bundle,
            bundle.open_memory(tmp_path / f"memory-{len(named)}-{next(iter(named), '')}") as memory,
        ):
            memory.add(scene("Good."), text="The kettle is broken.")
            return set(memory.stats().embedders)

    assert ids() == {embedder.id}
    (tmp_path / "own.gguf").write_bytes(demo_embedder_path("Q8_0").read_bytes())
    assert len(ids(file="own.gguf") | ids(base=True) | {embedder.id}) == 3
    with pytest.raises(BundleError, match=r"gone\.gguf: the overlay's embedder is not there"):
        ids(file="gone.gguf")


def test_an_empty_memory_begins_with_the_bundles_scenes(tmp_path: Path, demo_bundle: Bundle):
    with SceneMemory.open(tmp_path / "told") as memory:
        memory.add(scene("Good."), text="The kettle is broken.")
        memory.pack(tmp_path / "brought")
    bundle = Bundle(demo_bundle.model, demo_bundle.overlay_set, "brings", memory=tmp_path / "brought")
    for _ in range(2):  # once, not again
        with bundle.open_memory(tmp_path / "own") as memory:
            assert [one.text for one in memory.scenes()] == ["The kettle is broken."]
    with SceneMemory.open(tmp_path / "other") as memory:
        memory.add(scene("Yes."), text="My dog is called Rex.")
    with bundle.open_memory(tmp_path / "other") as memory:
        assert [one.text for one in memory.scenes()] == ["My dog is called Rex."]
