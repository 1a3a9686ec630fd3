"""Ordinary exchanges (`data/chat/*.yaml` of a bundle): requests and plain answers, without any scene.

A little of them in training keeps a model able to have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from ltm_edge.errors import Problem, SchemaError
from ltm_edge.schemas.check import STRICT, Name, Text, check_record
from ltm_edge.schemas.yaml import load_yaml

__all__ = ["parse_chats"]


@dataclass(frozen=True, slots=True)
class _Turn:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    ask: Text
    answer: Text


@dataclass(frozen=True, slots=True)
class _Chat:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    chat: Name
    turns: Annotated[tuple[_Turn, ...], Field(min_length=1, max_length=20)]


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    chats: Annotated[tuple[_Chat, ...], Field(min_length=1, max_length=10_000)]


def parse_chats(text: str | bytes, where: str) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """(Request, answer) pairs of each exchange in a YAML file, by its name.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    file: _File = check_record(_File, document, data=document.data)
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    problems: list[Problem] = []
    for i, chat in enumerate(file.chats):
        if chat.chat in found:
            problems.append(document.problem(("chats", i, "chat"), f"{chat.chat} stands here twice; rename one"))
        found[chat.chat] = tuple((turn.ask.strip(), turn.answer.strip()) for turn in chat.turns)
    if problems:
        raise SchemaError(problems)
    return found
