"""Likeness of texts letter by letter: no embedder, no language, always the same."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["Trigrams"]

SAMPLE_CHARS = 2000

_WORD = re.compile(r"[^\W_]+")


class Trigrams:
    """Texts to be alike to: cosine of character trigram counts, weighted by how few texts a trigram occurs in (tf-idf).

    Words are padded by a blank, case and the dots of the Russian ё are ignored, and only the first `SAMPLE_CHARS`
    characters of what is compared count.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._n = len(texts)
        counted = [_counts(text) for text in texts]
        seen: Counter[str] = Counter(gram for counts in counted for gram in counts)
        self._rarity = {gram: math.log((1 + self._n) / (1 + n)) + 1.0 for gram, n in seen.items()}
        self._unknown = math.log(1 + self._n) + 1.0
        self._postings: dict[str, list[tuple[int, float]]] = {}
        for i, counts in enumerate(counted):
            for gram, weight in self._vector(counts).items():
                self._postings.setdefault(gram, []).append((i, weight))

    def likeness(self, text: str) -> list[float]:
        """Likeness of `text` to each of the texts, in [0, 1]."""
        terms: list[list[float]] = [[] for _ in range(self._n)]
        for gram, weight in self._vector(_counts(text[:SAMPLE_CHARS])).items():
            for i, other in self._postings.get(gram, ()):
                terms[i].append(weight * other)
        return [min(1.0, math.fsum(part)) for part in terms]

    def _vector(self, counts: Mapping[str, int]) -> dict[str, float]:
        weights = {gram: (1.0 + math.log(n)) * self._rarity.get(gram, self._unknown) for gram, n in counts.items()}
        norm = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        return {gram: weight / norm for gram, weight in weights.items()} if norm else {}


def _counts(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word in _WORD.findall(text.casefold().replace("ё", "е")):
        padded = f" {word} "
        counts.update(padded[i : i + 3] for i in range(len(padded) - 2))
    return counts
