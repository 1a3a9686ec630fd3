"""Trainer: runs a curriculum over a model, keeps checkpoints, notes what happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.errors import TrainingError
from ltm_edge.training.checkpoint import ADAPTER, Checkpoint, load_checkpoint, save_adapter, save_checkpoint
from ltm_edge.training.loader import Batch, FieldDataLoader
from ltm_edge.training.measure import Measured, measure
from ltm_edge.training.model import Net
from ltm_edge.training.packing import Row

__all__ = ["Progress", "Trainer", "TrainingOutcome"]

_CLIP = 1.0  # largest norm of a step's gradient
_BETAS = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did.

    Attributes:
        step, steps: of the run, this one included.
        section: number of the curriculum's phase.
        loss: weighted mean of the batch.
        rate: learning rate.
        tokens: computed in this step.
        seconds: that it took.
        validation: what was measured after it; None where nothing was.
    """

    step: int
    steps: int
    section: int
    loss: float
    rate: float
    tokens: int
    seconds: float
    validation: Mapping[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The step as it stands in the log."""
        found: dict[str, Any] = {
            "step": self.step,
            "section": self.section,
            "loss": round(self.loss, 6),
            "rate": round(self.rate, 9),
            "tokens": self.tokens,
            "seconds": round(self.seconds, 2),
        }
        return {**found, "validation": dict(self.validation)} if self.validation is not None else found


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a run came to.

    Attributes:
        steps: that were done, those before a resumption included.
        log: step by step.
        before, after: measured on the validation stories without the LoRA, and with it at the end.
        best: lowest validation loss, the one of the adapter that was kept.
    """

    steps: int
    log: list[dict[str, Any]]
    before: Measured
    after: Measured
    best: float


class Trainer:
    """One run.

    Args:
        net: the model with its LoRA.
        loader: what it is fed.
        validation: rows that tell which adapter is the best.
        out: folder of checkpoint and adapter; must exist.
        plan: identifies the run, see `Checkpoint.plan`.
        settings: what the adapter's file says of itself.
        every: steps between two checkpoints, with a measurement each.
    """

    def __init__(
        self,
        net: Net,
        loader: FieldDataLoader,
        validation: Sequence[Row],
        out: Path,
        *,
        plan: str,
        settings: Mapping[str, Any],
        every: int = 50,
    ) -> None:
        import torch
        from accelerate import PartialState

        self.net = net
        self.loader = loader
        self.out = out
        self._validation = validation
        self._plan = plan
        self._settings = settings
        self._every = every
        self._state = PartialState(cpu=net.device == "cpu")
        self._optimizer = torch.optim.AdamW(net.trainable, lr=1e-4, betas=_BETAS, weight_decay=0.0)
        self._best = math.inf
        self._kept = 0  # step of the checkpoint
        self._log: list[dict[str, Any]] = []

    def run(
        self, *, steps: int | None = None, resume: bool = False, tell: Callable[[Progress], None] | None = None
    ) -> TrainingOutcome:
        """Train to the end of the plan.

        Args:
            steps: end after so many; the learning rate falls towards that end. None: all of the plan.
            resume: go on behind the checkpoint, if there is one.
            tell: is told of each step.

        Raises:
            TrainingError: a loss that is no number; a checkpoint can't be written or doesn't belong to this run. The
                last checkpoint and the best adapter stay.
        """
        total = len(self.loader) if steps is None else min(steps, len(self.loader))
        done = self._resumed() if resume else 0
        with self.net.without_lora():
            before = self._measure()
        if done == 0:
            self._log = [{"step": 0, "validation": before.to_dict()}]
        after = before if done < total else self._measure()
        for number in range(done, total):
            start = time.perf_counter()
            batch = self.loader.batch(number)
            rate = self.loader.scheduler.learning_rate(number, total, batch.section)
            with self.net.learning(number * self._state.num_processes + self._state.process_index):
                loss = self._step(batch, rate)
            measured = None
            if (number + 1) % self._every == 0 or number + 1 == total:
                after = self._measure()
                measured = after.to_dict()
            spent = time.perf_counter() - start
            progress = Progress(number + 1, total, batch.section, loss, rate, batch.tokens, spent, measured)
            self._log.append(progress.to_dict())
            if measured is not None:
                self._keep(number + 1, after)
            if tell is not None:
                tell(progress)
        return TrainingOutcome(max(done, total), self._log, before, after, self._best)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that measures and writes, of those that train together."""
        return bool(self._state.is_main_process)

    def _measure(self) -> Measured:
        return measure(self.net, self._validation) if self.is_main else Measured()

    def _resumed(self) -> int:
        checkpoint = load_checkpoint(self.out, self._plan)
        if checkpoint is None:
            return 0
        self.net.set_lora(checkpoint.lora)
        self._optimizer.load_state_dict(dict(checkpoint.optimizer))
        self._best, self._log = checkpoint.best, list(checkpoint.log)
        self._kept = checkpoint.step
        return checkpoint.step

    def _step(self, batch: Batch, rate: float) -> float:
        """One step of the optimiser; returns the batch's loss."""
        import torch
        from accelerate.utils import reduce

        whole = float(sum(row.weights.sum() for row in batch.rows)) or 1.0
        rows = batch.rows[self._state.process_index :: self._state.num_processes]
        self._optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for row in rows:
            weights = torch.from_numpy(row.weights).to(self.net.device)
            part = (self.net.losses(row) * weights).sum() / whole
            value = float(part.detach())
            if not math.isfinite(value):
                names = ", ".join(example.name for example in row.examples)
                raise TrainingError(
                    f"step {batch.number + 1}: the loss is {value} at {names}; {self._stands()}: "
                    "lower the learning rate, or look at these examples"
                )
            part.backward()
            loss += value
        if self._state.num_processes > 1:
            try:
                loss = float(reduce(torch.tensor(loss, device=self.net.device), "sum"))
                for parameter in self.net.trainable:
                    found = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                    parameter.grad = reduce(found, "sum")
            except RuntimeError as error:
                raise TrainingError(
                    f"step {batch.number + 1}: the processes of this training can't add up their gradients; if another "
                    f"one has ended, it says why; {self._stands()}"
                ) from error
        torch.nn.utils.clip_grad_norm_(self.net.trainable, _CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return loss

    def _stands(self) -> str:
        if not self._kept:
            return "there is no checkpoint yet"
        return f"the checkpoint of step {self._kept} stays in {self.out}"

    def _keep(self, step: int, measured: Measured) -> None:
        """Write the adapter if it is the best so far, and the checkpoint."""
        self._kept = step
        if not self.is_main:
            return
        lora = self.net.lora()
        loss = measured.loss("create", "hold")
        if not loss >= self._best:
            self._best = loss
            save_adapter(self.out / ADAPTER, lora, self._settings)
        checkpoint = Checkpoint(step, self._plan, lora, self._optimizer.state_dict(), self._best, self._log)
        save_checkpoint(self.out, checkpoint)
