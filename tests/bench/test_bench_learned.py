"""`ltm-edge eval`: figures of answers, and losses that are those of another implementation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ltm_edge.bench.answers import Sample
from ltm_edge.bench.learned import Learned, Limits, _last_answer, _Measuring, measure_learned, samples_text
from ltm_edge.bundle import Bundle, load_overlay
from ltm_edge.cli.main import cli
from ltm_edge.training.course import Course, Words
from ltm_edge.training.tasks import Line

BUNDLE = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m"


@pytest.fixture(scope="module")
def course() -> Course:
    return Course.read(BUNDLE, Words.of(load_overlay(BUNDLE)))


def test_the_last_answer_is_what_is_measured():
    line = Line(np.arange(8, dtype=np.int32), np.array([0, 0, 1, 1, 0, 0, 1, 1], np.float32))
    read, answer = _last_answer(line)
    assert read.tolist() == [0, 1, 2, 3, 4, 5] and answer.tolist() == [6, 7]


def test_samples_are_written_as_they_came():
    samples = (
        Sample(0, "What now?\nSay.", "hearth", "scene:\n  actors:\n", "length", False, None),
        Sample(1, "And then?", "mirror", "scene: x\n", "eog", True, None),
    )
    figures = {name: 0.0 for name in Learned.__dataclass_fields__ if name not in ("name", "losses", "samples")}
    text = samples_text(Learned("m.gguf", {}, **figures, samples=samples))
    assert "accepts 1 of them" in text
    assert "## seed 0, hearth, not accepted, ended by length" in text and "> What now?\n> Say." in text
    assert "    scene:\n      actors:\n" in text


@pytest.mark.needs_model
def test_losses_are_those_of_transformers(demo_bundle: Bundle, course: Course):
    pytest.importorskip("torch", reason="torch isn't installed; `make train-env` installs what training needs")
    from ltm_edge.training.measure import measure
    from ltm_edge.training.model import Net
    from ltm_edge.training.packing import pack

    net = Net.load(demo_bundle.path)
    measuring = _Measuring(demo_bundle, course, "held-out")
    for task in ("create", "judge"):
        examples = course.examples(demo_bundle.model, "held-out", (task,), limit=1)
        theirs = measure(net, pack(examples, 1000))
        if task == "create":
            ours = measuring.loss(examples)
            # llama.cpp multiplies Q4_1 with activations of 8 bits.
            assert ours == pytest.approx(theirs.tasks["create"].mean, abs=0.06)
        else:
            loss, _ = measuring.judge(examples)
            assert loss == pytest.approx(theirs.tasks["judge"].mean, abs=0.5)


@pytest.mark.needs_model
def test_a_model_is_measured(demo_bundle: Bundle, course: Course):
    told: list[str] = []
    short = replace(demo_bundle.overlay.sampling, max_tokens=24)
    demo_bundle.overlay_set.overlay, kept = replace(demo_bundle.overlay, sampling=short), demo_bundle.overlay
    try:
        found = measure_learned(demo_bundle, course, "held-out", Limits(1, 2, 1), told.append)
    finally:
        demo_bundle.overlay_set.overlay = kept
    assert set(found.losses) == {"restore", "create", "hold", "judge", "chat"}
    # The one scene that is measured stands at the beginning of its story: there is nothing to hold.
    assert math.isnan(found.losses.pop("hold"))
    assert all(0 < value < 20 for value in found.losses.values())
    assert [sample.seed for sample in found.samples] == [0, 1]
    assert found.accepted == 0 and all(sample.stop in ("eog", "length") for sample in found.samples)
    assert found.perplexity == pytest.approx(math.exp(found.losses["chat"]))
    assert json.dumps(found.to_dict())
    assert len(told) == 7


def test_a_folder_without_stories_is_said(tmp_path: Path):
    result = CliRunner().invoke(cli, ["eval", "demo", "--stories", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds nothing of an overlay" in result.stderr
    (tmp_path / "ltm_overlay_config.yaml").write_text("ltm_overlay:\n  version: 1\n  name: none\n")
    result = CliRunner().invoke(cli, ["eval", "demo", "--stories", str(tmp_path)])
    assert result.exit_code == 1
    assert "no curriculum.yaml in it" in result.stderr
