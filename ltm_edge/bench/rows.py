"""One line of the mask table."""

from __future__ import annotations

from dataclasses import dataclass

from ltm_edge.bench.replay import Written
from ltm_edge.bench.table import Stats

__all__ = ["MaskRow"]


@dataclass(frozen=True, slots=True)
class MaskRow:
    """One engine on one vocabulary and one document.

    Attributes:
        engine: its name, and the way it was asked.
        version: of its package.
        note: why there are no figures, or what they don't hold.
        vocabulary_ms: setting up the vocabulary, once per model.
        cached_ms: the same from its cache on disk.
        first_mask_ms: from the grammar's text to the first mask, the vocabulary being there.
        cold: masks of the first document ever.
        warm: masks of later ones.
        exact: masks with a budget of just the tokens that are left.
        accept: taking a token.
        written: what was forced when the document was written with jumping forward.
        forced_places: tokens of the document before which something was forced, for engines that only say so as text.
        determined: tokens of the document that lie within what the grammar determines before them.
        slots: runs of tokens between them.
        memory: bytes of the masks and what belongs to them.
    """

    engine: str
    version: str = ""
    note: str = ""
    vocabulary_ms: float | None = None
    cached_ms: float | None = None
    first_mask_ms: float | None = None
    cold: Stats | None = None
    warm: Stats | None = None
    exact: Stats | None = None
    accept: Stats | None = None
    written: Written | None = None
    forced_places: int | None = None
    determined: int | None = None
    slots: int | None = None
    memory: int | None = None
