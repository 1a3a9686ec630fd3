"""`--outtype auto`: the type that this machine runs fastest, among those that cost next to no quality.

It is compared with the base; with a LoRA to merge into a coarser base, with the merge in float16. Where the base's
numbers stand on the steps of a type, a change of less than half a step is rounded away when it is merged in that type,
and the file may have next to nothing of the LoRA.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from gguf_tools.bundle_converter import BundleConverter, Options
from gguf_tools.errors import GgufError
from gguf_tools.measure import Measured, Passage, measure

__all__ = ["Choice", "Passages", "choose_type"]

CANDIDATES = ("same", "Q4_0", "Q4_K", "Q8_0")
TOLERANCE = 1.02
_EXACT = "F16"
_EXACT_BITS = 16.0
_SAFE = "Q8_0"  # taken unmeasured where the base's type is too coarse for the LoRA
_PATIENCE = 4.0

Passages = Callable[[], Sequence[Passage]]
"""Gives texts that the bundle's LoRA was made for; called where there is one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was measured, and what was chosen by it.

    Attributes:
        outtype: the fastest of those within the tolerance.
        reference: the type that the others are compared with.
        measured: by type.
    """

    outtype: str
    reference: str
    measured: Mapping[str, Measured]

    def fits(self, name: str) -> bool:
        """Whether a type's perplexity is within the tolerance, on every text that was measured."""
        return all(ratio <= TOLERANCE for ratio in self._ratios(name))

    def lines(self) -> list[str]:
        """A line for each type, and one that says which was chosen."""
        rows = [f"{name}: {self._figures(name)}{self._verdict(name)}" for name in self.measured]
        if self.measured[self.reference].prefill is None:
            kept = "kept the base's types" if self.outtype == "same" else f"took {self.outtype}, which keeps a LoRA"
            return [*rows, f"{kept}: this machine is too busy, or too slow, to compare types now"]
        return [*rows, f"chosen: {self.outtype}, the fastest of those that fit"]

    def _ratios(self, name: str) -> list[float]:
        one, reference = self.measured[name], self.measured[self.reference]
        found = [one.perplexity / reference.perplexity]
        if one.own is not None and reference.own is not None:
            found.append(one.own / reference.own)
        return found

    def _figures(self, name: str) -> str:
        one, ratios = self.measured[name], self._ratios(name)
        changes = [f" ({ratio - 1:+.1%})" if name != self.reference else "" for ratio in ratios]
        line = f"perplexity {one.perplexity:.2f}{changes[0]}"
        if one.own is not None:
            line += f", of the bundle's own words {one.own:.2f}{changes[-1]}"
        if one.prefill is not None and one.decode is not None:
            line += f", prefill {one.prefill:.0f} tok/s, decode {one.decode:.0f} tok/s"
        return line

    def _verdict(self, name: str) -> str:
        seconds = self.measured[name].turn_seconds
        if seconds is None:
            return ""
        if not self.fits(name):
            return f"; left out: over {TOLERANCE - 1:.0%} above {self.reference}"
        compared = "; what the others are compared with" if name == self.reference else ""
        return f"{compared}; a turn takes {seconds:.2f} s"


def choose_type(
    folder: Path,
    base: Path,
    options: Options,
    *,
    passages: Passages | None = None,
    candidates: tuple[str, ...] = CANDIDATES,
    threads: int | None = None,
) -> Choice:
    """Make the bundle in each type, measure it, throw it away.

    Args:
        folder, base, options: as for `BundleConverter`; the option `outtype` is replaced.
        passages: texts of the bundle's own.
        candidates: types; `same` is always among them.
        threads: CPU threads to measure with; None: llama.cpp's choice.

    Raises:
        GgufError: as `BundleConverter.run` and `measure`.
        OSError: there is no room for the trials.
    """
    reference = "same"
    texts: Sequence[Passage] = ()
    found: dict[str, Measured] = {}
    waiting = list(dict.fromkeys(("same", *candidates)))
    while waiting:
        outtype = waiting.pop(0)
        first = outtype == "same"
        with tempfile.TemporaryDirectory(prefix="ltm-outtype-") as scratch:
            target = Path(scratch) / "trial.gguf"
            converter = BundleConverter(folder, base, target, replace(options, outtype=outtype, force=False))
            converter.run()
            if first and converter.merged is not None and converter.merged.changed:
                texts = passages() if passages is not None else ()
            try:
                # A first one that takes too long tells that timing the others would take minutes and tell nothing.
                patience = _PATIENCE if first else math.inf
                found[outtype] = measure(target, passages=texts, threads=threads, patience=patience)
            except GgufError as error:
                raise GgufError(base, f"as {outtype}: {error.what}; {error.remedy}", remedy="name a type") from error
        if first and found[outtype].prefill is None:
            return Choice(_SAFE if converter.coarse_types() else "same", reference, MappingProxyType(found))
        if first and converter.coarse_types(_EXACT_BITS):
            reference = _EXACT
            waiting = [_EXACT, *(name for name in waiting if name != _EXACT)]
    choice = Choice(reference, reference, MappingProxyType(found))
    fit = {name: one.turn_seconds for name, one in found.items() if choice.fits(name) and one.turn_seconds is not None}
    return replace(choice, outtype=min(fit, key=lambda name: fit[name]))
