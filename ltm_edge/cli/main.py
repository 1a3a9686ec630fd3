"""The ``ltm-edge`` command: global options, lazily loaded subcommands, errors turned into one line and an exit code.

Exit codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted, 141 stdout closed early, 143 terminated.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ltm_edge.cli import console
from ltm_edge.errors import LtmError, SchemaError

__all__ = ["cli", "main"]

# name: (module, attribute, one line for the overview); a test compares the line with the command's own help
COMMANDS: dict[str, tuple[str, str, str]] = {
    "chat": ("ltm_edge.cli.chat", "chat", "Talk to a model in scenes."),
    "run": ("ltm_edge.cli.run", "run", "Answer one request and print the result."),
    "pvq": ("ltm_edge.cli.pvq", "pvq", "Show how a request is lifted: phase, archetypes, goal, tension."),
    "memory": ("ltm_edge.cli.memory", "memory", "Look at the scene memory, change it, carry it elsewhere."),
    "log": ("ltm_edge.cli.log", "log", "Show what was accepted, strengthened or trained, and when."),
    "new": ("ltm_edge.cli.new", "new", "Make a commented bundle folder to start from."),
    "convert": ("ltm_edge.cli.convert", "convert", "Make a bundle of a folder and a base model."),
    "calibrate": (
        "ltm_edge.cli.calibrate",
        "calibrate",
        "Find out what a model's word on scenes is worth to the critics.",
    ),
    "train": ("ltm_edge.cli.train", "train", "Train a bundle folder's LoRA by its curriculum."),
    "eval": ("ltm_edge.cli.evaluate", "evaluate", "Measure what models have learned of scenes."),
    "inspect": ("ltm_edge.cli.inspect", "inspect", "Show what a GGUF file or a bundle holds."),
    "doctor": ("ltm_edge.cli.doctor", "doctor", "Check the installation and say what to do about each problem."),
    "stdio": (
        "ltm_edge.cli.stdio",
        "stdio",
        "Serve programs in other languages: JSON-RPC over stdin and stdout.",
    ),
    "bench": (
        "ltm_edge.cli.bench",
        "bench",
        "Measure masks, turns, answers, critics, memory and more.",
    ),
}

INTERRUPTED = 130
PIPE_CLOSED = 141

EPILOG = """\b
Shell completion (once, then open a new shell):
  bash  echo 'eval "$(_LTM_EDGE_COMPLETE=bash_source ltm-edge)"' >> ~/.bashrc
  zsh   echo 'eval "$(_LTM_EDGE_COMPLETE=zsh_source ltm-edge)"' >> ~/.zshrc
  fish  _LTM_EDGE_COMPLETE=fish_source ltm-edge > ~/.config/fish/completions/ltm-edge.fish
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used, so that ``--help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        if cmd_name not in COMMANDS:
            return None
        _quiet_log()
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        command.params.extend(_global_options())  # `ltm-edge chat -v` is what people type
        self.commands[cmd_name] = command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Commands: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except BrokenPipeError:  # caught here since click's own handler would exit with 1
            console.close_stdout()
            return PIPE_CLOSED

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        extra.pop("standalone_mode", None)
        console.set_up_streams()
        code = 0
        try:
            result = super().main(args, prog_name or "ltm-edge", standalone_mode=False, **extra)
            code = result if isinstance(result, int) else 0
        except (click.exceptions.Abort, KeyboardInterrupt):  # Abort is click's word for an interrupt
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except Exception as error:
            code = _failed(error)
        sys.exit(code)


def _failed(error: Exception) -> int:
    if _debug():
        raise error
    if isinstance(error, SchemaError):
        for problem in error.problems:  # a line each, as compilers do: there may be dozens
            console.error(str(problem))
    elif isinstance(error, LtmError):
        console.error(str(error) or type(error).__name__)
    elif type(error) is ImportError:  # the extension or llama.cpp isn't the right one, and the message says what to do
        console.error(str(error))
    elif isinstance(error, MemoryError):
        console.error("out of memory; a smaller model, --ctx or --kv-type q8_0 need less")
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{error.strerror or error}")
    else:
        console.error(f"{type(error).__name__}: {error} (a defect of ltm-edge; --debug shows where)")
    return 1


def _debug() -> bool:
    return _state["debug"]


_state = {"debug": False}


def _quiet_log() -> None:
    """Without -v the log is silent; Python would print warnings of loggers that nobody set up."""
    import logging

    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _state["debug"] = True


def _set_verbose(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if not value or ctx.resilient_parsing:
        return
    import logging

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if value > 1 else logging.INFO,
        format="%(name)s: %(message)s",
        force=True,
    )


def _global_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_set_verbose,
            help="Show the log on stderr, llama.cpp's too; -vv shows more.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks of errors."
        ),
    ]


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from ltm_edge import __version__

    click.echo(f"ltm-edge {__version__}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and leave.",
)
def cli() -> None:
    """Talk to a local language model that answers through typed scenes."""


cli.params.extend(_global_options())


def main() -> None:
    """Entry point of the ``ltm-edge`` script."""
    cli.main()
