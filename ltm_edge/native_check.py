"""Whether the llama.cpp that is there is the one the extension was built for, and whether this CPU can run it.

What doesn't fit ends in one sentence here; later it would end in wrong numbers or in an illegal instruction.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

__all__ = ["check_back_end", "check_build", "check_cpu", "check_release", "found_release", "missing_instructions"]

# Instructions that llama.cpp may be built with and says so, `ggml_cpu_has_…`. ltm-edge asks the CPU for the same.
INSTRUCTIONS = ("sse3", "ssse3", "avx", "avx2", "bmi2", "fma", "avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16")


def found_release(folder: Path) -> str:
    """The release of llama-cpp-python whose libraries are in ``folder``, as its package says; empty if it doesn't."""
    try:
        text = (folder.parent / "__init__.py").read_text("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(r"""^__version__\s*=\s*["']([^"']{1,64})["']""", text, re.MULTILINE)
    return found[1] if found else ""


def check_release(folder: Path, wanted: str) -> None:
    """Look at the package's release before its libraries are loaded. Where it doesn't say (a frozen program has no
    sources), the libraries are asked later.

    Raises:
        ImportError: it is another one.
    """
    found = found_release(folder)
    if found and found != wanted:
        raise ImportError(
            f"{folder.parent}: llama-cpp-python {found}, ltm-edge is built for {wanted}: "
            f"pip install llama-cpp-python=={wanted}"
        )


def check_build(core: ModuleType, folder: Path, wanted: str) -> None:
    """Compare the loaded libllama with what the extension was built for.

    Raises:
        ImportError: they differ; the message says in what and what to install.
    """
    if core.built_for != wanted:
        raise ImportError(
            f"ltm-edge's extension was built for llama-cpp-python {core.built_for}, its other files for {wanted}: "
            "install ltm-edge again"
        )
    mismatch = core.llama_mismatch()
    if mismatch:
        raise ImportError(f"{folder}: {mismatch}: pip install --force-reinstall llama-cpp-python=={wanted}")


def check_cpu(core: ModuleType, folder: Path, wanted: str) -> None:
    """Compare the instructions that llama.cpp's CPU back end was built with to those of this CPU, before it is used.

    Raises:
        ImportError: it needs some that this CPU doesn't have.
    """
    # The library that is loaded already; its symbols include those of the back end that it needs. The back end itself
    # would be loaded a second time by its path: a wheel holds it under two names.
    path = folder / ("ggml-cpu.dll" if sys.platform == "win32" else "libggml.so")
    features = core.cpu_features()
    if not features or not path.exists():  # this machine can't be asked
        return
    library = ctypes.CDLL(str(path))

    def built_with(name: str) -> bool:
        # Where back ends are files of their own there is no such function here: one is chosen that fits the CPU.
        return bool(getattr(library, f"ggml_cpu_has_{name}", int)())

    missing = missing_instructions(built_with, features)
    if missing:
        raise ImportError(
            f"{folder}: built for CPUs with {', '.join(missing)}, which this one doesn't have; build it here: "
            f"pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python=={wanted}"
        )


def check_back_end(core: ModuleType, folder: Path, wanted: str) -> None:
    """Look whether llama.cpp has loaded a back end: where they are files of their own, none may be there that fits.

    Raises:
        ImportError: it has none.
    """
    if not core.system_info().strip():
        raise ImportError(
            f"{folder}: llama.cpp has no back end there that runs on this CPU (files named ggml-cpu): "
            f"pip install --force-reinstall llama-cpp-python=={wanted}"
        )


def missing_instructions(built_with: Callable[[str], bool], features: Iterable[str]) -> list[str]:
    """Names of the instructions that a back end was built with and a CPU doesn't have."""
    has = set(features)
    return [name for name in INSTRUCTIONS if name not in has and built_with(name)]
