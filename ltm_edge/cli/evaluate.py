"""``ltm-edge eval``: what models have learned of scenes, in one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["evaluate"]

ROWS: tuple[tuple[str, Callable[[Any], float]], ...] = (
    ("loss of restore, nats/token", lambda m: m.losses["restore"]),
    ("loss of create", lambda m: m.losses["create"]),
    ("loss of hold", lambda m: m.losses["hold"]),
    ("loss of judge, nats/judgement", lambda m: m.losses["judge"]),
    ("judge AUC", lambda m: m.judge_auc),
    ("next scene found among 8", lambda m: m.retrieval),
    ("answers that the grammar accepts", lambda m: m.accepted),
    ("answers that are some scene", lambda m: m.scenes),
    ("request to response, cosine", lambda m: m.close),
    ("  to another's response", lambda m: m.far),
    ("distinct-2 of responses", lambda m: m.distinct2),
    ("repeated 4-grams", lambda m: m.repeated),
    ("words in a response", lambda m: m.words),
    ("perplexity of ordinary chat", lambda m: m.perplexity),
)


@click.command("eval", short_help="Measure what models have learned of scenes.")
@click.argument("files", metavar="BUNDLE.gguf...", nargs=-1, required=True)
@click.option(
    "--stories",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Bundle folder with the stories; its prompts are used for every model.",
)
@click.option("--part", default="held-out", show_default=True, type=click.Choice(["train", "validation", "held-out"]))
@click.option("--scenes", default=40, show_default=True, type=click.IntRange(min=0), help="For losses and judgements.")
@click.option("--answers", default=40, show_default=True, type=click.IntRange(min=0), help="Written without grammar.")
@click.option("--chains", default=16, show_default=True, type=click.IntRange(min=0), help="For finding the next scene.")
@click.option("--samples", type=click.Path(path_type=Path), metavar="FILE.md", help="The last model's answers.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads; one per core if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    files: tuple[str, ...],
    stories: Path,
    part: str,
    scenes: int,
    answers: int,
    chains: int,
    samples: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure what models have learned of scenes, on stories that they were not trained on.

    `demo` is the demo model. All are asked in the same words, the one column beside the other; answers are written
    without a grammar, each with its own seed. 0 leaves a measurement out. `ltm-edge train --measure` gives the losses
    of all scenes much sooner, by torch.
    """
    from ltm_edge.bench.learned import Limits, measure_learned, samples_text
    from ltm_edge.bench.table import number, render
    from ltm_edge.bundle import Bundle
    from ltm_edge.cli import console
    from ltm_edge.cli.outputs import check_writable, json_text, write_file
    from ltm_edge.models import base_path, existing_file
    from ltm_edge.overlay_set import load_overlay
    from ltm_edge.training.course import Course, Words

    check_writable(samples)
    course = Course.read(stories, Words.of(load_overlay(stories)))
    found = []
    for name in files:
        path = existing_file(str(base_path(name)))
        with Bundle.open(path, ctx=4096, threads=threads, overlay=stories) as bundle:
            found.append(measure_learned(bundle, course, part, Limits(scenes, answers, chains), console.notice))
    if samples is not None:
        write_file(samples, samples_text(found[-1]))
    if as_json:
        console.write_out(json_text([one.to_dict() for one in found]) + "\n")
        return
    table = [[label, *(number(float(value(one))) for one in found)] for label, value in ROWS]
    console.write_out(render(["", *(one.name for one in found)], table) + "\n")
