"""Strength of a scene: decays with a half-life, grows with accepted use."""

from __future__ import annotations

from ltm_edge.memory.records import StoredScene

__all__ = ["DAY", "decayed", "grown", "recency", "strength_at"]

DAY = 86_400_000_000  # microseconds


def decayed(value: float, age: int, half_life_days: float) -> float:
    """What is left of a value after ``age`` microseconds; a negative age (a clock set back) leaves all of it."""
    return float(value * 0.5 ** (max(age, 0) / (half_life_days * DAY)))


def strength_at(scene: StoredScene, at: int, half_life_days: float) -> float:
    """A scene's strength at a moment. Pinned scenes keep theirs."""
    return scene.strength if scene.pinned else decayed(scene.strength, at - scene.strengthened, half_life_days)


def grown(value: float, share: float) -> float:
    """A strength after one accepted use: a share of the way to 1."""
    return min(1.0, value + (1.0 - value) * share)


def recency(created: int, at: int, half_life_days: float) -> float:
    """1 for a scene of this moment, a half after one half-life."""
    return decayed(1.0, at - created, half_life_days)
