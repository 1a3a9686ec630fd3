"""Head gates: a planted signal is found, and what is written is what the converter reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.errors import TrainingError
from ltm_edge.schemas.field import parse_field
from ltm_edge.training.course import Course
from ltm_edge.training.packing import Row
from ltm_edge.training.tasks import Example, Line

from . import small

torch = pytest.importorskip("torch", reason="torch isn't installed; `make train-env` installs what training needs")

from ltm_edge.training.gates import gated, learn_gates, put_gates  # noqa: E402
from ltm_edge.training.model import Net  # noqa: E402

FIELD = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m" / "field_architecture.yaml"


def loud_model():
    """A model whose heads have a say."""
    model = small.tiny_model(5)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data *= 40
        layer.self_attn.v_proj.weight.data *= 5
    return model


def test_a_planted_signal_is_found():
    net = Net(loud_model())
    planted = {1: {1: 2.5, 2: 0.0}}
    dice = np.random.default_rng(7)
    texts = [Line(dice.integers(0, 200, 60).astype(np.int32), np.ones(60, np.float32)) for _ in range(16)]
    rows = [Row.of([Example(str(i), "create", "myth", "host", "", (line,))]) for i, line in enumerate(texts)]
    with gated(net, planted), torch.no_grad():
        taught = [replace(row, targets=net.logits(row).argmax(-1).numpy()) for row in rows]

    def loss() -> float:
        with torch.no_grad():
            return float(np.mean([float(net.losses(row).mean()) for row in taught]))

    before = loss()
    with gated(net, planted):
        best = loss()
    weights = {name: value.clone() for name, value in net.model.state_dict().items()}
    found = learn_gates(net, [[row] for row in taught], keep=2, rate=0.05, epochs=15)
    assert {(layer, head) for layer, row in found.items() for head in row} == {(1, 1), (1, 2)}
    assert found[1][2] < 0.4 and found[1][1] > 1.4
    with gated(net, found):
        after = loss()
    assert before - after > 0.5 * (before - best) > 0.1
    assert loss() == pytest.approx(before)  # nothing stays behind
    assert all(torch.equal(value, weights[name]) for name, value in net.model.state_dict().items())


def test_gates_do_what_the_adapter_will_do(tmp_path: Path):
    """A gain is a factor on the columns of the output projection, which is what `convert` writes."""
    course: Course = small.course(tmp_path)
    row = course.rows(small.Pieces(), "train", ("create",))[0]
    net, other = Net(loud_model()), Net(loud_model())
    other.model.model.layers[1].self_attn.o_proj.weight.data[:, 8:16] *= 1.7
    with gated(net, {1: {1: 1.7}}), torch.no_grad():
        assert torch.allclose(net.logits(row), other.logits(row), atol=1e-3)


def test_nothing_to_learn_from_is_said(tmp_path: Path):
    with pytest.raises(TrainingError, match="no scene to learn from"):
        learn_gates(Net(small.tiny_model()), [])
    course: Course = small.course(tmp_path)
    with pytest.raises(TrainingError, match="no scene of the phase saga"):
        course.gate_batches(small.Pieces(), "saga")


def test_gates_are_learned_from_scenes_that_nothing_else_was_trained_on(tmp_path: Path):
    course: Course = small.course(tmp_path)
    phase = course.stories["validation"][0].scenes[0].pvq.phase
    batches = course.gate_batches(small.Pieces(), phase, size=2)
    examples = [example for rows in batches for row in rows for example in row.examples]
    names = {story.name for story in course.stories["validation"]}
    assert examples and {example.story for example in examples} <= names
    assert {example.phase for example in examples} == {phase}
    assert all(sum(len(row.examples) for row in rows) <= 2 for rows in batches)


def test_gates_are_put_into_the_file_and_nothing_else_changes():
    text = FIELD.read_text("utf-8")
    bare = put_gates(text, {name: {} for name in ("logician", "poet", "archetype", "ironist")})
    once = put_gates(bare, {"poet": {3: {1: 0.5, 0: 1.25}}, "ironist": {}})
    lines, changed = bare.split("\n"), once.split("\n")
    assert [line for line in changed if line not in lines] == ["      head_gates: {3: {0: 1.25, 1: 0.5}}"]
    assert len(changed) == len(lines) + 1
    assert parse_field(once).channels["poet"].head_gates == {"3": {"0": 1.25, "1": 0.5}}
    twice = put_gates(once, {"poet": {4: {2: 1.5}}})
    assert parse_field(twice).channels["poet"].head_gates == {"4": {"2": 1.5}}
    assert put_gates(twice, {"poet": {}}) == bare
    with pytest.raises(TrainingError, match="no line of its own"):
        put_gates(text, {"nobody": {0: {0: 2.0}}})
