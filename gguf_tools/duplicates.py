"""Names that stand somewhere twice; lists of them may come from hostile files, so one pass has to do."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["repeated"]


def repeated(names: Iterable[str]) -> str | None:
    """The first name that has stood there before; None where all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
