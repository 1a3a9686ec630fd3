"""Small plots in a line of text: bars and sparklines, in block characters where the stream has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

__all__ = ["Blocks", "blocks_of"]


class Blocks:
    """The characters of a plot, from empty to full.

    Args of the constructor:
        bar: of a bar's last cell, the full one last.
        spark: of a sparkline, the lowest first.
    """

    def __init__(self, bar: str, spark: str) -> None:
        self._bar = bar
        self._spark = spark

    def bar(self, value: float, most: float, width: int) -> str:
        """A bar of at most ``width`` cells where ``most`` fills them; never empty for a value above 0."""
        if not value > 0 or not most > 0:
            return ""
        steps = len(self._bar)
        filled = min(max(round(value / most * width * steps), 1), width * steps)
        whole, rest = divmod(filled, steps)
        return self._bar[-1] * whole + (self._bar[rest - 1] if rest else "")

    def spark(self, values: Sequence[float]) -> str:
        """One character a value; 0 is a blank, and everything above it shows."""
        most = max(values, default=0)
        return "".join(
            self._spark[min(math.ceil(value / most * len(self._spark)), len(self._spark)) - 1] if value > 0 else " "
            for value in values
        )


_UNICODE = Blocks("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█")
_ASCII = Blocks("#", ".:-=+*#")


def blocks_of(stream: TextIO) -> Blocks:
    """What a stream can show."""
    try:
        "▏▁█".encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return _ASCII
    return _UNICODE
