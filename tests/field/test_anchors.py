"""Anchors: their cache, what they read against slow oracles, and the packaged texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.field.vectors import Anchors, AnchorSet
from ltm_edge.overlay_set import OverlaySet
from ltm_edge.scene.trigrams import Trigrams
from ltm_edge.training.stories import load_stories
from tests.memory.hashed import HashedEmbedder


def anchors_of(overlay: OverlaySet, embedder: Any, cache: Path | None) -> Anchors:
    return Anchors.of(overlay.field, overlay.templates, overlay.languages, embedder, cache)


def rows(anchors: Anchors, lang: str = "en") -> Any:
    found = anchors.of_kind("template", lang)
    assert found is not None
    return found.vectors


def test_embedded_once(overlay: OverlaySet, tmp_path: Path) -> None:
    embedder = HashedEmbedder()
    first = anchors_of(overlay, embedder, tmp_path / "anchors")
    assert embedder.calls == 1 and len(list((tmp_path / "anchors").iterdir())) == 1
    again = anchors_of(overlay, embedder, tmp_path / "anchors")
    assert embedder.calls == 1 and np.array_equal(rows(first), rows(again))
    anchors_of(overlay, HashedEmbedder(name="other"), tmp_path / "anchors")
    assert len(list((tmp_path / "anchors").iterdir())) == 2, "another space has a file of its own"
    anchors_of(overlay, embedder, None)
    assert embedder.calls == 2


def test_old_files_go(overlay: OverlaySet, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("not ours")
    for i in range(11):
        anchors_of(overlay, HashedEmbedder(8, name=f"e{i}"), tmp_path)
        assert len(list(tmp_path.glob("*.npy"))) == min(i + 1, 8)
    last = HashedEmbedder(8, name="e10")
    anchors_of(overlay, last, tmp_path)
    assert last.calls == 0 and (tmp_path / "other.txt").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "long", "scaled", "pickle", "shape"])
def test_a_damaged_cache_is_a_miss(overlay: OverlaySet, tmp_path: Path, damage: str) -> None:
    embedder = HashedEmbedder()
    wanted = rows(anchors_of(overlay, embedder, tmp_path))
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    if damage == "pickle":
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    elif damage == "shape":
        np.save(file, np.load(file)[1:])
    elif damage == "scaled":
        np.save(file, np.load(file) * np.float32(1.5))
    else:
        broken = {"cut": data[: len(data) // 2], "empty": b"", "noise": b"\x93NUMPY" + b"\0" * 500, "long": data + data}
        file.write_bytes(broken[damage])
    assert np.array_equal(rows(anchors_of(overlay, embedder, tmp_path)), wanted) and embedder.calls == 2
    assert file.read_bytes() == data, "written anew"


def test_a_cache_that_cannot_be_written_costs_time_only(overlay: OverlaySet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert rows(anchors_of(overlay, HashedEmbedder(), tmp_path / "file" / "anchors")) is not None


def test_languages_that_the_embedder_lacks_have_no_vectors(overlay: OverlaySet) -> None:
    anchors = anchors_of(overlay, HashedEmbedder(latin_only=True), None)
    assert anchors.embedded == {"en"} and rows(anchors, "ru") is None and rows(anchors) is not None
    assert anchors_of(overlay, HashedEmbedder(), None).embedded == {"en", "ru"}
    assert anchors_of(overlay, None, None).embedded == frozenset()
    assert anchors.of_kind("template", "de") is None


def some_set(seed: int, sizes: list[int], dim: int = 12) -> AnchorSet:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(sum(sizes), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(f"n{i}" for i in range(len(sizes)))
    starts = (0, *np.cumsum(sizes).tolist())
    return AnchorSet(names, tuple(f"text {i}" for i in range(sum(sizes))), starts, vectors)


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(st.integers(0, 2**32 - 1), SIZES, st.integers(1, 5))
@settings(max_examples=40)
def test_likeness_is_the_mean_of_the_nearest(seed: int, sizes: list[int], nearest: int) -> None:
    anchors = some_set(seed, sizes)
    vector = some_set(seed + 1, [1]).vectors[0]  # type: ignore[index]
    found = anchors.by_meaning(vector, nearest)
    for name, start, end in zip(anchors.names, anchors.starts, anchors.starts[1:], strict=False):
        cosines = sorted((float(np.dot(row, vector)) for row in anchors.vectors[start:end]), reverse=True)  # type: ignore[index]
        assert found[name] == pytest.approx(sum(cosines[:nearest]) / len(cosines[:nearest]), abs=1e-5)


@given(st.integers(0, 2**32 - 1), SIZES)
@settings(max_examples=40)
def test_reading_is_ridge_regression_on_the_anchors(seed: int, sizes: list[int]) -> None:
    anchors = some_set(seed, sizes)
    vector = some_set(seed + 1, [1]).vectors[0]  # type: ignore[index]
    found = anchors.reading(vector)
    assert sum(found.values()) == pytest.approx(0.0, abs=1e-9)
    # The primal form, solved for the map itself.
    x = np.float64(anchors.vectors)  # type: ignore[arg-type]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    weight = np.array([1.0 / sizes[i] for i in owner])
    weight /= weight.mean()
    mean = (x * weight[:, None]).sum(0) / weight.sum()
    x = x - mean
    y = np.eye(len(sizes))[owner] - 1.0 / len(sizes)
    w = np.linalg.solve(x.T @ (x * weight[:, None]) + 10.0 * np.eye(x.shape[1]), x.T @ (y * weight[:, None]))
    spread = (x @ w).std()
    wanted = (np.float64(vector) - mean) @ w * (0.1 / spread if spread > 1e-12 else 0.0)
    assert [found[name] for name in anchors.names] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert anchors.reading(vector[:5]) == {} == anchors.by_meaning(vector[:5], 3), "another space"


@given(st.lists(st.text(max_size=30), max_size=8), st.text(max_size=60))
@settings(max_examples=60)
def test_letters_are_bounded_and_a_text_is_most_like_itself(texts: list[str], text: str) -> None:
    found = Trigrams(texts).likeness(text)
    assert len(found) == len(texts) and all(0.0 <= one <= 1.0 for one in found)
    for i, own in enumerate(Trigrams([*texts, text]).likeness(text)[:-1]):
        assert own <= 1.0 and (own > 0.999) == (own > 0.999 and found[i] > 0.9)
    same = Trigrams([*texts, text]).likeness(text)[-1]
    assert same == pytest.approx(1.0) if any(char.isalnum() for char in text) else same == 0.0


def test_packaged_anchors_are_many_in_each_language_and_stand_once(overlay: OverlaySet) -> None:
    field = overlay.field
    assert set(field.phases) == {"myth", "drama", "logic", "irony"}
    kinds = {"template": (overlay.templates, 30), "channel": (field.channels, 20), "archetype": (field.archetypes, 7),
             "phase": (field.phases, 10)}  # fmt: skip
    for kind, (owners, fewest) in kinds.items():
        for lang in ("en", "ru"):
            seen: dict[str, str] = {}
            for name, owner in owners.items():
                texts = owner.anchors[lang]  # type: ignore[attr-defined]
                assert len(texts) >= fewest, (kind, name, lang)
                for text in texts:
                    key = " ".join(re.findall(r"\w+", text.casefold()))
                    assert key not in seen, f"{kind}: {text!r} stands in {name} and {seen[key]}"
                    seen[key] = name
                    assert bool(re.search("[а-яё]", text)) is (lang == "ru"), text
        for name, owner in owners.items():
            assert len(owner.anchors["en"]) == len(owner.anchors["ru"]), (kind, name)  # type: ignore[attr-defined]


def test_no_anchor_is_taken_from_the_stories_that_it_is_measured_on(overlay: OverlaySet) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[\w']+", text.casefold())
        return {tuple(words[i : i + 6]) for i in range(len(words) - 5)}

    data = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m" / "data" / "stories"
    stories = load_stories(data, overlay.templates, overlay.archetype_names())
    told = {run for story in stories for one in story.scenes for run in runs(one.pvq.text)}
    field = overlay.field
    for owners in (overlay.templates, field.channels, field.archetypes, field.phases):
        for owner in owners.values():  # type: ignore[attr-defined]
            assert not [text for text in owner.anchors["en"] if runs(text) & told]


def test_each_channel_and_archetype_has_a_part_in_the_other(overlay: OverlaySet) -> None:
    assert all(zone.archetypes for zone in overlay.field.channels.values())
    assert overlay.field.wishes["en"] and overlay.field.wishes["ru"] and overlay.field.decay == 0.9


def test_the_bundle_s_file_differs_by_its_comment_and_gates_only() -> None:
    root = Path(__file__).parents[2]
    packaged = (root / "ltm_edge" / "overlay" / "field_architecture.yaml").read_text("utf-8").splitlines()
    bundle = (root / "bundles" / "ltm-vortex-135m" / "field_architecture.yaml").read_text("utf-8").splitlines()
    own = [line.lstrip() for line in bundle if line not in packaged]
    assert all(line.startswith(("#", "head_gates: {")) for line in own)
    assert [line.startswith("head_gates") for line in own].count(True) == 4
    assert set(packaged) <= set(bundle)
