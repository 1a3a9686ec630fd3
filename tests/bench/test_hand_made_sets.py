"""The hand-made sets of the loop's benches: sound, of the promised size, and nothing that is held out told twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gguf_tools.bundle_folder import read_bundle_folder
from ltm_edge import Scene
from ltm_edge.bench.stories import find_stories
from ltm_edge.bench.stories import load_stories as load_recall_stories
from ltm_edge.bundle import load_overlay
from ltm_edge.scene.pvq import FORMS, PHASES, Pvq
from ltm_edge.schemas.yaml import load_yaml
from ltm_edge.training.stories import load_stories

HERE = Path(__file__).parent
TRIPLES = sorted((HERE / "critics").glob("triples-*.yaml"))
FOLDER = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m"
OVERLAY = load_overlay(FOLDER)
PVQS = sorted((FOLDER / "pvq_structs").glob("*.yaml"))
LANGUAGES = ("en", "ru")


def entries(path: Path, key: str) -> list[dict[str, Any]]:
    document = load_yaml(path.read_bytes(), path.name).data
    assert set(document) == {key}, path.name
    return document[key]


def triples() -> list[dict[str, Any]]:
    return [one for path in TRIPLES for one in entries(path, "triples")]


def requests(name: str) -> list[dict[str, Any]]:
    return entries(HERE / f"requests-{name}.yaml", "requests")


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def asked() -> list[tuple[str, str]]:
    """Every request of the sets as (where it stands, text)."""
    found = [(f"{one['kind']}/{one['id']}", one["request"]) for one in triples()]
    found += [(f"{name}/{one['id']}", one["text"]) for name in ("quality", "channels") for one in requests(name)]
    return found + [(path.name, Pvq.from_yaml(path.read_bytes(), path.name).text) for path in PVQS]


def told() -> list[tuple[str, str]]:
    """Every request that a model is trained on, or that recall is measured by."""
    names = OVERLAY.archetype_names()
    found = []
    for folder in ("stories", "stories-ru"):
        for story in load_stories(FOLDER / "data" / folder, OVERLAY.templates, names):
            found += [(story.name, one.pvq.text) for one in story.scenes]
    return found + [(story.name, one.text) for story in load_recall_stories(find_stories()) for one in story.scenes]


def anchors(one: Any) -> list[str]:
    # Zones of memory and will have none.
    return [text for some in getattr(one, "anchors", {}).values() for text in some]


def shown() -> list[tuple[str, str]]:
    """Every text that stands in a template as an example or an anchor, or in the field as an anchor."""
    found = []
    for template in OVERLAY.templates.values():
        found += [(template.name, one.pvq.text) for some in template.examples.values() for one in some]
        found += [(template.name, text) for text in anchors(template)]
    for kind in (OVERLAY.field.zones, OVERLAY.field.archetypes):
        found += [(name, text) for name, one in kind.items() for text in anchors(one)]
    return found


def test_the_sets_have_their_size_and_no_id_twice():
    kinds = Counter((one["kind"], one["lang"]) for one in triples())
    for path in TRIPLES:
        kind = path.stem.removeprefix("triples-").replace("-", "_")
        assert {one["kind"] for one in entries(path, "triples")} == {kind}, path.name
        assert sum(kinds[kind, lang] for lang in LANGUAGES) == 36, path.name
        assert 4 <= kinds[kind, "ru"] <= 8, path.name
    assert {"looping", "boilerplate", "truncation"} <= {kind for kind, _ in kinds}
    assert Counter(one["lang"] for one in requests("quality")) == {"en": 48, "ru": 12}
    assert Counter(one["lang"] for one in requests("channels")) == {"en": 40}
    for some in (triples(), requests("quality"), requests("channels")):
        ids = Counter(one["id"] for one in some)
        assert max(ids.values()) == 1, ids.most_common(3)
        assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)
    for one in [*triples(), *requests("quality"), *requests("channels")]:
        text = one.get("request") or one["text"]
        assert bool(re.search("[а-яё]", text.lower())) == (one["lang"] == "ru"), one["id"]


@pytest.mark.parametrize("path", TRIPLES, ids=lambda path: path.stem)
def test_every_triple_is_two_scenes_that_differ(path: Path):
    for one in entries(path, "triples"):
        assert set(one) == {"id", "kind", "lang", "request", "good", "damaged"}, one["id"]
        good = Scene.from_dict(one["good"], one["id"])
        damaged = Scene.from_dict({**one["good"], **one["damaged"]}, one["id"])
        known = {OVERLAY.archetype_names()[one["lang"]].get(name, name) for name in OVERLAY.field.archetypes}
        assert set(good.archetype) <= known, (one["id"], good.archetype)
        assert all(good.poles) and len(good.tension) <= 60 and len(good.resonance_center) <= 60, one["id"]
        assert all(len(who) <= 40 for _, who in good.actors), one["id"]
        assert max(map(len, [*good.response.split("\n"), *damaged.response.split("\n")])) <= 240, one["id"]
        for name in one["damaged"]:
            assert getattr(damaged, name) != getattr(good, name), (one["id"], name)
        assert words(damaged.response) != words(good.response) or "response" not in one["damaged"], one["id"]


def test_a_loop_says_less_with_its_words_and_what_is_cut_off_is_shorter():
    for one in triples():
        good, damaged = (words(text) for text in (one["good"]["response"], one["damaged"].get("response", "")))
        if one["kind"] == "looping":
            assert len(set(damaged)) / len(damaged) < len(set(good)) / len(good) - 0.1, one["id"]
        if one["kind"] == "truncation":
            assert len(damaged) < 0.9 * len(good), one["id"]


def test_no_request_is_asked_twice_or_stands_in_what_is_trained_on():
    seen: dict[tuple[str, ...], str] = {}
    for where, text in told():
        whole = words(text)
        for start in range(max(1, len(whole) - 7)):
            seen[whole[start : start + 8]] = where
    for where, text in asked():
        whole = words(text)
        for start in range(max(1, len(whole) - 7)):
            assert seen.setdefault(whole[start : start + 8], where) == where, (where, text)


def test_what_is_held_out_is_no_example_and_no_anchor():
    known = {words(text): name for name, text in shown()}
    for name in ("quality", "channels"):
        for one in requests(name):
            assert words(one["text"]) not in known, one["id"]


def test_every_pvq_struct_loads_and_all_phases_and_forms_are_shown():
    pvqs = {path.name: Pvq.from_yaml(path.read_bytes(), path.name) for path in PVQS}
    russian = [name for name in pvqs if name.startswith("ru-")]
    assert len(russian) >= 8 and len(pvqs) - len(russian) >= 16
    phases = Counter(pvq.phase for pvq in pvqs.values())
    assert set(phases) == set(PHASES) and min(phases.values()) >= 4, phases
    assert {pvq.form for pvq in pvqs.values()} == set(FORMS)
    for name, pvq in pvqs.items():
        lang = "ru" if name in russian else "en"
        known = {OVERLAY.archetype_names()[lang].get(one, one) for one in OVERLAY.field.archetypes}
        assert pvq.archetype and set(pvq.archetype) <= known, name
        assert pvq.goal and {"tension", "resonance_center"} <= set(pvq.scene) and "response" not in pvq.scene, name
        assert Pvq.from_yaml(pvq.to_yaml(), name) == pvq, name


def test_the_bundle_folder_with_its_pvq_structs_is_sound():
    folder, problems = read_bundle_folder(FOLDER)
    assert not problems and "pvq_structs" not in folder.ignored
