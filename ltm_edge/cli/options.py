"""Options that several commands share, gathered into one value per decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ltm_edge.cli.session_api import ChatBundle

__all__ = [
    "FORMS",
    "MemoryOptions",
    "ModelOptions",
    "bundle_argument",
    "memory_options",
    "model_options",
    "open_bundle",
    "sampling_options",
]

FORMS = ("auto", "text", "yaml", "json", "image", "refusal")
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
SEED_MAX = 2**32 - 2  # llama.cpp reads the value above as "any seed"

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is loaded; the defaults are those of ``Bundle.open``."""

    gpu_layers: int | str = "auto"
    device: str | None = None
    threads: int | None = None
    ctx: int | None = None
    flash_attn: str = "auto"
    kv_type: str = "f16"
    overlay: Path | None = None
    lang: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """Which scene memory is used: a name in the data folder or a path; ``off``: none."""

    memory: str = "default"
    off: bool = False


def _gpu_layers(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    if value in ("auto", "all"):
        return value
    if value.isascii() and value.isdigit() and len(value) < 6:
        return int(value)
    raise click.BadParameter(f"{value!r} is not auto, all or a number of layers.", ctx, param)


_MODEL = [
    click.Option(
        ["--gpu-layers"],
        metavar="auto|all|N",
        callback=_gpu_layers,
        default="auto",
        show_default=True,
        help="Layers to put on the GPU; auto puts there what fits.",
    ),
    click.Option(["--device"], metavar="NAME", help="Device to run on, as `ltm-edge doctor` lists them."),
    click.Option(["--threads"], type=click.IntRange(1, 1024), metavar="N", help="CPU threads."),
    click.Option(
        ["--ctx"],
        type=click.IntRange(128, 2**24),
        metavar="N",
        help="Context in tokens; by default 4096, or less if the model has less.",
    ),
    click.Option(["--flash-attn"], type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True),
    click.Option(
        ["--kv-type"], type=click.Choice(KV_TYPES), default="f16", show_default=True, help="Type of the KV cache."
    ),
    click.Option(
        ["--overlay"],
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder with an overlay to use instead of the bundle's own.",
    ),
    click.Option(["--lang"], metavar="CODE", help="Language of the scenes, such as en or ru; else the request's."),
]

_SAMPLING = [
    click.Option(
        ["--seed"],
        type=click.IntRange(0, SEED_MAX),
        metavar="N",
        help="Same seed, same answer on the same machine.",
    ),
    click.Option(["--max-tokens"], type=click.IntRange(1, 2**20), metavar="N", help="Longest answer in tokens."),
    click.Option(["--temperature"], type=click.FloatRange(0, 10), metavar="X", help="0 takes the likeliest token."),
    click.Option(["--top-k"], type=click.IntRange(0, 2**20), metavar="N"),
    click.Option(["--top-p"], type=click.FloatRange(0.001, 1), metavar="X"),
    click.Option(["--min-p"], type=click.FloatRange(0, 0.999), metavar="X"),
    click.Option(["--repeat-penalty"], type=click.FloatRange(0.01, 10), metavar="X"),
    click.Option(
        ["--channel", "channels"],
        metavar="NAME=X,...",
        help="Channels to answer in, such as poet=0.7,ironist=0.3; else each request is routed.",
    ),
    click.Option(
        ["--council"], type=click.Choice(["auto", "on", "off"]), help="Whether several channels draft at once."
    ),
    click.Option(
        ["--budget"],
        type=click.FloatRange(0, 86400, min_open=True),
        metavar="SECONDS",
        help="From then on a turn begins no further draft.",
    ),
]

bundle_argument = click.argument("bundle", required=False, metavar="[BUNDLE_OR_GGUF]", type=click.Path())


def model_options(function: Function) -> Function:
    """Add the options that say how a model is loaded; the command gets them as ``model: ModelOptions``."""
    return _gather(function, _MODEL, "model", lambda values: ModelOptions(**values))


def sampling_options(function: Function) -> Function:
    """Add the options that a turn goes by; the command gets those that were given as ``sampling: dict``."""
    return _gather(function, _SAMPLING, "sampling", lambda values: {k: v for k, v in values.items() if v is not None})


def open_bundle(path: str | None, model: ModelOptions) -> ChatBundle:
    """Load a bundle or a GGUF file; without a path the demo model.

    Raises:
        LtmError: it isn't there, can't be used, or doesn't fit.
    """
    from ltm_edge.bundle import Bundle

    bundle: ChatBundle = Bundle.open(
        path,
        gpu_layers=model.gpu_layers,
        device=model.device,
        threads=model.threads,
        ctx=model.ctx,
        flash_attn=model.flash_attn,
        kv_type=model.kv_type,
        overlay=model.overlay,
    )
    return bundle


def memory_options(function: Function, *, default: bool = True) -> Function:
    """Add ``--memory`` and ``--no-memory``; the command gets them as ``memory: MemoryOptions``.

    Args:
        function: the command.
        default: whether there is a memory where none is asked for.
    """
    own = " By default default." if default else ""
    options = [
        click.Option(
            ["--memory"],
            metavar="NAME|FOLDER",
            help=f"Scene memory to recall from and store in: a name in the data folder, or a path (with a slash).{own}",
        ),
        click.Option(
            ["--no-memory", "no_memory"],
            is_flag=True,
            help="Recall nothing, store nothing." + ("" if default else " The default."),
        ),
    ]

    def build(values: dict[str, Any]) -> MemoryOptions:
        name = values["memory"]
        if name is not None and values["no_memory"]:
            raise click.UsageError("--no-memory uses no memory and --memory names one; give one.")
        off = values["no_memory"] or (name is None and not default)
        return MemoryOptions(name if name is not None else "default", off)

    return _gather(function, options, "memory", build)


def _gather(
    function: Function, options: list[click.Option], name: str, build: Callable[[dict[str, Any]], Any]
) -> Function:
    keys = [option.name for option in options if option.name is not None]

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        kwargs[name] = build({key: kwargs.pop(key) for key in keys})
        return function(*args, **kwargs)

    # click collects options from this list in reverse, as decorators are applied bottom up
    command.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(options)]  # type: ignore[attr-defined]
    return command  # type: ignore[return-value]
