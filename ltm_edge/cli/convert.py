"""`ltm-edge convert`: a bundle folder and a base model become one GGUF file and its sidecar folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gguf_tools.bundle_converter import Options
    from gguf_tools.measure import Passage

__all__ = ["convert"]


@click.command(short_help="Make a bundle of a folder and a base model.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--base", required=True, metavar="BASE.gguf", help="The base model's GGUF; `demo`: the demo model.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="OUT.gguf", help="File to write.")
@click.option(
    "--outtype",
    default="same",
    show_default=True,
    metavar="TYPE|same|auto",
    help="Type of the matrices; auto measures which one this machine runs fastest at 2 % more perplexity at most, with "
    "a LoRA on the bundle's own words too.",
)
@click.option("--lora-scale", default=1.0, show_default=True, metavar="S", help="Factor on the LoRA's changes.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.pass_context
def convert(
    ctx: click.Context, folder: Path, base: str, out: Path, outtype: str, lora_scale: float, force: bool
) -> None:
    """Make a bundle of a folder and a base model.

    FOLDER holds ltm_overlay_config.yaml and, as there are, model_lora.safetensors, scene_templates/,
    field_architecture.yaml, curriculum.yaml, prompts.yaml, integration_log.json, memory/ (`ltm-edge new` makes one).
    Documents that it lacks are the packaged ones, which the file then holds as well.
    OUT.gguf runs in every llama.cpp program; its sidecar folder OUT.ltm belongs beside it.
    """
    from gguf_tools.bundle_converter import BundleConverter, Options
    from gguf_tools.errors import GgufError, ManyProblems
    from gguf_tools.merge import use_one_blas_thread

    use_one_blas_thread()
    from ltm_edge.cli import console
    from ltm_edge.cli.answering import terminable
    from ltm_edge.errors import BundleError
    from ltm_edge.hashes import file_sha256
    from ltm_edge.models import base_path
    from ltm_edge.overlay_set import packaged_documents

    model = base_path(base)
    options = Options(outtype, lora_scale, force)
    with terminable(), _progress() as progress:
        try:
            if outtype == "auto":
                options = _chosen(folder, model, options)
            converter = BundleConverter(
                folder,
                model,
                out,
                options,
                check=_checker(folder),
                defaults=packaged_documents(),
                hasher=file_sha256,
                memory=_imported,
                progress=progress,
            )
            written = converter.run()
        except ManyProblems as error:
            for problem in error.problems:
                console.error(problem)
            ctx.exit(1)
        except GgufError as error:
            raise BundleError(str(error)) from error
    for label, value in converter.summary(written):
        console.write_out(f"{label:<16} {value}\n")


def _checker(folder: Path) -> Callable[[str, bytes], list[str]]:
    """Looks at the documents with the schemas that a session reads them by, and at what they say of each other."""
    from ltm_edge.errors import BundleError, SchemaError
    from ltm_edge.overlay_set import load_overlay
    from ltm_edge.schemas.curriculum import parse_curriculum

    def check(name: str, raw: bytes) -> list[str]:
        try:
            if name in ("curriculum.yaml", "ltm_curriculum.yaml"):
                parse_curriculum(raw, name)
            elif name == "ltm_overlay_config.yaml":
                load_overlay(folder)  # reads and checks all of them together
        except SchemaError as error:
            return [str(problem) for problem in error.problems]
        except BundleError as error:
            return [str(error)]
        return []

    return check


def _imported(folder: Path, store: Path) -> int:
    """The converter's import of a FAISS memory, with errors of its own kind."""
    from gguf_tools.errors import BadSource
    from gguf_tools.printable import printable
    from ltm_edge.errors import InputError, MemoryStoreError
    from ltm_edge.memory.bundled import store_of_folder
    from ltm_edge.memory.faiss_folder import META

    try:
        return store_of_folder(folder, store)
    except InputError as error:
        raise BadSource(folder / META, printable(str(error).removeprefix(f"{folder / META}: "), 400)) from error
    except MemoryStoreError as error:
        what, _, remedy = str(error).rpartition("; ")
        raise BadSource(folder / META, printable(what, 400), remedy=printable(remedy, 200)) from error


def _chosen(folder: Path, base: Path, options: Options) -> Options:
    """The options with the type that measuring chose."""
    from dataclasses import replace

    from gguf_tools.choose_type import choose_type
    from ltm_edge.cli import console
    from ltm_edge.engine.options import default_threads

    choice = choose_type(folder, base, options, passages=lambda: _own_words(folder, base), threads=default_threads())
    for line in choice.lines():
        console.notice(line)
    return replace(options, outtype=choice.outtype)


def _own_words(folder: Path, base: Path) -> list[Passage]:
    """What the bundle's LoRA was made for, in the base's tokens."""
    from ltm_edge.bundle import Bundle
    from ltm_edge.overlay_set import load_overlay
    from ltm_edge.training.own_words import own_words

    with Bundle.open(base, ctx=256, gpu_layers=0) as bundle:
        return own_words(folder, load_overlay(folder), bundle.model)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar with rates on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield tell
