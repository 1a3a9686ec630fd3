"""The main path without a network: in a namespace that has no interfaces, and under a guard that ends whoever asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "tests" / "embedding" / "offline_guard"
QUICK = ("--threads", "1", "--ctx", "1024", "--seed", "1", "--max-tokens", "60")
SECONDS = 600  # a machine that does other work writes a few tokens a second

Run = Callable[..., str]


def namespace() -> list[str]:
    """The command that runs another one in a network namespace of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    pytest.skip("network namespaces are not permitted here")


@pytest.fixture(params=["namespace", "guard"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run a program where there is no network; what it prints."""
    env = os.environ | {"LTM_EDGE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    before: list[str] = []
    log = tmp_path / "network"
    if request.param == "namespace":
        before = namespace()
    else:
        env |= {"PYTHONPATH": os.pathsep.join([str(GUARD), str(ROOT)]), "OFFLINE_LOG": str(log)}

    def call(*arguments: str, given: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [*before, sys.executable, *arguments],
            input=given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=env,
            cwd=tmp_path,
            timeout=SECONDS,
        )
        assert not log.exists(), log.read_text()
        assert done.returncode == code, done.stderr
        return done.stdout

    return call


@pytest.mark.needs_model
def test_the_main_path_needs_no_network(run: Run, demo_path: Path, tmp_path: Path):
    def ltm_edge(*arguments: str, given: str = "") -> str:
        return run("-m", "ltm_edge", *arguments, given=given)

    bundle = tmp_path / "mine.gguf"
    ltm_edge("new", "mine", "--base", str(demo_path), "-o", str(tmp_path / "mine"))
    ltm_edge("convert", str(tmp_path / "mine"), "--base", str(demo_path), "-o", str(bundle))
    said = ltm_edge("chat", str(bundle), *QUICK, given="My garden keeps dying.\nAnd the roses?\n")
    assert len(said.splitlines()) >= 2
    assert ltm_edge("run", str(bundle), "--text", "My garden keeps dying.", "--form", "yaml", *QUICK).startswith(
        "scene:"
    )
    ltm_edge("memory", "search", "roses")
    assert "scenes" in ltm_edge("memory", "stats")
    assert "llama" in ltm_edge("inspect", str(bundle))
    shutdown = '{"jsonrpc":"2.0","id":1,"method":"shutdown"}\n'
    assert '"result":null' in ltm_edge("stdio", given=shutdown)


def test_in_the_namespace_there_is_nothing_to_reach():
    code = "import socket; s = socket.socket(); s.settimeout(5); s.connect(('192.0.2.1', 80))"
    done = subprocess.run([*namespace(), sys.executable, "-c", code], capture_output=True, text=True)
    assert "unreachable" in done.stderr.lower()


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    ],
)
def test_the_guard_sees_whoever_asks(code: str, tmp_path: Path):
    log = tmp_path / "network"
    env = os.environ | {"PYTHONPATH": str(GUARD), "OFFLINE_LOG": str(log)}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 99
    assert log.read_text().startswith(("socket.", "urllib."))


def test_no_module_of_the_library_can_open_a_connection():
    """Read from the sources: nothing imports a network module."""
    import ast

    network = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "urllib3"}
    for folder in ("ltm_edge", "gguf_tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                for name in names:
                    assert name.split(".")[0] not in network, f"{path.name}:{node.lineno}: {name}"
