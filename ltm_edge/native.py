"""Loading the extension, and llama.cpp's log.

One process must hold one libllama. A wheel holds the library under two file names (``libllama.so`` and
``libllama.so.0``, copies of each other): the ``llama_cpp`` package opens the first by path, the extension asks for the
second by name, and the dynamic loader would map both. So the files that ``llama_cpp`` opens are opened here before
the extension is; its request is then met by them, and a later ``import llama_cpp`` finds them loaded. The package
itself is not imported: nothing of it is needed, and it would install a log handler of its own.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from ltm_edge.native_check import check_back_end, check_build, check_cpu, check_release

LLAMA_CPP_PYTHON = "0.3.36"
"""The release of llama-cpp-python that the extension is built against."""

_LIBRARIES = ("ggml", "llama")
# llama.cpp meets at an OpenMP barrier some six hundred times a token. GNU's runtime spins there for milliseconds before
# it sleeps, and when another program takes a core the spinning thread keeps the late one from running: on two cores
# beside one busy process a token took over a second, with this limit about 0.1 s; on quiet cores both take 10 ms.
_SPIN = ("GOMP_SPINCOUNT", "3000")
_SPIN_KEYS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")

_END = 10.0  # seconds that threads in native code get to come out of it when Python ends; a stop takes 0.1

_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}

logger = logging.getLogger("ltm_edge.llama")
# Quiet unless the application configures logging: without a handler Python would print warnings by itself.
logging.getLogger("ltm_edge").addHandler(logging.NullHandler())


def llama_lib_folder() -> Path | None:
    """Folder that holds libllama, or None if llama-cpp-python isn't installed."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "lib"


def _preload(folder: Path) -> None:
    """Load the libraries of ``folder`` so that the extension finds them by name."""
    if sys.platform == "win32":
        os.add_dll_directory(str(folder))
        return
    with _spin_limit():
        _preload_unix(folder)


@contextmanager
def _spin_limit() -> Iterator[None]:
    """Limit the spinning of an OpenMP runtime that is loaded inside, unless the user has chosen; leave no trace."""
    if any(key in os.environ for key in _SPIN_KEYS):
        yield
        return
    name, value = _SPIN
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _preload_unix(folder: Path) -> None:
    suffixes = (".so", ".dylib") if sys.platform == "darwin" else (".so",)
    for name in _LIBRARIES:
        for path in (folder / f"lib{name}{suffix}" for suffix in suffixes):
            if path.exists():
                ctypes.CDLL(str(path))
                break


@lru_cache(maxsize=1)
def core() -> ModuleType:
    """The extension module, loaded on first use.

    Raises:
        ImportError: it isn't built, llama-cpp-python is missing or isn't the one that it was built for, or this CPU
            can't run it; the message says what to install.
    """
    folder = llama_lib_folder()
    remedy = f"pip install llama-cpp-python=={LLAMA_CPP_PYTHON}"
    if folder is None:
        raise ImportError(f"llama-cpp-python is not installed: {remedy}")
    check_release(folder, LLAMA_CPP_PYTHON)
    try:
        _preload(folder)
        module = importlib.import_module("ltm_edge._core")
    except ModuleNotFoundError as error:
        raise ImportError("ltm-edge's extension is not built: pip install . (or: make build)") from error
    except (ImportError, OSError) as error:
        raise ImportError(f"ltm-edge's extension does not load with this llama.cpp ({error}): {remedy}") from error
    check_build(module, folder, LLAMA_CPP_PYTHON)
    check_cpu(module, folder, LLAMA_CPP_PYTHON)
    module.load_backends(str(folder))
    module.ensure_backend()
    check_back_end(module, folder, LLAMA_CPP_PYTHON)
    atexit.register(_end_calls, module, os.getpid())
    return module


def _end_calls(module: ModuleType, loaded_in: int) -> None:
    """Bring daemon threads out of native code before Python ends them there, which would abort the process.

    Other threads have been joined by then. A fork of the process hasn't any of its threads.
    """
    if os.getpid() == loaded_in and not module.end_calls(_END):
        logger.warning("a thread is still computing after %.0f s; the end of the program may break it off", _END)


def forward_log() -> None:
    """Hand llama.cpp's gathered log lines to :mod:`logging` (logger ``ltm_edge.llama``)."""
    for level, text in core().drain_log():
        stripped = text.rstrip("\n")
        if stripped:
            logger.log(_LEVELS.get(level, logging.DEBUG), "%s", stripped)
