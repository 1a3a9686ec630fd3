"""`ltm-edge calibrate`: find out what a model's own word on scenes is worth to the critics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ltm_edge.bundle import Bundle
    from ltm_edge.engine.embedder import Embedder
    from ltm_edge.loop.critics.examples import Example
    from ltm_edge.loop.critics.exhibit import Embed
    from ltm_edge.loop.critics.hearing import Hearing

__all__ = ["calibrate", "covering", "hearing_of"]

_OVERLAY = "ltm_overlay_config.yaml"


@click.command(short_help="Find out what a model's word on scenes is worth to the critics.")
@click.argument("model", metavar="[BUNDLE_OR_GGUF]", required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="FOLDER",
    help="Stories to take examples from as well, of the part for validation; may be repeated.",
)
@click.option("--most", type=click.IntRange(8, 10_000), default=60, show_default=True, help="Good examples a language.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help=f"Put it into this folder's {_OVERLAY}.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads; one per core if not given.")
def calibrate(model: str | None, data: tuple[Path, ...], most: int, write: Path | None, threads: int | None) -> None:
    """Find out what a model's word on scenes is worth to the critics.

    The model is asked the critics' questions about good scenes (the templates' own examples, and those of --data) and
    about the same scenes damaged by a program. What comes out, one shift, slope and weight for each critic and
    language, belongs to this model: a model that says yes to everything gets the weight 0 and is never asked.
    """
    from ltm_edge.bench.table import render
    from ltm_edge.bundle import Bundle
    from ltm_edge.cli import console
    from ltm_edge.embedders import demo_embedder
    from ltm_edge.errors import InputError
    from ltm_edge.files import write_atomic
    from ltm_edge.loop.critics.calibrate import calibrate as find
    from ltm_edge.loop.critics.critic import built_in
    from ltm_edge.loop.critics.examples import balanced, damaged
    from ltm_edge.schemas.overlay_edit import with_calibration

    path = write / _OVERLAY if write is not None else None
    if path is not None and not path.is_file():
        raise InputError(f"{path}: not there; name a bundle's folder, such as `ltm-edge new` makes")
    with Bundle.open(model, threads=threads) as bundle, demo_embedder(threads=threads) as embedder:
        good = balanced(_examples(bundle, data), most)
        name = str(bundle.model_info["name"])
        fitted = find(built_in(bundle.overlay), good, damaged(good), hearing_of(bundle), covering(embedder), _progress)
    rows = [
        [
            f"{critic} {lang}",
            str(fit.good),
            str(fit.damaged),
            f"{fit.probe_auc:.2f}",
            f"{fit.signals_auc:.2f}",
            *(f"{value:g}" for value in (fit.calibration.shift, fit.calibration.slope, fit.calibration.weight)),
        ]
        for critic, of in fitted.items()
        for lang, fit in of.items()
    ]
    head = ["critic", "good", "damaged", "AUC probe", "AUC signals", "shift", "slope", "weight"]
    console.write_out(render(head, rows) + "\n")
    if path is not None:
        found = {critic: {lang: fit.calibration for lang, fit in of.items()} for critic, of in fitted.items()}
        before = path.read_bytes().decode("utf-8")
        text = with_calibration(before, found, str(path), f"of the critics' probes, for {name}")
        write_atomic(path, text.encode("utf-8"))
        console.write_out(f"written to {path}\n")


def hearing_of(bundle: Bundle) -> Hearing:
    """Puts scenes before the bundle's model as its turns do."""
    from ltm_edge.engine.decoder import Decoder
    from ltm_edge.loop.critics.hearing import Hearing

    loaded = bundle.overlay_set
    decoder = Decoder(bundle.model)
    return Hearing(decoder, bundle.model, loaded.prompts, loaded.templates, loaded.overlay.few_shot)


def covering(embedder: Embedder) -> Callable[[str], Embed | None]:
    """The embedder for texts that it covers, None for others."""
    return lambda text: embedder.embed if embedder.covers(text) else None


def _examples(bundle: Bundle, data: tuple[Path, ...]) -> list[Example]:
    from ltm_edge.loop.critics.examples import Example, examples_of
    from ltm_edge.training.stories import load_stories, part_of

    found = examples_of(bundle.templates)
    for folder in data:
        stories = load_stories(folder, bundle.templates, bundle.overlay_set.archetype_names())
        found += [
            Example(one.pvq.text, one.pvq.goal, story.language, one.scene, template=one.template)
            for story in stories
            if part_of(story.name) == "validation"  # a model trained on a scene is surer of it than of others
            for one in story.scenes
        ]
    return found


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rreading {done} of {of} scenes", nl=done == of, err=True)
