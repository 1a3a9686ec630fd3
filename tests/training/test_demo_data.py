"""The demo bundle's training data: sound, balanced, and nothing told twice."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.bundle import load_overlay
from ltm_edge.errors import SchemaError
from ltm_edge.grammar import Grammar
from ltm_edge.schemas.stories import Story, parse_stories
from ltm_edge.schemas.template import scene_document
from ltm_edge.training.stories import PARTS, frozen_hash, load_stories, part_of

FOLDER = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m"
OVERLAY = load_overlay(FOLDER)
NAMES = OVERLAY.archetype_names()


@pytest.fixture(scope="module")
def english() -> tuple[Story, ...]:
    return load_stories(FOLDER / "data" / "stories", OVERLAY.templates, NAMES)


@pytest.fixture(scope="module")
def russian() -> tuple[Story, ...]:
    return load_stories(FOLDER / "data" / "stories-ru", OVERLAY.templates, NAMES)


def told(stories):
    return [(story, scene) for story in stories for scene in story.scenes]


def test_there_is_enough_of_it_and_of_every_kind(english, russian):
    scenes = told(english)
    phases = Counter(scene.pvq.phase for _, scene in scenes)
    archetypes = Counter(name for _, scene in scenes for name in scene.scene.archetype)
    assert len(scenes) >= 900
    assert sum(len(story.scenes) in range(3, 7) for story in english) >= 120
    assert min(phases.values()) > 0.6 * max(phases.values()) and len(phases) == 4, phases
    assert sum(count >= 30 for count in archetypes.values()) >= 12, archetypes
    assert len({story.matter for story in english}) >= 12
    assert len(told(russian)) >= 60
    words = Counter(word for _, one in scenes for word in re.findall(r"\w+", one.scene.response.lower()))
    pairs = [pair for _, one in scenes for pair in itertools.pairwise(re.findall(r"\w+", one.scene.response.lower()))]
    share = len(set(pairs)) / len(pairs)
    print(f"{len(scenes)} scenes, {len(words)} different words of {words.total()}, distinct-2 {share:.3f}")
    # What a generator of sentences can't have.
    assert len(words) > 4000 and len(set(pairs)) > len(pairs) / 2


def test_every_scene_is_one_that_its_templates_grammar_lets_a_model_write(english, russian):
    grammars: dict[tuple[str, str], Grammar] = {}
    for story, one in [*told(english), *told(russian)]:
        template = OVERLAY.templates[one.template]
        key = (one.template, story.language)
        if key not in grammars:
            grammars[key] = Grammar.from_template(template, NAMES.get(story.language))
        assert grammars[key].accepts(scene_document(template, one.scene).encode()), (story.name, one.pvq.text)


def test_nothing_is_told_twice(english, russian):
    seen: dict[tuple[str, ...], str] = {}
    for story, one in [*told(english), *told(russian)]:
        for kind, text in (("request", one.pvq.text), ("response", one.scene.response)):
            words = re.findall(r"\w+", text.lower())
            where = f"{story.name}: {one.pvq.text}"
            for start in range(len(words) - 7):
                key = (kind, *words[start : start + 8])
                assert seen.setdefault(key, where) == where, key


@pytest.mark.needs_model
def test_nothing_means_the_same_as_something_else(english):
    from ltm_edge.embedders import demo_embedder

    scenes = told(english)
    with demo_embedder() as embedder:
        for texts in ([one.pvq.text for _, one in scenes], [one.scene.response for _, one in scenes]):
            vectors = embedder.embed(texts)
            likeness = vectors @ vectors.T
            np.fill_diagonal(likeness, 0)
            i, j = np.unravel_index(int(likeness.argmax()), likeness.shape)
            assert likeness[i, j] <= 0.9, (texts[i], texts[j])


def test_the_split_is_by_story_and_frozen(english):
    parts = Counter(part_of(story.name) for story in english)
    assert set(parts) == set(PARTS)
    assert 0.7 < parts["train"] / len(english) < 0.9
    assert min(parts["validation"], parts["held-out"]) > 0.05 * len(english)
    assert frozen_hash(english, "held-out") == "5f5d5d13cc891a42438dd8dab720e9d24ec93192444aed007bea524ce3c57186"


def test_problems_are_told_all_at_once_with_their_lines():
    text = """lang: en
stories:
  - story: one
    matter: work
    scenes:
      - text: "Hello there, what now?"
        template: nowhere
        phase: logic
        scene: {}
      - text: "And then?"
        template: trickster
        phase: logic
        scene: {tension: "a vs b"}
"""
    with pytest.raises(SchemaError) as raised:
        parse_stories(text, "one.yaml", OVERLAY.templates, NAMES)
    lines = [str(problem) for problem in raised.value.problems]
    assert any(line.startswith("one.yaml:7:") and "no template is called 'nowhere'" in line for line in lines)
    assert any("trickster is for irony" in line for line in lines)
    assert any("scene" in line and "missing" in line for line in lines), lines
