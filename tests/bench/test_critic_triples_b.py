"""Triples for critics (off topic, one pole missing, self-contradiction) and scenes without damage: sound, told once."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ltm_edge.bundle import load_overlay
from ltm_edge.grammar import Grammar
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import scene_document
from ltm_edge.schemas.yaml import load_yaml
from ltm_edge.training.stories import load_stories

FOLDER = Path(__file__).parent / "critics"
BUNDLE = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m"
OVERLAY = load_overlay(BUNDLE)
NAMES = OVERLAY.archetype_names()
KINDS = ("off_topic", "missing_pole", "contradiction")
GRAM = 8  # words


def rows_of(name: str, key: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{name}.yaml"
    data = load_yaml(path.read_bytes(), path.name).data
    assert set(data) == {key}, path
    return data[key]


TRIPLES = [row for kind in KINDS for row in rows_of(f"triples-{kind.replace('_', '-')}", "triples")]
PLAIN = rows_of("plain", "scenes")


def good_of(row: dict[str, Any]) -> Scene:
    return Scene.from_dict(row["good"] if "good" in row else row["scene"], row["id"])


def damaged_of(row: dict[str, Any]) -> Scene:
    return Scene.from_dict({**row["good"], **row["damaged"]}, row["id"])


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


def test_there_are_as_many_as_the_figures_need():
    assert Counter(row["kind"] for row in TRIPLES) == dict.fromkeys(KINDS, 36)
    assert Counter(row["lang"] for row in PLAIN) == {"en": 20, "ru": 20}
    for kind in KINDS:
        languages = Counter(row["lang"] for row in TRIPLES if row["kind"] == kind)
        assert set(languages) == {"en", "ru"} and languages["ru"] in (5, 6), kind
    assert all(set(row) == {"id", "kind", "lang", "request", "good", "damaged"} for row in TRIPLES)
    assert all(set(row) == {"id", "lang", "request", "scene"} for row in PLAIN)


def test_ids_and_requests_are_unique():
    for key in ("id", "request"):
        twice = [value for value, n in Counter(row[key] for row in TRIPLES + PLAIN).items() if n > 1]
        assert not twice
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["id"]) for row in TRIPLES + PLAIN)


def test_the_language_is_that_of_the_request():
    for row in TRIPLES + PLAIN:
        cyrillic = sum("а" <= char <= "ё" for char in row["request"].lower())
        assert (cyrillic > len(row["request"]) / 3) == (row["lang"] == "ru"), row["id"]


def test_every_scene_is_one_that_a_model_could_write():
    grammars: dict[tuple[str, str], Grammar] = {}
    for row in TRIPLES + PLAIN:
        lang = row["lang"]
        for scene in (good_of(row), *([damaged_of(row)] if "damaged" in row else [])):
            assert all(scene.poles) and len(scene.response) <= 400, row["id"]
            fits = []
            for name, template in OVERLAY.templates.items():
                if (name, lang) not in grammars:
                    grammars[name, lang] = Grammar.from_template(template, NAMES.get(lang))
                fits.append(grammars[name, lang].accepts(scene_document(template, scene).encode()))
            assert any(fits), row["id"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_response_is_damaged_and_its_length_tells_nothing(kind: str):
    longer = 0
    rows = [row for row in TRIPLES if row["kind"] == kind]
    for row in rows:
        good, damaged = good_of(row), damaged_of(row)
        assert damaged.response != good.response, row["id"]
        assert replace(damaged, response=good.response) == good, row["id"]
        assert 0.7 <= len(damaged.response) / len(good.response) <= 1.45, row["id"]
        longer += len(damaged.response) > len(good.response)
    assert 0.3 * len(rows) <= longer <= 0.7 * len(rows)


def test_no_two_share_eight_words_and_none_stands_in_the_training_data():
    seen: dict[tuple[str, ...], str] = {}
    for folder in ("stories", "stories-ru"):
        for story in load_stories(BUNDLE / "data" / folder, OVERLAY.templates, NAMES):
            for scene in story.scenes:
                for text in (scene.pvq.text, scene.scene.response):
                    seen.update(dict.fromkeys(grams(text), f"{story.name}: {scene.pvq.text}"))
    assert len(seen) > 10_000
    for row in TRIPLES + PLAIN:
        # A damaged response may share words with its own good one.
        texts = [row["request"], good_of(row).response]
        texts += [damaged_of(row).response] if "damaged" in row else []
        own = set().union(*map(grams, texts))
        shared = {seen[gram] for gram in own & set(seen)}
        assert not shared, (row["id"], shared)
        seen.update(dict.fromkeys(own, row["id"]))
