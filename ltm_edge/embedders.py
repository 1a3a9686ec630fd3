"""The demo embedder: converted to GGUF on first use and kept in the cache folder."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from filelock import FileLock

from gguf_tools.convert_bert import CONVERTER_VERSION, BertType, convert_bert
from gguf_tools.errors import GgufError
from gguf_tools.reader import read_gguf
from ltm_edge.engine.embedder import Embedder
from ltm_edge.errors import ModelError
from ltm_edge.files import write_atomic
from ltm_edge.hashes import file_sha256
from ltm_edge.models import ModelFile, find_demo_embedder_weights
from ltm_edge.paths import cache_dir

__all__ = ["demo_embedder", "demo_embedder_path", "open_embedder"]

logger = logging.getLogger(__name__)

_NAME = "all-MiniLM-L6-v2"
_LICENCE = "apache-2.0"
_FILES = ("config.json", "tokenizer.json", "modules.json")


def open_embedder(path: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> Embedder:
    """The embedder in a GGUF file; None: the demo embedder.

    Raises:
        ModelError: it isn't installed, can't be converted or can't embed.
    """
    return demo_embedder(threads=threads) if path is None else Embedder.open(Path(path), threads=threads)


def demo_embedder(type_: BertType = "F16", *, threads: int | None = None) -> Embedder:
    """The demo embedder, all-MiniLM-L6-v2 (384 dimensions, English).

    Raises:
        ModelError: its package isn't installed, or it can't be converted.
    """
    return Embedder.open(demo_embedder_path(type_), threads=threads)


def demo_embedder_path(type_: BertType = "F16") -> Path:
    """The GGUF of the demo embedder, from the cache folder or converted now (about a second).

    The file's name has the hash of what it was made of and the converter's version; its own hash stands beside it, so
    that a damaged file is noticed and made again. Processes that need it at once make it one after the other.

    Raises:
        ModelError: its package isn't installed, it can't be converted, or the cache folder can't be written.
    """
    weights = find_demo_embedder_weights()
    folder = cache_dir() / "embedders"
    try:
        out = folder / f"{_NAME}-{type_}-{_key(weights)}.gguf"
        if _intact(out):
            return out
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{out}.lock"):
            if _intact(out):
                return out
            if out.exists():
                logger.warning("%s: damaged or unfinished; converted again", out)
            convert_bert(weights.path.parent, out, type_, name=_NAME, licence=_LICENCE)
            write_atomic(_stamp(out), file_sha256(out).encode("ascii"))
    except GgufError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise ModelError(
            f"{folder}: the demo embedder can't be converted there: {error.strerror or error}; "
            "free space, or name another folder with LTM_EDGE_HOME"
        ) from error
    return out


def _key(weights: ModelFile) -> str:
    """Names what the file is made of: weights, configuration, tokenizer, converter."""
    digest = hashlib.sha256(f"{CONVERTER_VERSION} {weights.sha256}".encode())
    for name in _FILES:
        digest.update(b"\0" + (weights.path.parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _stamp(out: Path) -> Path:
    return out.with_suffix(".sha256")


def _intact(out: Path) -> bool:
    try:
        if _stamp(out).read_bytes() != file_sha256(out).encode("ascii"):
            return False
        read_gguf(out)
    except (OSError, GgufError):
        return False
    return True
