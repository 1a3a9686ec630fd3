"""Vocabularies on disk, so that a large one is not taken apart again at every start.

A vocabulary is stored under the hash of its content; models that share one share the file. Which content a model file
has is remembered by the file's path, size and time, because hashing a tokenizer of 262 144 tokens takes longer than
reading the finished vocabulary. Whatever is missing, stale or damaged is a miss, never an error.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltm_edge.errors import InputError
from ltm_edge.files import write_atomic
from ltm_edge.native import LLAMA_CPP_PYTHON, core
from ltm_edge.paths import cache_dir

__all__ = ["cached_vocab"]

logger = logging.getLogger(__name__)

_FORMAT = 1
_MAX_FILES = 32  # a vocabulary takes 2 to 15 MB


def _identity(path: Path) -> str:
    stat = path.stat()
    facts = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{LLAMA_CPP_PYTHON}|{_FORMAT}"
    return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cached_vocab(path: Path, build: Callable[[], Any]) -> Any:
    """The native vocabulary of the model file ``path``: from the cache folder, or built and put there."""
    folder = cache_dir() / "vocab"
    try:
        link = folder / f"{_identity(path)}.key"
    except OSError:
        return build()
    try:
        name = link.read_text(encoding="ascii").strip()
        if len(name) == 64 and set(name) <= set("0123456789abcdef"):
            return core().Vocab.deserialise((folder / f"{name}.vocab").read_bytes())
    except (OSError, UnicodeDecodeError, InputError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.info("vocabulary cache: %s; built again", error)
    vocab = build()
    try:
        blob = vocab.serialise()
        name = hashlib.sha256(blob).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{name}.vocab", blob)
        write_atomic(link, name.encode("ascii"))
        _evict(folder)
    except OSError as error:
        logger.info("vocabulary cache: can't be written: %s", error)
    return vocab


def _evict(folder: Path) -> None:
    """Remove the oldest files beyond the limit."""
    for pattern in ("*.vocab", "*.key"):
        files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_MAX_FILES:]:
            file.unlink(missing_ok=True)
