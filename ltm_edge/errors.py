"""The errors of ltm-edge: one class per kind of failure, every message in one line.

A message says what failed, where (file, key path, line and column), what was found, the limit that was
broken and what to do about it. Callers classify by type, never by matching text. This module imports the
standard library only, so every layer may raise from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "BundleError",
    "Cancelled",
    "ContextFull",
    "EngineError",
    "GrammarError",
    "IndexStale",
    "InputError",
    "LtmError",
    "MemoryStoreError",
    "ModelError",
    "Problem",
    "SchemaError",
    "SessionBusy",
    "SessionError",
    "TrainingError",
]


class LtmError(Exception):
    """Base class of every error that ltm-edge raises on purpose."""


class BundleError(LtmError):
    """A bundle (folder, GGUF or sidecar) is missing, damaged or of an unknown version."""


class ModelError(BundleError):
    """A GGUF file can't be used as asked: not a GGUF, truncated, no weights, not a chat model."""


class GrammarError(LtmError):
    """A grammar doesn't parse, is too large, or can't be satisfied."""


class EngineError(LtmError):
    """llama.cpp refused or failed: loading, context creation, decoding."""


class ContextFull(EngineError):
    """A request doesn't fit into the model's context, even alone.

    Attributes:
        needed: tokens that the request needs, the answer's share included.
        limit: tokens that the context holds.
    """

    def __init__(self, message: str, *, needed: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.needed = needed
        self.limit = limit


class Cancelled(LtmError):
    """A call was cancelled before it had produced anything worth keeping."""


class MemoryStoreError(LtmError):
    """The scene memory is missing, damaged, locked or of an unknown version."""


class IndexStale(MemoryStoreError):
    """A saved vector index can't be used: missing, damaged, of another version, generation, size or embedder.

    The index is a cache of the scene memory, so the remedy is always the same: build it again from the store.
    """


class InputError(LtmError):
    """A request (text or PVQ) can't be taken as it is: empty, too large, unreadable."""


class SessionError(LtmError):
    """A saved session can't be read or written."""


class SessionBusy(SessionError):
    """The session is in use: by another process, or by another thread of this one."""


class TrainingError(LtmError):
    """A training run can't begin or go on: wrong base, data that lacks what the curriculum asks for, a loss that is no
    number, no room for a checkpoint.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file.

    Attributes:
        where: file name, or ``<string>``.
        path: key path inside it, such as ``fields.response.max_lines``; empty for the whole file.
        message: what was found and what is allowed.
        line: 1-based line, 0 where unknown.
        column: 1-based column, 0 where unknown.
    """

    where: str
    path: str
    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = self.where
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class SchemaError(LtmError):
    """A file doesn't follow its schema. Carries every problem found, not only the first.

    Attributes:
        problems: all problems, in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("; ".join(str(p) for p in self.problems))
