"""The command itself: quick help, errors in one line, exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from click.testing import Result

from ltm_edge.cli import console
from ltm_edge.cli import main as main_module
from ltm_edge.cli.main import COMMANDS, cli
from ltm_edge.errors import BundleError, Problem, SchemaError
from tests.timing import ROOT, cpu_seconds, slowness

from .fakes import FakeBundle

Invoke = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_help_lists_every_command(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name, (_, _, about) in COMMANDS.items():
        assert name in result.output and about in result.output
    assert "_LTM_EDGE_COMPLETE=bash_source" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(200) == COMMANDS[name][2]
    assert any("--debug" in option.opts for option in command.params)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from click.testing import CliRunner; before = set(sys.modules);"
        "from ltm_edge.cli.main import cli; CliRunner().invoke(cli, ['--help']);"
        "print(' '.join(sorted(name.partition('.')[0] for name in set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"llama_cpp", "numpy", "yaml", "pydantic", "rich", "prompt_toolkit", "jinja2", "gguf", "torch", "asyncio"}
    assert heavy.isdisjoint(result.stdout.split())


@pytest.mark.skipif(sys.platform == "win32", reason="reads the processor time of children")
def test_help_is_quick() -> None:
    taken = cpu_seconds("-m", "ltm_edge", "--help")
    assert taken < 0.150 * slowness(), f"{taken * 1000:.0f} ms"


def test_version(invoke: Invoke) -> None:
    from ltm_edge import __version__

    assert invoke("--version").output == f"ltm-edge {__version__}\n"


def test_an_unknown_command_suggests_the_nearest(invoke: Invoke) -> None:
    result = invoke("caht")
    assert result.exit_code == 2
    assert "Did you mean 'chat'?" in result.output
    assert "Commands: chat" in invoke("xyz").output


@pytest.mark.parametrize(
    "args", [["run"], ["run", "--text", "a", "--pvq", "b"], ["chat", "--nope"], ["run", "--seed", "x"]]
)
def test_wrong_usage_is_2(invoke: Invoke, bundle: FakeBundle, args: list[str]) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_an_error_is_one_line_on_stderr(invoke: Invoke, bundle: FakeBundle) -> None:
    result = invoke("run", "--text", "fail here")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "error: can't answer 'fail here': asked to fail over two lines"


def test_each_problem_of_a_file_has_its_line(
    invoke: Invoke, bundle: FakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [Problem("a.yaml", "x", "unknown key", 3, 1), Problem("b.yaml", "", "not\nYAML")]
    monkeypatch.setattr(bundle, "session", Mock(side_effect=SchemaError(problems)))
    result = invoke("run", "--text", "a")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == ["error: a.yaml:3:1: x: unknown key", "error: b.yaml: not YAML"]


def test_debug_shows_the_traceback(invoke: Invoke, bundle: FakeBundle) -> None:
    for args in (("--debug", "run", "--text", "fail"), ("run", "--text", "fail", "--debug")):
        result = invoke(*args)
        assert result.exit_code == 1 and type(result.exception).__name__ == "InputError"
        main_module._state["debug"] = False


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BundleError("x.gguf: no such file\x1b[2J"), 1, "error: x.gguf: no such file\\x1b[2J"),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "a.txt"), 1, "error: a.txt: Permission denied"),
        (ValueError("odd"), 1, "error: ValueError: odd (a defect of ltm-edge; --debug shows where)"),
        (ImportError("llama.cpp is another: pip install it"), 1, "error: llama.cpp is another: pip install it"),
        (MemoryError(), 1, "error: out of memory"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_exit_codes(
    invoke: Invoke, bundle: FakeBundle, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(bundle, "session", fail)
    monkeypatch.setattr(console, "close_stdout", lambda: None)
    result = invoke("run", "--text", "hello")
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_verbose_sends_the_log_to_stderr(command: Process) -> None:
    for args in (("-v", "chat"), ("chat", "-v"), ("chat",)):
        result = command(*args, "--private", input=b"logged hello\n")
        assert result.returncode == 0
        assert result.stdout.startswith(b"You said logged hello")
        assert result.stderr == (b"llama.cpp: a warning\n" if "-v" in args else b"")


def test_stdout_closed_early_is_quiet(command: Process) -> None:
    script = f"{sys.executable} -m tests.cli.fake_main chat --private; echo $? >&2"
    result = subprocess.run(
        ["bash", "-c", f"({script}) | head -c 10"], input=b"one\n" * 200, capture_output=True, cwd=ROOT
    )
    assert result.stdout == b"You said o"
    assert result.stderr == b"141\n"


def test_control_characters_are_spelled_out() -> None:
    assert console.printable("a\x1b[31m\x00\x9b\tb\n") == "a\\x1b[31m\\x00\\x9b\tb\n"
    assert console.one_line(" a\n b\tc ") == "a b c"


def test_model_options_reach_the_bundle(invoke: Invoke, bundle: FakeBundle) -> None:
    args = "--gpu-layers 7 --threads 2 --ctx 512 --flash-attn on --kv-type q8_0 --overlay dir --device CUDA0 --lang ru"
    assert invoke("run", "x.gguf", "--text", "a", *args.split()).exit_code == 0
    path, model = bundle.opened_with
    assert path == "x.gguf"
    assert (model.gpu_layers, model.threads, model.ctx, model.flash_attn) == (7, 2, 512, "on")
    assert (model.kv_type, str(model.overlay), model.device, model.lang) == ("q8_0", "dir", "CUDA0", "ru")
    assert bundle.sessions[0].settings["lang"] == "ru"
    assert invoke("run", "--text", "a", "--gpu-layers", "all").exit_code == 0
    assert bundle.opened_with[1].gpu_layers == "all"
    for bad in ("-1", "some", "1.5", "٣"):
        assert invoke("run", "--text", "a", "--gpu-layers", bad).exit_code == 2


def test_choices_are_those_of_the_layers_below() -> None:
    from ltm_edge.cli.options import FORMS, KV_TYPES, SEED_MAX
    from ltm_edge.engine.options import KV_TYPES as ENGINE_KV_TYPES
    from ltm_edge.scene.pvq import FORMS as PVQ_FORMS
    from ltm_edge.settings import MAX_SEED

    assert (FORMS, KV_TYPES, SEED_MAX) == (PVQ_FORMS, ENGINE_KV_TYPES, MAX_SEED)


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as POSIX shells do")
@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [(">&-", 1, "error: stdout: is closed"), (">/dev/full", 1, "error: stdout: No space left"), ("2>&-", 0, "")],
)
def test_streams_that_cannot_be_written(home: Path, redirection: str, code: int, words: str) -> None:
    if redirection == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    result = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tests.cli.fake_main run --text hello {redirection}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr and "defect" not in result.stderr
    assert words in result.stderr
