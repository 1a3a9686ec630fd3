"""Hand-made triples for the bench of critics: a request, a good scene, and the same scene damaged in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.bench.stories import half_of
from ltm_edge.errors import InputError, SchemaError
from ltm_edge.loop.critics.examples import KINDS, Example
from ltm_edge.scene.record import Scene

__all__ = ["Triple", "find_triples", "load_triples"]


@dataclass(frozen=True, slots=True)
class Triple:
    """A request with a good scene and a damaged one.

    Attributes:
        id: unique; its hash decides on the half.
        kind: what the damage is.
        good, damaged: the scenes.
    """

    id: str
    kind: str
    good: Example
    damaged: Example

    @property
    def half(self) -> str:
        """The half it belongs to: signals are set on ``tune``, the other is reported."""
        return half_of(self.id)


def find_triples() -> Path:
    """The folder of the triples in a checkout.

    Raises:
        InputError: this is an installed package, which has none.
    """
    folder = Path(__file__).parents[2] / "tests" / "bench" / "critics"
    if not folder.is_dir():
        raise InputError(f"{folder}: no triples here; they come with the source, name their folder with --triples")
    return folder


def load_triples(folder: Path) -> list[Triple]:
    """All triples of a folder, by file name.

    Raises:
        InputError: there is none, one is malformed, or two have the same id; says which and what.
    """
    import yaml

    triples: dict[str, Triple] = {}
    for path in sorted(folder.glob("*.yaml")):
        place = str(path)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            for one in data["triples"]:
                place = f"{path}: {one.get('id', '?')}"
                triple = _triple(one)
                if triple.id in triples:
                    raise ValueError("another one has this id; rename one")
                triples[triple.id] = triple
        except (SchemaError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{place}: not a triple: {type(error).__name__}: {error}") from None
    if not triples:
        raise InputError(f"{folder}: no triples (*.yaml) in it")
    return list(triples.values())


def _triple(data: Mapping[str, Any]) -> Triple:
    if data["kind"] not in KINDS:
        raise ValueError(f"kind {data['kind']!r}; known are {', '.join(KINDS)}")
    if not data["damaged"]:
        raise ValueError("nothing is damaged")
    good = Scene.from_dict(data["good"], data["id"])
    damaged = Scene.from_dict({**data["good"], **data["damaged"]}, data["id"])
    goal, lang = data.get("goal"), data["lang"]
    return Triple(
        str(data["id"]),
        data["kind"],
        Example(data["request"], goal, lang, good),
        Example(data["request"], goal, lang, damaged, data["kind"]),
    )
