"""Words that critics know by language (`loop/critics/words.yaml`): stock phrases, evasions, opposites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from ltm_edge.schemas.check import STRICT, Language, Text, Whole, check_record, take_root
from ltm_edge.schemas.yaml import load_yaml

__all__ = ["CriticWords", "LanguageWords", "parse_critic_words"]

Pair = Annotated[tuple[Text, ...], Field(min_length=2, max_length=2)]


@dataclass(frozen=True, slots=True)
class LanguageWords:
    """The words of one language.

    Attributes:
        stock: phrases that fit any request and so say nothing.
        evasive: phrases that stand for an answer.
        announcing: phrases that say that something comes.
        closing: phrases that letters close with, without a mark.
        general: words, with blanks between, that say little by themselves.
        concrete: words, with blanks between, of time, measure and place.
        negations: words, with blanks between.
        counts: what words count, such as two.
        countable: words, with blanks between, of what an answer announces so many of.
        opposites: pairs of words that can't both hold of one thing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    stock: tuple[Text, ...]
    evasive: tuple[Text, ...]
    announcing: tuple[Text, ...]
    closing: tuple[Text, ...]
    general: Text
    concrete: Text
    negations: Text
    counts: Mapping[Text, Whole]
    countable: Text
    opposites: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class CriticWords:
    """The words of every language."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    version: Whole
    languages: Mapping[Language, LanguageWords]


def parse_critic_words(text: str | bytes, where: str = "<string>") -> CriticWords:
    """The words in a YAML file.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    take_root(document, "critic_words")
    words: CriticWords = check_record(CriticWords, document, ("critic_words",))
    return words
