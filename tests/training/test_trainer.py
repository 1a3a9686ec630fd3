"""The trainer end to end on a tiny random model: it learns, goes on where it stopped, and stops where it must."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltm_edge.cli.training_run import _check_base
from ltm_edge.errors import TrainingError
from ltm_edge.files import replacing
from ltm_edge.schemas.curriculum import LoraShape
from ltm_edge.training import checkpoint as checkpoints
from ltm_edge.training.course import Course
from ltm_edge.training.curves import loss_curves
from ltm_edge.training.integration import add_gains
from ltm_edge.training.packing import Row, pack

from . import small

torch = pytest.importorskip("torch", reason="torch isn't installed; `make train-env` installs what training needs")
pytest.importorskip("peft", reason="peft isn't installed; `make train-env` installs what training needs")

from ltm_edge.training.measure import auc, measure  # noqa: E402
from ltm_edge.training.model import Net  # noqa: E402
from ltm_edge.training.trainer import Trainer, TrainingOutcome  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return small.course(tmp_path / "bundle")


def new_trainer(course: Course, out: Path, *, seed: int = 1, every: int = 4) -> Trainer:
    out.mkdir(exist_ok=True)
    net = Net(small.tiny_model())
    net.add_lora(course.curriculum.lora, seed)
    vocabulary = small.Pieces()
    validation = course.rows(vocabulary, "validation")
    settings = {"r": course.curriculum.lora.rank, "lora_alpha": course.curriculum.lora.alpha}
    return Trainer(net, course.loader(vocabulary), validation, out, plan="p", settings=settings, every=every)


def losses(outcome: TrainingOutcome) -> list[float]:
    return [entry["loss"] for entry in outcome.log if "loss" in entry]


def test_rows_give_the_losses_of_their_texts_one_by_one(course: Course):
    """The oracle of packing: each text alone, through transformers' own forward pass."""
    model = small.tiny_model()
    examples = course.examples(small.Pieces(), "train")
    rows = pack(examples, 3000)
    assert sum(map(len, rows)) < 0.7 * sum(example.tokens for example in examples)  # they do share
    for row in rows:
        with torch.no_grad():
            packed = Net(model).losses(row).numpy()
        for number, example in enumerate(row.examples):
            alone = []
            for line in example.lines:
                ids = torch.from_numpy(line.tokens.astype(np.int64))[None]
                with torch.no_grad():
                    logits = model(ids).logits[0, :-1].log_softmax(-1)
                nll = -logits.gather(1, ids[0, 1:, None])[:, 0].numpy()
                alone.append(nll[line.weights[1:] > 0])
            assert np.allclose(packed[row.owner == number], np.concatenate(alone), atol=2e-4)


def test_it_learns_and_a_run_that_was_stopped_comes_to_the_same(course: Course, tmp_path: Path):
    straight = new_trainer(course, tmp_path / "straight")
    whole = straight.run()
    assert whole.steps == len(straight.loader)
    assert whole.after.loss("create", "hold") < 0.85 * whole.before.loss("create", "hold")
    assert np.mean(losses(whole)[-3:]) < 0.85 * np.mean(losses(whole)[:3])

    class Killed(Exception):
        pass

    def kill(step: Any) -> None:
        if step.step == 6:  # two steps behind the checkpoint: these are done again
            raise Killed

    with pytest.raises(Killed):
        new_trainer(course, tmp_path / "stopped").run(tell=kill)
    resumed = new_trainer(course, tmp_path / "stopped", seed=99)  # what the LoRA began with comes from the checkpoint
    again = resumed.run(resume=True)
    assert losses(again) == losses(whole)
    one, other = straight.net.lora(), resumed.net.lora()
    assert all(torch.equal(one[name], other[name]) for name in one)
    adapters = [(tmp_path / name / checkpoints.ADAPTER).read_bytes() for name in ("straight", "stopped")]
    assert adapters[0] == adapters[1]
    assert again.before.to_dict() == whole.before.to_dict()  # measured without the LoRA


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(course: Course, tmp_path: Path):
    trainer = new_trainer(course, tmp_path / "run")
    trainer.run(steps=2)
    path = tmp_path / "run" / checkpoints.CHECKPOINT
    with pytest.raises(TrainingError, match="another curriculum, other data or another base"):
        checkpoints.load_checkpoint(tmp_path / "run", "q")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="can't be read"):
        checkpoints.load_checkpoint(tmp_path / "run", "p")


def test_a_loss_that_is_no_number_stops_it_and_names_the_example(course: Course, tmp_path: Path, monkeypatch):
    trainer = new_trainer(course, tmp_path / "run", every=2)
    right = Net.losses
    told: list[str] = []

    def losses_of(self: Net, row: Row):
        found = right(self, row)
        if trainer.loader.batch(3).rows[0].examples[0].name == row.examples[0].name and torch.is_grad_enabled():
            told.append(row.examples[0].name)
            return found * math.nan
        return found

    monkeypatch.setattr(Net, "losses", losses_of)
    with pytest.raises(TrainingError) as raised:
        trainer.run()
    assert told[0] in str(raised.value) and "nan" in str(raised.value)
    number = int(str(raised.value).split(":")[0].removeprefix("step "))
    kept = checkpoints.load_checkpoint(tmp_path / "run", "p")
    stands = f"the checkpoint of step {(number - 1) // 2 * 2} stays" if number > 2 else "there is no checkpoint yet"
    assert stands in str(raised.value)
    if number > 2:
        assert kept is not None and kept.step < number
        assert all(value.isfinite().all() for value in kept.lora.values())


def test_a_full_disk_is_said_and_costs_nothing_that_was_written(course: Course, tmp_path: Path, monkeypatch):
    trainer = new_trainer(course, tmp_path / "run", every=2)

    def full(path: Path, **options: Any):
        if calls == [None]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls.append(None)
        return replacing(path, **options)

    calls: list[None] = []
    monkeypatch.setattr(checkpoints, "replacing", full)
    with pytest.raises(TrainingError, match=r"checkpoint.pt: \d+ MB can't be written: No space left .*--resume"):
        trainer.run(steps=6)
    kept = checkpoints.load_checkpoint(tmp_path / "run", "p")
    assert kept is not None and kept.step == 2
    monkeypatch.undo()
    again = new_trainer(course, tmp_path / "run", every=2).run(resume=True, steps=6)
    assert losses(again) == losses(new_trainer(course, tmp_path / "straight", every=2).run(steps=6))


def test_another_base_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"base_sha256": "a" * 64}))
    with pytest.raises(TrainingError, match=r"isn't the base of .*give that one as --base"):
        _check_base(tmp_path, Path("some.gguf"), "b" * 64)
    _check_base(tmp_path, Path("some.gguf"), "a" * 64)


def test_a_lora_of_another_shape_is_refused(course: Course):
    one, other = Net(small.tiny_model()), Net(small.tiny_model())
    one.add_lora(LoraShape(4, 8), 0)
    other.add_lora(LoraShape(2, 4), 0)
    with pytest.raises(TrainingError, match="another shape"):
        one.set_lora(other.lora())


def test_the_adapter_is_one_that_convert_can_read(course: Course, tmp_path: Path):
    from gguf_tools.safetensors import Safetensors

    trainer = new_trainer(course, tmp_path / "run")
    trainer.run(steps=2)
    path = tmp_path / "run" / checkpoints.ADAPTER
    with Safetensors(path) as found:
        assert dict(found.metadata) == {"adapter_config": '{"lora_alpha": 8, "r": 4}'}
        assert {tensor.dtype for tensor in found.tensors.values()} == {"F16"}
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        assert found.array(name).shape == (4, 32)
        assert len(found.tensors) == 2 * 7 * 2
    for name, value in checkpoints.load_adapter(path).items():
        assert torch.allclose(value, trainer.net.lora()[name], atol=1e-3)


def test_gains_stand_in_the_integration_log_once(course: Course, tmp_path: Path):
    outcome = new_trainer(course, tmp_path / "run").run(steps=6)
    path = tmp_path / "integration_log.json"
    path.write_text('{"format":"ltm-integration-log","version":1,"entries":[\n{"event":7,"what":"strengthened"}\n]}\n')
    for _ in range(2):
        count = add_gains(path, outcome.before, outcome.after)
    entries = json.loads(path.read_text())["entries"]
    assert count == len(entries) - 1 and entries[-1] == {"event": 7, "what": "strengthened"}
    chains = {entry["chain"]: entry for entry in entries if "chain" in entry}
    assert set(chains) == set(small.names("validation", 2))
    assert any("archetype" in entry for entry in entries)
    for entry in chains.values():
        assert entry["gain"] == pytest.approx(entry["from"] - entry["to"], abs=2e-4) and entry["gain"] > 0


def test_measuring_tells_tasks_apart(course: Course):
    net = Net(small.tiny_model())
    rows = course.rows(small.Pieces(), "validation")
    found = measure(net, rows)
    assert set(found.tasks) == {"restore", "create", "hold", "judge"}
    assert found.tasks["judge"].count == len(found.margins) and found.tasks["judge"].count % 2 == 0
    alone = measure(net, course.rows(small.Pieces(), "validation", ("create",)))
    assert alone.tasks["create"].mean == pytest.approx(found.tasks["create"].mean, abs=1e-4)


def test_auc_counts_pairs():
    assert auc([2.0, 3.0], [1.0]) == 1.0
    assert auc([1.0], [1.0]) == 0.5
    assert auc([0.0, 2.0], [1.0]) == 0.5
    assert math.isnan(auc([], [1.0]))


def test_curves_show_every_task():
    log = [
        {"step": 0, "validation": {"create": 3.0, "judge_auc": 0.5}},
        {"step": 1, "section": 0, "loss": 2.5},
        {"step": 2, "section": 1, "loss": 2.0, "validation": {"create": 2.0, "judge_auc": 0.7}},
    ]
    svg = loss_curves(log, ["myth", "<drama>"])
    assert svg.count("<polyline") == 2 and "&lt;drama&gt;" in svg and "create 2.00" in svg
    assert loss_curves([], []).startswith("<svg")


def test_dropout_is_on_while_it_learns_alone_and_the_same_seed_drops_the_same(course: Course):
    net = Net(small.tiny_model())
    net.add_lora(LoraShape(4, 8, 0.5), 1)
    tensors = {name: torch.full_like(value, 0.1) for name, value in net.lora().items()}  # B begins as zeros
    net.set_lora(tensors)
    row = course.rows(small.Pieces(), "validation")[0]

    def found(seed: int | None) -> list[float]:
        with torch.no_grad(), contextlib.nullcontext() if seed is None else net.learning(seed):
            return net.losses(row).tolist()

    assert found(3) == found(3) != found(4)
    assert found(None) == found(None) != found(3)
