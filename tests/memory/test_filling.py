"""Embedding what lacks vectors: in batches, between which others have their turn, and from which one can leave."""

from __future__ import annotations

import threading

import pytest

from ltm_edge.errors import Cancelled
from ltm_edge.memory.vectors import BATCH

from .conftest import Opener, scene
from .hashed import HashedEmbedder

SCENES = 3 * BATCH + 5


@pytest.fixture
def old(opener: Opener) -> None:
    """A memory made with another embedder."""
    with opener(embedder=HashedEmbedder(name="before")) as memory:
        for i in range(SCENES):
            memory.add(scene(f"Reply {i}."), text=f"topic{i} happened")


def test_who_leaves_goes_on_there_the_next_time(old: None, opener: Opener):
    def leave(done: int, todo: int) -> None:
        assert todo == SCENES
        if done == 2 * BATCH:
            raise Cancelled("left")

    with opener(fill=False) as memory:
        with pytest.raises(Cancelled):
            memory.fill(leave)
        assert memory.stats().unembedded == 0  # the old vectors are there until a compact
    with opener(fill=False) as memory:
        assert memory.fill() == SCENES - 2 * BATCH
        assert memory.fill() == 0 and memory.verify() == []


def test_a_recall_does_not_wait_for_the_rest(old: None, opener: Opener):
    reached, answered = threading.Event(), threading.Event()

    def wait(done: int, todo: int) -> None:
        reached.set()
        assert answered.wait(300)

    with opener(fill=False) as memory:
        thread = threading.Thread(target=lambda: memory.fill(wait))
        thread.start()
        assert reached.wait(300)
        try:
            first, last = (
                {hit.scene.text: hit.parts for hit in memory.recall(query, 8, chain_depth=0, budget_tokens=0)}
                for query in ("topic3", f"topic{SCENES - 1}")
            )
        finally:
            answered.set()
            thread.join()
        assert first["topic3 happened"]["meaning"] > 0.3
        by_words = last[f"topic{SCENES - 1} happened"]
        assert by_words["meaning"] == 0 and by_words["words"] == 1
        assert memory.add(scene("A."), text="one more").status == "added" and memory.verify() == []


def test_summaries_without_vectors_get_them_and_their_sagas_later(opener: Opener):
    with opener() as memory:
        for session in "ab":
            for i in range(4):
                memory.add(scene(f"Reply {i}."), text=f"the garden beans, day {session}{i}", session=session)
        arcs = memory.consolidate(embed=False)
        assert [one.level for one in arcs] == [1, 1] and memory.stats().unembedded == 2
        assert memory.consolidate(embed=False) == []
        assert memory.fill() == 2
        assert [one.level for one in memory.consolidate()] == [2] and memory.verify() == []
