"""INSIGHT-SEEKER: does a draft add anything beyond the request and the memory, or only what fits every request?"""

from __future__ import annotations

import re

from ltm_edge.loop.critics.exhibit import Exhibit, likeness
from ltm_edge.loop.critics.lexicon import Lexicon, lexicon, says
from ltm_edge.loop.critics.reading import Reading, key, ramp, read
from ltm_edge.scene.words import shingles

__all__ = ["signals", "texts"]

_NUMBER_OR_QUOTE = re.compile(r"\d|[«“\"`]|\w\(|\w/\w")
_NAME = re.compile(r"(?<=[a-zа-яё,;:—–-]\s)[A-ZА-ЯЁ][a-zа-яё]{2,}")  # a capital letter inside a sentence

# Where a measure takes all (first) and where nothing is wanting (second); set on the half of the triples that is for
# tuning.
NEW_WORDS = (0.15, 0.5)
COPIED_PHRASES = (0.8, 0.3)
STOCK_SHARE = (0.6, 0.0)
GENERAL_SHARE = (0.8, 0.35)
TAKEN_UP = (0.0, 0.2)
NEAR_REQUEST = (0.1, 0.4)
CONCRETE_SHARE = (0.0, 0.6)


def texts(exhibit: Exhibit) -> tuple[str, ...]:
    """What :func:`signals` compares by meaning."""
    return (exhibit.scene.response, exhibit.request)


def signals(exhibit: Exhibit) -> dict[str, float]:
    """What INSIGHT-SEEKER measures, each in [0, 1], 1 is good.

    *Key*: a word that says something, cut so that its inflections are one. ``ramp(x; a, b)``: 0 at a, 1 at b.

    ``new_to_request``: ramp(share of the response's keys that the request lacks; 0.15, 0.5).
    ``new_to_memory``: ramp(greatest share of the response's runs of three words that stands in one recalled scene;
    0.8, 0.3).
    ``own_words``: the smaller of ramp(share of sentences with a stock phrase; 0.6, 0) and ramp(share of keys that are
    general words; 0.8, 0.35).
    ``takes_up``: ramp(share of the request's keys that the response takes up; 0, 0.2); with an embedder the greater of
    this and ramp(cosine of response to request; 0.1, 0.4).
    ``concrete``: ramp(share of sentences with a number, a quotation, a name, or a word of time, measure or place;
    0, 0.6); code is concrete.
    """
    response, request = read(exhibit.scene.response), read(exhibit.request)
    words = lexicon(exhibit.lang)
    keys, asked = response.all_keys, request.all_keys
    return {
        "new_to_request": ramp(len(keys - asked) / len(keys), *NEW_WORDS) if keys else 0.0,
        "new_to_memory": _new_to_memory(response, exhibit.recalled),
        "own_words": _own_words(response, words),
        "takes_up": _takes_up(exhibit, keys, asked),
        "concrete": _concrete(response, words),
    }


def _new_to_memory(response: Reading, recalled: tuple[str, ...]) -> float:
    mine = shingles(response.all_stems)
    if not mine or not recalled:
        return 1.0
    return ramp(max(len(mine & shingles(read(text).all_stems)) / len(mine) for text in recalled), *COPIED_PHRASES)


def _own_words(response: Reading, words: Lexicon) -> float:
    if not response.sentences or response.code:
        return float(bool(response.code))
    stock = sum(says(sentence, words.stock) for sentence in response.stems) / len(response.sentences)
    keys = response.all_keys
    general = len(keys & words.general) / len(keys) if keys else 1.0
    return min(ramp(stock, *STOCK_SHARE), ramp(general, *GENERAL_SHARE))


def _takes_up(exhibit: Exhibit, keys: frozenset[str], asked: frozenset[str]) -> float:
    share = ramp(len(keys & asked) / len(asked), *TAKEN_UP) if asked else 1.0
    near = likeness(exhibit, [exhibit.scene.response], [exhibit.request])
    return share if near is None else max(share, ramp(float(near[0, 0]), *NEAR_REQUEST))


def _concrete(response: Reading, words: Lexicon) -> float:
    if response.code:
        return 1.0
    if not response.sentences:
        return 0.0
    marked = [
        bool(_NUMBER_OR_QUOTE.search(text) or _NAME.search(text) or words.concrete & set(map(key, sentence)))
        for text, sentence in zip(response.sentences, response.stems, strict=True)
    ]
    return ramp(sum(marked) / len(marked), *CONCRETE_SHARE)
