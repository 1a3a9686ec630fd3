"""What `ltm-edge train` does, put together: a bundle folder, a base model, the trainer, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.bench.table import render
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import BundleError, TrainingError
from ltm_edge.files import write_atomic
from ltm_edge.hashes import file_sha256
from ltm_edge.overlay_set import load_overlay
from ltm_edge.training.checkpoint import ADAPTER, load_adapter
from ltm_edge.training.course import Course, Words
from ltm_edge.training.curves import loss_curves
from ltm_edge.training.gates import Gains, gated, learn_gates, put_gates
from ltm_edge.training.integration import LOG_NAME, add_gains
from ltm_edge.training.measure import measure
from ltm_edge.training.model import Net, choose_device, choose_precision
from ltm_edge.training.tasks import CHANNEL_OF_PHASE
from ltm_edge.training.trainer import Progress, Trainer

__all__ = ["TrainingRun"]

VALIDATION_SCENES = 16
REPORTS = "training"  # folder of a bundle folder for what is no part of the bundle
RUN_LOG = "log.json"
CURVES = "curves.svg"
GATES_LOG = "gates.json"
GATE_SCENES = 24


@dataclass
class TrainingRun:
    """One run of the command."""

    folder: Path
    base: Path
    base_sha256: str
    out: Path
    course: Course
    vocabulary: LoadedModel
    device: str
    precision: str

    @classmethod
    def prepare(cls, folder: Path, base: str, out: Path | None, device: str, precision: str) -> TrainingRun:
        """Read the folder and the base's vocabulary.

        Raises:
            LtmError: the folder, its data or the base can't be used.
        """
        from ltm_edge.bundle import Bundle
        from ltm_edge.models import base_path, check_chat_model, existing_file

        overlay = load_overlay(folder)
        path = existing_file(str(base_path(base)))
        check_chat_model(path)
        sha256 = file_sha256(path)
        _check_base(folder, path, sha256)
        course = Course.read(folder, Words.of(overlay))
        target = out if out is not None else folder.with_name(folder.name + "-training")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"{target}: can't be made: {error.strerror or error}") from error
        chosen = choose_device(device)
        with Bundle.open(path, ctx=256, gpu_layers=0) as bundle:
            vocabulary = bundle.model
        return cls(folder, path, sha256, target, course, vocabulary, chosen, choose_precision(precision, chosen))

    def describe(self) -> str:
        """What is about to be done, in one line."""
        scenes = sum(len(story.scenes) for story in self.course.stories["train"])
        return f"{scenes} scenes to train on, base {self.base.name}, {self.device} in {self.precision}, into {self.out}"

    def train(
        self,
        *,
        steps: int | None,
        resume: bool,
        shuffled: bool,
        every: int,
        tell: Callable[[Progress], None],
        install: bool,
    ) -> list[str]:
        """Train the LoRA; returns what to say of it."""
        curriculum = self.course.curriculum
        loader = self.course.loader(self.vocabulary, shuffled=shuffled)
        net = Net.load(self.base, self.device, self.precision)
        net.add_lora(curriculum.lora, curriculum.seed)
        settings = {"r": curriculum.lora.rank, "lora_alpha": curriculum.lora.alpha, "base_sha256": self.base_sha256}
        plan = hashlib.sha256(
            json.dumps([self.course.digest, self.base_sha256, self.precision, shuffled, steps]).encode()
        ).hexdigest()
        validation = self.course.rows(self.vocabulary, "validation", limit=VALIDATION_SCENES)
        validation += self.course.rows(self.vocabulary, "validation", ("chat",))
        trainer = Trainer(net, loader, validation, self.out, plan=plan, settings=settings, every=every)
        outcome = trainer.run(steps=steps, resume=resume, tell=tell if trainer.is_main else None)
        if not trainer.is_main:
            return []
        log: dict[str, Any] = {
            "format": "ltm-training-log",
            "version": 1,
            "base": self.base.name,
            "base_sha256": self.base_sha256,
            "curriculum": curriculum.name,
            "data_sha256": self.course.digest,
            "order": "shuffled" if shuffled else "curriculum",
            "precision": self.precision,
            "phases": [phase.phase for phase in curriculum.phases],
            "adapter_sha256": file_sha256(self.out / ADAPTER),
        }
        write_atomic(self.out / RUN_LOG, _log_text(log, outcome.log).encode())
        write_atomic(self.out / CURVES, loss_curves(outcome.log, log["phases"]).encode())
        first = outcome.before.to_dict()
        last = outcome.after.to_dict()
        lines = [f"{name}: {first[name]:.3f} -> {last[name]:.3f}" for name in last if name in first]
        lines.append(
            f"{self.out / ADAPTER}: {(self.out / ADAPTER).stat().st_size / 1e6:.1f} MB, {log['adapter_sha256']}"
        )
        if install:
            self._report(RUN_LOG, CURVES)
            write_atomic(self.folder / ADAPTER, (self.out / ADAPTER).read_bytes())
            add_gains(self.folder / LOG_NAME, outcome.before, outcome.after)
            lines.append(f"put into {self.folder}")
        return lines

    def learn_gates(self, steps: int | None, *, tell: Callable[[str], None], install: bool) -> list[str]:
        """Learn head gates for each channel over the folder's LoRA; returns what to say of them."""
        net = self._trained()
        held_out = self.course.rows(self.vocabulary, "held-out", ("create", "hold"), limit=GATE_SCENES)
        plain = measure(net, held_out).phases
        found: dict[str, Gains] = {}
        log: dict[str, Any] = {"format": "ltm-gates-log", "version": 1, "base_sha256": self.base_sha256, "channels": {}}
        lines = []
        for phase, channel in CHANNEL_OF_PHASE.items():
            if channel not in self.course.words.directives:
                continue
            found[channel] = learn_gates(net, self.course.gate_batches(self.vocabulary, phase)[:steps])
            with gated(net, found[channel]):
                after = measure(net, held_out).phases
            losses = {name: [round(plain[name].mean, 4), round(after[name].mean, 4)] for name in sorted(after)}
            log["channels"][channel] = {"phase": phase, "gates": found[channel], "held_out": losses}
            heads = sum(map(len, found[channel].values()))
            others = [name for name in losses if name != phase]
            moved = sum(losses[name][1] - losses[name][0] for name in others) / max(1, len(others))
            own = losses.get(phase, [0.0, 0.0])
            lines.append(
                f"{channel}: {heads} heads; held-out loss of {phase} {own[0]:.4f} -> {own[1]:.4f}, "
                f"of the others {moved:+.4f} on average"
            )
            tell(lines[-1])
        write_atomic(self.out / GATES_LOG, (json.dumps(log, indent=1) + "\n").encode())
        path = self.folder / "field_architecture.yaml"
        if install and path.is_file():
            write_atomic(path, put_gates(path.read_text("utf-8"), found, str(path)).encode())
            self._report(GATES_LOG)
            lines.append(f"put into {path}")
        return lines

    def measure(self, part: str) -> str:
        """A table of the base's losses beside those with the folder's LoRA, on all stories of a part."""
        net = self._with_lora()
        rows = self.course.rows(self.vocabulary, part) + self.course.rows(self.vocabulary, part, ("chat",))
        with net.without_lora():
            before = measure(net, rows)
        after = measure(net, rows)
        table = []
        for task in sorted(after.tasks):
            one, other = before.tasks[task].mean, after.tasks[task].mean
            change = f"{100 * (other / one - 1):+.1f} %"
            table.append([f"loss of {task}", f"{one:.3f}", f"{other:.3f}", change, str(after.tasks[task].count)])
        table.append(["judge AUC", f"{before.judge_auc:.3f}", f"{after.judge_auc:.3f}", "", str(len(after.margins))])
        one, other = (math.exp(found.tasks["chat"].mean) for found in (before, after))
        change = f"{100 * (other / one - 1):+.1f} %"
        table.append(["perplexity of ordinary chat", f"{one:.2f}", f"{other:.2f}", change, ""])
        return render([part, "base", "trained", "change", "predictions"], table)

    def _report(self, *names: str) -> None:
        """Copy files of the run into the folder's place for reports."""
        (self.folder / REPORTS).mkdir(exist_ok=True)
        for name in names:
            write_atomic(self.folder / REPORTS / name, (self.out / name).read_bytes())

    def _trained(self) -> Net:
        """The base with the folder's LoRA in its weights; without a LoRA the base as it is."""
        if not (self.folder / ADAPTER).is_file():
            return Net.load(self.base, self.device, self.precision)
        net = self._with_lora()
        net.merge_lora()
        return net

    def _with_lora(self) -> Net:
        """The base with the folder's LoRA beside it."""
        net = Net.load(self.base, self.device, self.precision)
        net.add_lora(self.course.curriculum.lora, self.course.curriculum.seed)
        net.set_lora(load_adapter(self.folder / ADAPTER))
        return net


def _log_text(about: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    """The log as JSON, a line for each thing that is said of the run and for each step."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in about.items()]
    told = ",\n".join(f"  {json.dumps(step)}" for step in steps)
    return "\n".join(["{", *lines, ' "steps": [', told, " ]", "}"]) + "\n"


def _check_base(folder: Path, base: Path, sha256: str) -> None:
    """Raise TrainingError where the folder's config.json names another base."""
    path = folder / "config.json"
    if not path.is_file():
        return
    try:
        wanted = json.loads(path.read_text("utf-8")).get("base_sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: can't be read: {error}") from error
    if wanted is not None and wanted != sha256:
        raise TrainingError(
            f"{base}: isn't the base of {folder}: sha256 {sha256[:16]}…, config.json names {str(wanted)[:16]}…; "
            "give that one as --base"
        )
