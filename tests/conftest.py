"""Shared fixtures. The real demo model is loaded once per test run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from ltm_edge.bundle import Bundle
from ltm_edge.engine.model import LoadedModel
from ltm_edge.paths import cache_dir
from tests.overlays import PLAIN, overlay_folder

# A machine that does other work must not fail a property for being slow.
hypothesis.settings.register_profile(
    "ltm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("ltm")


# What one test leaves in the cache must not change what another one computes; tests of saved states say otherwise.
os.environ["LTM_EDGE_STATE_MB"] = "0"


def _own_signals() -> None:
    """Let the programs under test hear signals that this run ignores, as under nohup and in background jobs.

    What is ignored stays ignored in a new program, what is handled becomes the default there; so they are handled here.
    """
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


_own_signals()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a data and cache folder of its own: it reads and writes nothing of the user's."""
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist has it from the run that started it
        os.environ["LTM_EDGE_HOME"] = tempfile.mkdtemp(prefix="ltm-edge-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["LTM_EDGE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def demo_path() -> Path:
    from ltm_edge.models import find_demo_model

    return find_demo_model().path


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """The run's cache folder. A home with a link to it needn't make again what takes longer than an answer."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def plain_overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packaged overlay, every switch off: a turn is one constrained answer, with memory if there is
    one.
    """
    return overlay_folder(tmp_path_factory.mktemp("plain"), PLAIN)


@pytest.fixture(scope="session")
def demo_bundle(demo_path: Path, plain_overlay: Path) -> Iterator[Bundle]:
    """The demo model under the plain overlay."""
    with Bundle.open(demo_path, ctx=2048, overlay=plain_overlay) as bundle:
        yield bundle


@pytest.fixture(scope="session")
def thinking_bundle(demo_path: Path) -> Iterator[Bundle]:
    """The demo model under the packaged overlay."""
    with Bundle.open(demo_path, ctx=4096) as bundle:
        yield bundle


@pytest.fixture(scope="session")
def quick_bundle(demo_path: Path) -> Iterator[Bundle]:
    """The demo model in a small context, on one thread: the soonest to answer a short prompt on a busy machine."""
    with Bundle.open(demo_path, ctx=1024, threads=1) as bundle:
        yield bundle


@pytest.fixture(scope="session")
def demo_model(demo_bundle: Bundle) -> LoadedModel:
    return demo_bundle.model


@pytest.fixture(scope="session")
def exact_model(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    """The demo model in float32 throughout, so that batches of any shape give the same log-probabilities to 1e-5.

    With its 4-bit weights the activations are quantised too, which turns the rounding of one kernel or another into up
    to 0.6 in a log-probability; no bound that allows for that tells a wrong cache from a right one.
    """
    import llama_cpp

    path = tmp_path_factory.mktemp("exact") / "demo-f32.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    params.allow_requantize = True
    assert llama_cpp.llama_model_quantize(str(demo_path).encode(), str(path).encode(), params) == 0
    with Bundle.open(path, ctx=2048, kv_type="f32", flash_attn="off") as bundle:
        with contextlib.suppress(OSError):  # Windows keeps a mapped file
            path.unlink()
        yield bundle.model
