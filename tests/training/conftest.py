from __future__ import annotations

import pytest

from . import small


@pytest.fixture(autouse=True)
def _new_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token ids, and with them what a random model computes, don't depend on the tests before."""
    monkeypatch.setattr(small.Pieces, "_known", [*small.SPECIALS])
