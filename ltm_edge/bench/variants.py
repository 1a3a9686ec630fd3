"""The same weights under other switches, for benches that compare what the parts of a turn bring."""

from __future__ import annotations

from dataclasses import replace

from ltm_edge.bundle import Bundle
from ltm_edge.overlay_set import OverlaySet
from ltm_edge.schemas.field import FieldArchitecture
from ltm_edge.schemas.overlay import Overlay

__all__ = ["undirected", "variant", "without_loop", "without_routing"]


def variant(
    bundle: Bundle, overlay: Overlay, field: FieldArchitecture | None = None, *, adapters: bool = True
) -> Bundle:
    """Another bundle of the same loaded model; close both.

    Args:
        bundle: the one to vary.
        overlay: its switches.
        field: its zones; None: those of the bundle.
        adapters: whether its channels have the bundle's adapters.
    """
    old = bundle.overlay_set
    documents = OverlaySet(overlay, field or old.field, old.templates, old.prompts, old.structs)
    return Bundle(
        bundle.model,
        documents,
        bundle.name,
        adapters=bundle.adapters if adapters else None,
        embedder=bundle.embedder_file,
    )


def without_loop(overlay: Overlay) -> Overlay:
    """One draft, which nobody judges."""
    critics = overlay.critics
    return replace(
        overlay,
        self_loop=replace(overlay.self_loop, enabled=False),
        critics=replace(
            critics,
            insight_seeker=replace(critics.insight_seeker, enabled=False),
            obstructio=replace(critics.obstructio, enabled=False),
            recursia=replace(critics.recursia, enabled=False),
            plugins=(),
        ),
    )


def without_routing(overlay: Overlay) -> Overlay:
    """No channels, neither in turn nor at once. A template is still chosen as before."""
    return replace(
        overlay,
        routing=replace(overlay.routing, inputs=False, heads=False),
        consilium=replace(overlay.consilium, enabled="never"),
    )


def undirected(field: FieldArchitecture) -> FieldArchitecture:
    """The field with channels that ask for nothing and sample like any: what is left of them is their adapters."""
    zones = {name: replace(zone, directive={}, sampling=type(zone.sampling)()) for name, zone in field.channels.items()}
    return replace(field, zones={**field.zones, **zones})
