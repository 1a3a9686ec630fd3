"""What `ltm-edge train` does, put together: a bundle folder, a base model, the trainer, and what is left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import BundleError, TrainingError
from ltm_edge.files import write_atomic
from ltm_edge.hashes import file_sha256
from ltm_edge.overlay_set import OverlaySet, load_overlay
from ltm_edge.training.checkpoint import ADAPTER, save_adapter
from ltm_edge.training.course import Course, Words
from ltm_edge.training.curves import loss_curves
from ltm_edge.training.integration import LOG_NAME, add_gains
from ltm_edge.training.model import Net, choose_device, choose_precision
from ltm_edge.training.trainer import Progress, Trainer

__all__ = ["TrainingRun", "words_of"]

VALIDATION_SCENES = 16
RUN_LOG = "training_log.json"
CURVES = "training_curves.svg"


def words_of(overlay: OverlaySet) -> Words:
    """What training needs of an overlay."""
    return Words(
        overlay.prompts,
        overlay.templates,
        overlay.archetype_names(),
        {name: zone.directive for name, zone in overlay.field.channels.items()},
        overlay.overlay.few_shot,
    )


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
    began: int = 0

    @classmethod
    def prepare(cls, folder: Path, base: str, out: Path | None, device: str, precision: str) -> TrainingRun:
        """Read the folder and the base's vocabulary.

        Raises:
            LtmError: the folder, its data or the base can't be used.
        """
        from ltm_edge.bundle import Bundle
        from ltm_edge.models import check_chat_model, existing_file, find_demo_model

        overlay = load_overlay(folder)
        path = find_demo_model().path if base == "demo" else existing_file(base)
        check_chat_model(path)
        sha256 = file_sha256(path)
        _check_base(folder, path, sha256)
        course = Course.read(folder, words_of(overlay))
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
        log = {
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
            "steps": outcome.log,
        }
        text = json.dumps(log, ensure_ascii=False, indent=1).replace("\n  ", " ")
        write_atomic(self.out / RUN_LOG, text.encode() + b"\n")
        write_atomic(self.out / CURVES, loss_curves(outcome.log, log["phases"]).encode())
        first = next((entry["validation"] for entry in outcome.log if "validation" in entry), {})
        last = outcome.after.to_dict()
        lines = [f"{name}: {first[name]:.3f} -> {last[name]:.3f}" for name in last if name in first]
        lines.append(f"{self.out / ADAPTER}: {(self.out / ADAPTER).stat().st_size / 1e6:.1f} MB, {log['adapter_sha256']}")
        if install:
            for name in (ADAPTER, RUN_LOG, CURVES):
                write_atomic(self.folder / name, (self.out / name).read_bytes())
            add_gains(self.folder / LOG_NAME, outcome.before, outcome.after)
            lines.append(f"put into {self.folder}")
        return lines


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
