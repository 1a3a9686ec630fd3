"""Fixtures of the tests of saved KV."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltm_edge.engine.state_files import StateFiles


@pytest.fixture(scope="module")
def default_cap() -> Iterator[None]:
    """The cap is the default one, here and in the child processes, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LTM_EDGE_STATE_MB", raising=False)
        yield


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    return StateFiles(tmp_path / "state")


@pytest.fixture
def warned() -> Iterator[list[logging.LogRecord]]:
    """What was logged during the test."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("ltm_edge.engine.state_files")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
