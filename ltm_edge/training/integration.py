"""What training did for each archetype and each chain, as entries of a bundle's `integration_log.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltm_edge.errors import BundleError
from ltm_edge.files import write_atomic
from ltm_edge.training.measure import Measured, Tally

__all__ = ["LOG_NAME", "add_gains", "gains"]

LOG_NAME = "integration_log.json"

_FORMAT, _VERSION = "ltm-integration-log", 1


def gains(before: Measured, after: Measured) -> list[dict[str, Any]]:
    """Entries with the loss per token (nats) of each archetype and each chain, before and after.

    ``event`` 0 is that of entries which no memory's event stands behind.
    """
    return [*_of("archetype", before.archetypes, after.archetypes), *_of("chain", before.stories, after.stories)]


def add_gains(path: Path, before: Measured, after: Measured) -> int:
    """Put the gains into the log at ``path``, in place of those of an earlier training; returns their number.

    Raises:
        BundleError: the log can't be read or written.
    """
    try:
        log = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        kept = [entry for entry in log.get("entries", []) if entry.get("what") != "trained"]
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: isn't an integration log: {error}") from error
    entries = [*gains(before, after), *kept]  # what a memory noted stays the last, where it goes on
    lines = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries]
    text = f'{{"format":"{_FORMAT}","version":{_VERSION},"entries":[\n' + ",\n".join(lines) + "\n]}\n"
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise BundleError(f"{path}: can't be written: {error.strerror or error}") from error
    return len(lines) - len(kept)


def _of(kind: str, before: Mapping[str, Tally], after: Mapping[str, Tally]) -> list[dict[str, Any]]:
    return [
        {
            "event": 0,
            "what": "trained",
            kind: name,
            "tokens": after[name].count,
            "from": round(before[name].mean, 4),
            "to": round(after[name].mean, 4),
            "gain": round(before[name].mean - after[name].mean, 4),
        }
        for name in sorted(after)
        if name in before
    ]
