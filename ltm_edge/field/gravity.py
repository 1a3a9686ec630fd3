"""The gravity of meaning (гравитация смысла): recalled scenes draw the field towards them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ltm_edge.field.vectors import Vector, unit

__all__ = ["pulled"]

# Squared distance below which a scene pulls no harder: one that says the same as the field has no direction to pull in.
_LEAST_SQUARED = 0.01


def pulled(
    meaning: Vector | None, masses: npt.ArrayLike, strengths: npt.ArrayLike, gravity: float, cap: float
) -> Vector | None:
    """The meaning after recalled scenes have pulled at it.

    With all vectors at length 1, a scene at x of strength s, d = |x - meaning| away, moves it towards x by::

        min(d, gravity * s / max(d * d, 0.01))

    The moves are added; their sum is cut to the length `cap` and the result brought back to length 1, so that the
    angle to what it was is at most asin(cap) and no crowd of scenes captures the field. Scenes without a direction or
    with numbers that aren't finite, and strengths that aren't positive, pull nothing.

    Args:
        meaning: float32 [dim]; None or without a direction: nothing is pulled, None comes back.
        masses: the scenes' vectors, [n, dim]; of another dim: nothing pulls.
        strengths: how often they have helped, [n].
        gravity: how much one scene of strength 1 moves it at distance 1.
        cap: longest move, from 0 to 1.
    """
    here = None if meaning is None else unit(meaning)
    if here is None:
        return None
    at = np.asarray(masses, dtype=np.float64)
    strength = np.asarray(strengths, dtype=np.float64).reshape(-1)
    if at.ndim != 2 or at.shape[1] != here.shape[0] or at.shape[0] != strength.shape[0]:
        return here
    largest = np.abs(at).max(axis=1, initial=0.0)
    good = np.isfinite(largest) & (largest > 0.0) & np.isfinite(strength) & (strength > 0.0)
    if not good.any():
        return here
    at = at[good] / largest[good, None]
    at /= np.linalg.norm(at, axis=1)[:, None]
    away = at - here.astype(np.float64)
    distance = np.linalg.norm(away, axis=1)
    # A strength beyond any use is cut before it meets the division, which it could take out of range.
    force = np.minimum(distance, gravity * np.minimum(strength[good], 1e9) / np.maximum(distance**2, _LEAST_SQUARED))
    move = np.divide(force, distance, out=np.zeros_like(force), where=distance > 0.0) @ away
    length = float(np.linalg.norm(move))
    if length > cap:
        move *= cap / length
    return unit(here + move)
