"""Anchors: the texts that templates, channels, archetypes and phases are recognised by, as vectors."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ltm_edge.files import write_atomic
from ltm_edge.scene.language import detect_language
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.trigrams import Trigrams
from ltm_edge.schemas.field import FieldArchitecture
from ltm_edge.schemas.template import Template

__all__ = ["KINDS", "AnchorSet", "Anchors", "Embedder", "Kind", "KnownScene", "Vector", "unit"]

logger = logging.getLogger(__name__)

Vector: TypeAlias = npt.NDArray[np.float32]
"""float32 [dim]"""

# Of the map behind `AnchorSet.reading`: from 1 to 100 it reads the demo bundle's training part equally well.
_RIDGE = 10.0
_USUAL = 0.1
_KEPT = 8  # files in the cache

Kind: TypeAlias = Literal["template", "channel", "archetype", "phase", "scene"]
KINDS: tuple[Kind, ...] = ("template", "channel", "archetype", "phase", "scene")


class Embedder(Protocol):
    """Turns texts into vectors of one space. The real one stands in ltm_edge.engine."""

    @property
    def dim(self) -> int:
        """Length of its vectors."""

    @property
    def id(self) -> str:
        """Name of the vector space: the same for the same weights and pooling, in every process."""

    def embed(self, texts: list[str], /) -> npt.NDArray[np.float32]:
        """Vectors of the texts, float32 [n, dim], of length 1."""

    def covers(self, text: str, /) -> bool:
        """Whether its vocabulary can represent the text."""


def unit(vector: npt.ArrayLike) -> Vector | None:
    """The vector at length 1, float32 [dim]; None if it is not finite, has no direction, or is no vector at all."""
    one = np.asarray(vector, dtype=np.float64)
    if one.ndim != 1 or one.size == 0 or not np.all(np.isfinite(one)):
        return None
    largest = np.abs(one).max()  # first scaled by it, so that neither huge nor tiny numbers leave the range
    if largest == 0.0:
        return None
    one = one / largest
    result: Vector = (one / np.sqrt(np.dot(one, one))).astype(np.float32)
    return result


@dataclass(frozen=True, eq=False)
class AnchorSet:
    """The anchors of one kind in one language.

    Attributes:
        names: what they stand for, in alphabetical order.
        texts: the anchors, those of one name together, in the order of `names`.
        starts: where each name's anchors begin in `texts`, and their number at the end.
        vectors: float32 [n, dim] of length 1; None where there is no embedder that covers them.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    starts: tuple[int, ...]
    vectors: npt.NDArray[np.float32] | None

    @cached_property
    def letters(self) -> Trigrams:
        """The same texts letter by letter; made when it is first asked for, since most sessions never need it."""
        return Trigrams(self.texts)

    def reading(self, vector: Vector) -> dict[str, float]:
        """How a vector of length 1 reads: which name's anchors it sides with, against all the others.

        A linear map, fitted to the anchors by ridge regression (each name's share of them weighing the same), places
        the vector: 0 sides with no name, and the anchors themselves have values with a standard deviation of 0.1.
        Unlike likeness to the nearest anchors it doesn't favour names whose anchors are near to everything.
        """
        if self.vectors is None or self.vectors.shape[1] != vector.shape[0]:
            return {}
        mean, weights = self._fitted
        values = (vector.astype(np.float64) - mean) @ weights
        return dict(zip(self.names, values.tolist(), strict=True))

    @cached_property
    def _fitted(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The anchors' mean, [dim], and the map, [dim, names], solved in its dual form, [n, n]."""
        assert self.vectors is not None
        counts = np.diff(self.starts)
        owner = np.repeat(np.arange(len(self.names)), counts)
        weight = (1.0 / counts)[owner]
        weight /= weight.mean()
        mean = np.average(self.vectors.astype(np.float64), axis=0, weights=weight)
        rows = self.vectors - mean
        wanted = np.eye(len(self.names))[owner] - 1.0 / len(self.names)
        kernel = rows @ rows.T
        solved = np.linalg.solve(kernel + np.diag(_RIDGE / weight), wanted)
        spread = float((kernel @ solved).std())
        return mean, (rows.T @ solved) * (_USUAL / spread if spread > 1e-12 else 0.0)

    def by_meaning(self, vector: Vector, nearest: int) -> dict[str, float]:
        """Mean cosine of a vector of length 1 to the `nearest` anchors of each name, in [-1, 1]."""
        if self.vectors is None or self.vectors.shape[1] != vector.shape[0]:
            return {}
        return self._pooled(self.vectors @ vector, nearest)

    def by_letters(self, text: str, nearest: int) -> dict[str, float]:
        """Mean likeness of trigrams to the `nearest` anchors of each name, in [0, 1]."""
        return self._pooled(np.asarray(self.letters.likeness(text), dtype=np.float32), nearest)

    def _pooled(self, likeness: npt.NDArray[np.float32], nearest: int) -> dict[str, float]:
        result = {}
        for name, start, end in zip(self.names, self.starts, self.starts[1:], strict=False):
            best = np.sort(likeness[start:end])[-nearest:]
            result[name] = float(np.clip(best.mean(dtype=np.float64), -1.0, 1.0))
        return result


@dataclass(frozen=True, slots=True)
class KnownScene:
    """What stands around a request that is known with its scene: two poles and a centre, as far as they are given."""

    tension: str | None
    centre: str | None


class Anchors:
    """All anchors of an overlay, by kind and language, embedded once and kept in a file.

    Attributes:
        embedded: languages whose anchors have vectors.
        scenes: the scenes of the requests that are anchors of kind "scene", by their text.
    """

    def __init__(
        self, sets: Mapping[tuple[Kind, str], AnchorSet], embedded: frozenset[str], scenes: Mapping[str, KnownScene]
    ) -> None:
        """Take what :meth:`of` has made."""
        self._sets = dict(sets)
        self.embedded = embedded
        self.scenes = scenes

    @classmethod
    def of(
        cls,
        field: FieldArchitecture,
        templates: Mapping[str, Template],
        languages: Sequence[str],
        embedder: Embedder | None = None,
        cache: Path | None = None,
        structs: Sequence[Pvq] = (),
    ) -> Anchors:
        """The anchors of an overlay.

        Args:
            field: gives those of channels, archetypes and phases.
            templates: give their own, and the requests of their examples with the scenes that answer them.
            languages: the ones that are wanted.
            embedder: gives the vectors, for the languages that it covers; None: letters only.
            cache: folder in which the vectors are kept (``cache_dir() / "anchors"``); None: nowhere. A file that
                can't be read or written costs the time of embedding again, nothing else.
            structs: more requests whose scenes are known (`pvq_structs/`).
        """
        known = {lang: _known_scenes(templates, structs, languages, lang) for lang in languages}
        grouped = {lang: _texts(field, templates, lang) | {"scene": _each(known[lang])} for lang in languages}
        flat = {lang: _flat(group[kind] for kind in KINDS) for lang, group in grouped.items()}
        covered = [lang for lang in languages if embedder and flat[lang] and embedder.covers(_sample(grouped[lang]))]
        every = list(dict.fromkeys(text for lang in covered for text in flat[lang]))
        vectors = _embedded(embedder, every, cache) if embedder and every else None
        row = {text: i for i, text in enumerate(every)}
        sets: dict[tuple[Kind, str], AnchorSet] = {}
        for lang, group in grouped.items():
            for kind, owned in group.items():
                names = tuple(sorted(name for name, texts in owned.items() if texts))
                texts = tuple(text for name in names for text in owned[name])
                if not texts:
                    continue
                starts = (0, *np.cumsum([len(owned[name]) for name in names]).tolist())
                rows = None if vectors is None or lang not in covered else vectors[[row[text] for text in texts]]
                sets[kind, lang] = AnchorSet(names, texts, starts, rows)
        return cls(sets, frozenset(covered), {text: scene for part in known.values() for text, scene in part.items()})

    def of_kind(self, kind: Kind, lang: str) -> AnchorSet | None:
        """The anchors of a kind in a language; None where there are none."""
        return self._sets.get((kind, lang))


_Texts: TypeAlias = dict[str, tuple[str, ...]]


def _texts(field: FieldArchitecture, templates: Mapping[str, Template], lang: str) -> dict[Kind, _Texts]:
    """Anchors by kind and name."""
    return {
        "template": {name: one.anchors.get(lang, ()) for name, one in templates.items()},
        "channel": {name: one.anchors.get(lang, ()) for name, one in field.channels.items()},
        "archetype": {name: one.anchors.get(lang, ()) for name, one in field.archetypes.items()},
        "phase": {name: one.anchors.get(lang, ()) for name, one in field.phases.items()},
    }


def _each(texts: Iterable[str]) -> _Texts:
    return {text: (text,) for text in texts}


def _known_scenes(
    templates: Mapping[str, Template], structs: Sequence[Pvq], languages: Sequence[str], lang: str
) -> dict[str, KnownScene]:
    found = {}
    for template in templates.values():
        for example in template.examples.get(lang, ()):
            found[example.pvq.text] = KnownScene(example.scene.tension, example.scene.resonance_center)
    for pvq in structs:
        tension, centre = (pvq.scene.get(key) for key in ("tension", "resonance_center"))
        if (tension or centre) and detect_language(pvq.text, languages) == lang:
            found[pvq.text] = KnownScene(str(tension) if tension else None, str(centre) if centre else None)
    return found


def _flat(groups: Iterable[Mapping[str, tuple[str, ...]]]) -> list[str]:
    return [text for group in groups for name in sorted(group) for text in group[name]]


def _sample(group: Mapping[Kind, _Texts]) -> str:
    """One anchor of each name: enough to see whether an embedder reads the language."""
    return " ".join(texts[0] for kind in KINDS for texts in group[kind].values() if texts)


def _embedded(embedder: Embedder, texts: list[str], cache: Path | None) -> npt.NDArray[np.float32]:
    """Vectors of the texts, from the cache or now."""
    if cache is None:
        return embedder.embed(texts)
    digest = hashlib.sha256(json.dumps([embedder.id, texts], ensure_ascii=True).encode("ascii")).hexdigest()
    file = cache / f"{digest[:32]}.npy"
    shape = (len(texts), embedder.dim)
    known = _read(file, shape)
    if known is not None:
        return known
    vectors = np.ascontiguousarray(embedder.embed(texts), dtype=np.float32)
    stream = io.BytesIO()
    np.save(stream, vectors, allow_pickle=False)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(file, stream.getvalue())
        # Every change of an anchor, and every embedder, leaves a file behind.
        for old in sorted(cache.glob("*.npy"), key=lambda one: one.stat().st_mtime_ns)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s: anchors can't be kept: %s; they are embedded again next time", file, error)
    return vectors


def _read(file: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    """The vectors in a file; None if it is missing or not what was written."""
    try:
        if file.stat().st_size > 4 * shape[0] * shape[1] + 4096:
            raise ValueError("too long")
        vectors = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
        good = vectors.shape == shape and vectors.dtype == np.float32
        # Vectors of length 1 stay so only if nothing was changed that matters.
        if not good or not np.allclose(np.einsum("ij,ij->i", vectors, vectors), 1.0, atol=1e-3):
            raise ValueError("not the vectors that were written")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s: damaged (%s); the anchors are embedded again", file, error)
        return None
    return np.ascontiguousarray(vectors)
