"""Words of a text as the memory's full-text index holds them and is asked for them."""

from __future__ import annotations

from ltm_edge.scene.words import content_stems, stems

__all__ = ["WORDS_VERSION", "index_text", "match_query"]

WORDS_VERSION = 1
"""Changes with everything that changes :func:`index_text`, such as the stems of :mod:`ltm_edge.scene.words`; a store
indexed by another version is indexed again."""


def index_text(text: str) -> str:
    """The text as it is put into the full-text index."""
    return " ".join(stems(text))


def match_query(text: str, limit: int = 32) -> str:
    """A full-text query for any of the text's telling words; empty where it has none.

    Args:
        text: anything; nothing in it is taken as syntax.
        limit: words used, at most.
    """
    return " OR ".join(f'"{word}"' for word in list(dict.fromkeys(content_stems(text)))[:limit])
