"""Lending: the strength that a scene gave to those it took up, and how it goes with the scene."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ltm_edge.memory.store import SceneStore

__all__ = ["BY", "take_back"]

BY = "forgotten"
"""What weakened a scene that is weaker because another one was forgotten."""

_LEAST = 1e-6  # strengths stand in the log with six digits


def take_back(store: SceneStore, number: int, at: int) -> None:
    """Take from other scenes what is left of the strength that a scene gave them; it is about to go.

    They are then as strong as if they had never been taken up by it. What was lent before events named the borrower
    stays.
    """
    for target in store.targets(number, "recalled"):
        scene = store.get(target)
        rows = store.rows(
            "SELECT detail FROM events WHERE scene = ? AND kind IN ('strengthened', 'weakened') ORDER BY id", (target,)
        )
        changes = [json.loads(detail) for (detail,) in rows]
        gone = {change["of"] for change in changes if change.get("by") == BY}
        left = _replayed(changes, gone) - _replayed(changes, gone | {number})
        if scene is None or left < _LEAST:
            continue
        after = max(scene.strength - left, 0.0)
        store.run("UPDATE scenes SET strength = ? WHERE id = ?", (after, target))
        detail = {"from": round(scene.strength, 6), "to": round(after, 6)}
        store.event("weakened", target, at, by=BY, of=number, **detail)


def _replayed(changes: Iterable[Mapping[str, Any]], gone: Collection[int]) -> float:
    """A strength as of its last change, had those scenes never been that are gone; 0 before the first change.

    Between two changes it decays; growing takes a share of what is wanting to 1, weakening a share of what is there.
    The shares are those of what happened.
    """
    value, last = 0.0, 0.0
    for change in changes:
        before, after = float(change["from"]), float(change["to"])
        if change.get("by") != BY:  # what was taken back never came: the value is without it already
            value = value * before / last if last else before
            if change.get("of") not in gone and after > before:
                value += (1.0 - value) * (after - before) / (1.0 - before)
            elif after < before:
                value *= after / before
        last = after
    return value
