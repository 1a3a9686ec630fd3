"""The packaged overlay, and its lift with the real demo embedder and with none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ltm_edge.embedders import demo_embedder
from ltm_edge.engine.embedder import Embedder
from ltm_edge.field.lift import Lift
from ltm_edge.field.vectors import Anchors
from ltm_edge.overlay_set import OverlaySet, load_overlay


@pytest.fixture(scope="session")
def overlay() -> OverlaySet:
    return load_overlay()


@pytest.fixture(scope="session")
def embedder() -> Iterator[Embedder]:
    with demo_embedder() as opened:
        yield opened


def lift_of(overlay: OverlaySet, embedder: Embedder | None) -> Lift:
    anchors = Anchors.of(overlay.field, overlay.templates, overlay.languages, embedder)
    names, default = overlay.archetype_names(), overlay.overlay.default_template
    return Lift(overlay.field, overlay.templates, anchors, embedder, names, default)


@pytest.fixture(scope="session")
def lift(overlay: OverlaySet, embedder: Embedder) -> Lift:
    return lift_of(overlay, embedder)


@pytest.fixture(scope="session")
def letters(overlay: OverlaySet) -> Lift:
    return lift_of(overlay, None)
