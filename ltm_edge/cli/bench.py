"""`ltm-edge bench`: measure this machine; our engine and others on the same input, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltm_edge.cli.outputs import check_writable, json_text, write_file

if TYPE_CHECKING:
    from ltm_edge.bench.report import Report
    from ltm_edge.bench.requests import HeldOut

__all__ = ["bench"]

_LEAST, _MOST = 100, 10_000_000  # vectors

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), help="CPU threads; one per core if not given."
)
_tokens_option = click.option(
    "--tokens", type=click.IntRange(60, 4096), help="Most of a document; as the overlay says if not given."
)
_out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the report with all answers, as JSON."
)


@click.group()
def bench() -> None:
    """Measure masks, turns, answers, critics, memory and more."""


@bench.command()
@click.argument("files", metavar="[GGUF ...]", nargs=-1)
@click.option("--rounds", type=click.IntRange(1, 10000), default=20, show_default=True, help="Walks along a document.")
@_json_option
def masks(files: tuple[str, ...], rounds: int, as_json: bool) -> None:
    """Cost of grammar masks: ours, llama.cpp's, llguidance's and XGrammar's.

    Without a file the demo model's vocabulary is used; files with a vocabulary and no weights will do. llguidance and
    XGrammar are measured if they are installed.
    """
    from ltm_edge.bench.masks import bench_masks
    from ltm_edge.models import existing_file, find_demo_model

    paths = [existing_file(name) for name in files] or [find_demo_model().path]
    report = bench_masks(paths, rounds, _progress)
    _print(report, as_json)


@bench.command()
@click.argument("file", metavar="[GGUF]", required=False)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Answers to each request.")
@click.option("--requests", type=click.IntRange(1, 4), default=3, show_default=True, help="How many requests.")
@click.option("--tokens", type=click.IntRange(50, 1200), default=400, show_default=True, help="Most of a document.")
@_threads_option
@_json_option
def decode(file: str | None, rounds: int, requests: int, tokens: int, threads: int | None, as_json: bool) -> None:
    """Cost of decoding under a grammar: against free text and against llama-cpp-python.

    One scene takes a few seconds, and every request is answered nine times a round.
    """
    from ltm_edge.bench.decode import bench_decode
    from ltm_edge.models import resolve_model

    report = bench_decode(resolve_model(file), rounds, requests, tokens, threads, _progress)
    _print(report, as_json)


@bench.command()
@click.argument("file", metavar="[GGUF]", required=False)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="How often.")
@click.option("--tokens", type=click.IntRange(60, 400), default=200, show_default=True, help="Most of a draft.")
@click.option("--scenes", type=click.IntRange(20, 100_000), default=10_000, show_default=True, help="In the memory.")
@_threads_option
@_json_option
def turn(file: str | None, rounds: int, tokens: int, scenes: int, threads: int | None, as_json: bool) -> None:
    """Cost of a turn: its passes, whole turns against the bare draft, the share of each stage.

    Whole turns recall from a memory that is made for it, which takes some seconds.
    """
    from ltm_edge.bench.turn import bench_turn
    from ltm_edge.models import resolve_model

    report = bench_turn(resolve_model(file), rounds, tokens, threads, scenes, _progress)
    _print(report, as_json)


@bench.command()
@click.argument("file", metavar="[GGUF]", required=False)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="How often.")
@click.option("--texts", type=click.IntRange(4, 100000), default=120, show_default=True, help="How many texts.")
@_threads_option
@_json_option
def embed(file: str | None, rounds: int, texts: int, threads: int | None, as_json: bool) -> None:
    """Cost of embedding texts: batched and one by one, F16 and Q8_0.

    Without a file the demo embedder is used; sentence-transformers is measured beside it if it is installed.
    """
    from ltm_edge.bench.embed import bench_embed
    from ltm_edge.models import existing_file

    report = bench_embed(existing_file(file) if file else None, rounds, texts, threads, _progress)
    _print(report, as_json)


@bench.command()
@click.argument("file", metavar="[GGUF]", required=False)
@click.option("--layers", type=click.IntRange(0, 80), default=0, show_default=True, help="Of a made-up 7B-shaped file.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="How often.")
@_json_option
def convert(file: str | None, layers: int, rounds: int, as_json: bool) -> None:
    """Speed and memory of merging a LoRA into a model; what opening the bundle takes.

    Beside it llama.cpp's llama-export-lora, if it is on the PATH. A made-up Q8_0 file in the shapes of a 7B model
    takes 0.2 GB a layer on the disk, three times over.
    """
    from ltm_edge.bench.convert import bench_convert
    from ltm_edge.models import resolve_model

    report = bench_convert(resolve_model(file), layers, rounds, _progress)
    _print(report, as_json)


class _Sizes(click.ParamType):  # type: ignore[type-arg]
    """Counts such as ``10k,100k,1m``."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        found = []
        for part in str(value).lower().split(","):
            digits, factor = part.strip(), 1
            if digits.endswith(("k", "m")):
                digits, factor = digits[:-1], {"k": 1000, "m": 1_000_000}[digits[-1]]
            if not digits.isdecimal() or not _LEAST <= int(digits) * factor <= _MOST:
                self.fail(f"{part!r} is not a count from {_LEAST} to {_MOST}, such as 10k or 1m", param, ctx)
            found.append(int(digits) * factor)
        return tuple(found)


@bench.command()
@click.option("--sizes", type=_Sizes(), default="10k,100k", show_default=True, help="Vectors, such as 10k,100k,1m.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="How often each query.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads that build; one per core if not given.")
@click.option(
    "--patience", type=click.FloatRange(1), default=1800, show_default=True, help="Seconds to build an index."
)
@click.option("--only", multiple=True, metavar="NAME", help="Measure only indexes whose names hold this.")
@_json_option
def memory(
    sizes: tuple[int, ...], rounds: int, threads: int | None, patience: float, only: tuple[str, ...], as_json: bool
) -> None:
    """Cost of scene memory: the vector index, adding a scene, scoring candidates.

    hnswlib, usearch and FAISS are measured beside the index if they are installed. A million vectors take some 8 GB of
    memory and, on two cores, half an hour for each graph.
    """
    from ltm_edge.bench.memory import bench_memory

    report = bench_memory(sizes, rounds, threads, patience, only, _progress)
    _print(report, as_json)


@bench.command()
@click.argument("folder", metavar="[FOLDER]", required=False)
@click.option(
    "--half",
    type=click.Choice(["report", "tune", "all"]),
    default="report",
    show_default=True,
    help="Whose questions are asked; the weights were tuned on the other half.",
)
@_json_option
def recall(folder: str | None, half: str, as_json: bool) -> None:
    """Quality of recall on hand-written stories: resonance, its terms, cosine, words.

    All stories of the folder (by default the source's own) go into one memory, as turns would put them there; then
    questions are asked about one half of them.
    """
    from ltm_edge.bench.recall import bench_recall
    from ltm_edge.bench.stories import find_stories, load_stories
    from ltm_edge.embedders import demo_embedder

    stories = load_stories(Path(folder) if folder else find_stories())
    with demo_embedder() as embedder:
        report = bench_recall(stories, embedder, half, progress=_progress)
    _print(report, as_json)


@bench.command()
@click.argument("model", metavar="[MODEL]", required=False)
@click.option("--triples", metavar="FOLDER", help="Triples to judge; by default the source's own.")
@click.option(
    "--half",
    type=click.Choice(["report", "tune", "all"]),
    default="report",
    show_default=True,
    help="Which are reported; signals were set on the other half.",
)
@click.option("--probe/--no-probe", default=True, show_default=True, help="Ask the model the critics' questions.")
@_threads_option
@_json_option
def critics(model: str | None, triples: str | None, half: str, probe: bool, threads: int | None, as_json: bool) -> None:
    """What the critics tell apart: good scenes and hand-damaged ones.

    Each critic's signals, the model's own word, and both; for the damages that the critic is there for and for the
    others. Asking the model takes some minutes.
    """
    from ltm_edge.bench.critics import bench_critics
    from ltm_edge.bench.triples import find_triples, load_plain, load_triples
    from ltm_edge.cli.calibrate import covering, hearing_of
    from ltm_edge.embedders import demo_embedder
    from ltm_edge.loop.critics.critic import built_in
    from ltm_edge.overlay_set import load_overlay

    folder = Path(triples) if triples else find_triples()
    loaded, plain = load_triples(folder), load_plain(folder)
    with demo_embedder(threads=threads) as embedder:
        embed = covering(embedder)
        if not probe:
            overlay = load_overlay().overlay
            report = bench_critics(loaded, built_in(overlay), half, plain=plain, embed=embed, progress=_progress)
        else:
            from ltm_edge.bundle import Bundle

            with Bundle.open(model, threads=threads) as bundle:
                report = bench_critics(
                    loaded,
                    built_in(bundle.overlay),
                    half,
                    plain=plain,
                    embed=embed,
                    hearing=hearing_of(bundle),
                    model=bundle.model_info["name"],
                    progress=_progress,
                )
    _print(report, as_json)


@bench.command()
@click.argument("file", metavar="[GGUF]", required=False)
@click.option("--requests", metavar="FILE", help="Requests to answer; by default the source's own 60.")
@_tokens_option
@_threads_option
@_out_option
@_json_option
def quality(
    file: str | None, requests: str | None, tokens: int | None, threads: int | None, out: Path | None, as_json: bool
) -> None:
    """Quality of answers with routing and the self-loop on and off.

    Every request is answered five times with the same seed, some seconds each: plainly, with routing, with the loop,
    with both, and as the overlay says, which may hold consilia.
    """
    from ltm_edge.bench.quality import bench_quality
    from ltm_edge.models import resolve_model

    asked = _requests(requests, "quality")
    check_writable(out)
    report = bench_quality(resolve_model(file), asked, threads, tokens, _progress)
    _print(report, as_json)
    if out is not None:
        write_file(out, json_text(report.to_dict(answers=True)))


@bench.command()
@click.argument("file", metavar="[GGUF]", required=False)
@click.option("--requests", metavar="FILE", help="English requests to answer; by default the source's own 40.")
@_tokens_option
@_threads_option
@_out_option
@_json_option
def channels(
    file: str | None, requests: str | None, tokens: int | None, threads: int | None, out: Path | None, as_json: bool
) -> None:
    """Whether channels change what is written: a classifier tells their answers apart.

    Each channel answers each request, some seconds each; by prompts only and, where the bundle has channel adapters,
    by heads only and by both.
    """
    from ltm_edge.bench.channels import bench_channels
    from ltm_edge.models import resolve_model

    asked = _requests(requests, "channels")
    check_writable(out)
    report = bench_channels(resolve_model(file), asked, threads, tokens, _progress)
    _print(report, as_json)
    if out is not None:
        write_file(out, json_text(report.to_dict(answers=True)))


def _requests(file: str | None, name: str) -> list[HeldOut]:
    from ltm_edge.bench.requests import find_requests, load_requests

    return load_requests(Path(file) if file else find_requests(name))


def _progress(what: str) -> None:
    click.echo(f"measuring {what}", err=True)


def _print(report: Report, as_json: bool) -> None:
    click.echo(json_text(report.to_dict()) if as_json else "\n".join(report.lines()))
