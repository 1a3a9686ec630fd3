"""``ltm-edge train``: teach a base model to think in scenes, with a bundle folder's curriculum."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ltm_edge.training.trainer import Progress

__all__ = ["train"]


@click.command(short_help="Train a bundle folder's LoRA by its curriculum.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--base", required=True, metavar="BASE.gguf", help="The base model's GGUF; `demo`: the demo model.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="For checkpoint, log and adapter.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="End after N steps instead of the whole plan.")
@click.option("--resume", is_flag=True, help="Go on behind the checkpoint in --out.")
@click.option("--gates", is_flag=True, help="Learn head gates for each channel, over the folder's LoRA.")
@click.option(
    "--measure",
    type=click.Choice(["validation", "held-out"]),
    help="Train nothing: the losses of base and folder's LoRA on stories that were not trained on.",
)
@click.option("--shuffled", is_flag=True, help="The same examples in random order, to see what the curriculum brings.")
@click.option("--every", default=50, show_default=True, type=click.IntRange(min=1), help="Steps between checkpoints.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda", "mps"]))
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the arithmetic; weights are float32.",
)
@click.option("--install", is_flag=True, help="Put the result into the folder, for `ltm-edge convert`.")
def train(
    folder: Path,
    base: str,
    out: Path | None,
    steps: int | None,
    resume: bool,
    gates: bool,
    measure: str | None,
    shuffled: bool,
    every: int,
    device: str,
    precision: str,
    install: bool,
) -> None:
    """Train a bundle folder's LoRA by its curriculum.

    FOLDER holds curriculum.yaml and the stories that it names. The result is model_lora.safetensors in --out (default
    FOLDER-training beside FOLDER) with its log and curves; --install copies them into FOLDER. A run that was stopped
    goes on with --resume and comes to the same result.
    """
    from ltm_edge.cli import console
    from ltm_edge.training.model import need_packages

    need_packages()

    from ltm_edge.cli.training_run import TrainingRun

    run = TrainingRun.prepare(folder, base, out, device, precision)
    if os.environ.get("RANK", "0") == "0":  # torchrun and accelerate number the processes of a training
        console.notice(run.describe())
    if measure is not None:
        console.write_out(run.measure(measure) + "\n")
        return
    if gates:
        for line in run.learn_gates(steps, tell=console.notice, install=install):
            console.write_out(line + "\n")
        return
    with _progress() as tell:
        lines = run.train(steps=steps, resume=resume, shuffled=shuffled, every=every, tell=tell, install=install)
    for line in lines:
        console.write_out(line + "\n")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with loss, tokens/s and time left on a terminal, a line now and then elsewhere."""
    from ltm_edge.cli import console

    if not sys.stderr.isatty():
        spent = {"steps": 0, "tokens": 0, "seconds": 0.0}  # of this run: a resumed one begins further on

        def line(step: Progress) -> None:
            spent["steps"] += 1
            spent["tokens"] += step.tokens
            spent["seconds"] += step.seconds
            if step.step % 10 == 0 or step.validation is not None or step.step == step.steps:
                rate = spent["tokens"] / max(spent["seconds"], 1e-9)
                left = (step.steps - step.step) * spent["seconds"] / spent["steps"]
                text = f"step {step.step}/{step.steps}: {_state(step, rate)}, {left / 60:.0f} min left"
                found = "".join(f", {name} {value:.3f}" for name, value in (step.validation or {}).items())
                console.notice(text + found)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=None)

        def tell(step: Any) -> None:
            rate = step.tokens / max(step.seconds, 1e-9)
            bar.update(task, total=step.steps, completed=step.step, description=_state(step, rate))

        yield tell


def _state(step: Progress, rate: float) -> str:
    return f"phase {step.section + 1}, loss {step.loss:.3f}, {rate:.0f} tokens/s"
