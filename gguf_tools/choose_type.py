"""`--outtype auto`: the type that this machine runs fastest, among those that cost next to no quality."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from gguf_tools.bundle_converter import BundleConverter, Options
from gguf_tools.errors import GgufError
from gguf_tools.measure import Measured, measure

__all__ = ["Choice", "choose_type"]

CANDIDATES = ("same", "Q4_0", "Q4_K", "Q8_0")
TOLERANCE = 1.02
_PATIENCE = 4.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What was measured, and what was chosen by it.

    Attributes:
        outtype: the fastest of those within the tolerance.
        measured: by type; `same` is the measure of perplexity.
    """

    outtype: str
    measured: Mapping[str, Measured]

    def lines(self) -> list[str]:
        """A line for each type, and one that says which was chosen."""
        reference = self.measured["same"].perplexity
        rows = []
        for name, one in self.measured.items():
            line = f"{name}: perplexity {one.perplexity:.2f} ({one.perplexity / reference - 1:+.1%})"
            if one.prefill is not None and one.decode is not None:
                line += f", prefill {one.prefill:.0f} tok/s, decode {one.decode:.0f} tok/s"
            rows.append(line)
        if self.measured["same"].prefill is None:
            return [*rows, "kept the base's types: this machine is too busy, or too slow, to compare speeds now"]
        return [*rows, f"chosen: {self.outtype}, the fastest within {TOLERANCE - 1:.0%} of the perplexity of 'same'"]


def choose_type(
    folder: Path, base: Path, options: Options, *, candidates: tuple[str, ...] = CANDIDATES, threads: int | None = None
) -> Choice:
    """Make the bundle in each type, measure it, throw it away.

    Args:
        folder, base, options: as for `BundleConverter`; the option `outtype` is replaced.
        candidates: types; `same` is always among them.
        threads: CPU threads to measure with; None: llama.cpp's choice.

    Raises:
        GgufError: as `BundleConverter.run` and `measure`.
        OSError: there is no room for the trials.
    """
    found: dict[str, Measured] = {}
    for outtype in dict.fromkeys(("same", *candidates)):
        with tempfile.TemporaryDirectory(prefix="ltm-outtype-") as scratch:
            target = Path(scratch) / "trial.gguf"
            BundleConverter(folder, base, target, replace(options, outtype=outtype, force=False)).run()
            limit = found["same"].perplexity * TOLERANCE if found else None
            try:
                found[outtype] = measure(target, threads=threads, limit=limit, patience=_PATIENCE)
            except GgufError as error:
                raise GgufError(base, f"as {outtype}: {error.what}; {error.remedy}", remedy="name a type") from error
        if found["same"].prefill is None:
            break  # timing anything else would take minutes and tell nothing
    fit = {name: one.turn_seconds for name, one in found.items() if one.turn_seconds is not None}
    return Choice(min(fit, key=lambda name: fit[name], default="same"), MappingProxyType(found))
