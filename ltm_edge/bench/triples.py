"""Hand-made triples for the bench of critics: a request, a good scene, and the same scene damaged in one way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.bench.stories import half_of
from ltm_edge.errors import InputError, SchemaError
from ltm_edge.loop.critics.examples import KINDS, Example
from ltm_edge.scene.record import Scene

__all__ = ["Triple", "find_triples", "load_plain", "load_triples"]


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
    triples: dict[str, Triple] = {}
    for place, one in _entries(folder, "triples"):
        try:
            triple = _triple(one)
            if triple.id in triples:
                raise ValueError("another one has this id; rename one")
        except (SchemaError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place}: not a triple: {type(error).__name__}: {error}") from None
        triples[triple.id] = triple
    if not triples:
        raise InputError(f"{folder}: no triples (*.yaml with the key triples) in it")
    return list(triples.values())


def load_plain(folder: Path) -> list[Example]:
    """Good scenes of a folder that have no damaged ones beside them (the key `scenes`), by file name.

    Raises:
        InputError: one is malformed; says which and what.
    """
    found = []
    for place, one in _entries(folder, "scenes"):
        try:
            found.append(Example(one["request"], one.get("goal"), one["lang"], Scene.from_dict(one["scene"])))
        except (SchemaError, KeyError, TypeError) as error:
            raise InputError(f"{place}: not a scene: {type(error).__name__}: {error}") from None
    return found


def _entries(folder: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What stands under a key in a folder's files, each with its place for messages."""
    import yaml

    for path in sorted(folder.glob("*.yaml")):
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}") from None
        entries = data.get(name, []) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise InputError(f"{path}: expected a mapping with a list of mappings under triples or scenes")
        for number, one in enumerate(entries, 1):
            yield f"{path}: {one.get('id', f'entry {number}')}", one


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
