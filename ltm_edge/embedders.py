"""The demo embedder, converted to GGUF on first use and kept in the cache folder; one embedder for a bundle."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from gguf_tools.convert_bert import CONVERTER_VERSION, BertType, convert_bert
from gguf_tools.errors import GgufError
from gguf_tools.reader import read_gguf
from ltm_edge.engine.embedder import Embedder, Vectors
from ltm_edge.errors import ModelError
from ltm_edge.files import write_atomic
from ltm_edge.hashes import file_sha256
from ltm_edge.models import ModelFile, find_demo_embedder_weights
from ltm_edge.paths import cache_dir

__all__ = ["SharedEmbedder", "demo_embedder", "demo_embedder_path", "open_embedder"]

logger = logging.getLogger(__name__)

_NAME = "all-MiniLM-L6-v2"
_LICENCE = "apache-2.0"
_FILES = ("config.json", "tokenizer.json", "modules.json")
_AGAIN_S = 10.0  # seconds after which an embedder that couldn't be loaded is tried again
_KEPT = 512  # vectors of texts that were asked for last; a turn asks for the same request several times


class SharedEmbedder:
    """One embedder for the whole of a bundle: the field, the critics and the memory ask for the same texts.

    Loaded when it is first needed. May be called from several threads, which wait for each other; the vectors of the
    last texts are kept.
    """

    def __init__(self, make: Callable[[], Embedder]) -> None:
        """Take what loads it."""
        self._make = make
        self._made: Embedder | None = None
        self._failed = ""
        self._until = 0.0
        self._lock = threading.RLock()
        self._kept: OrderedDict[str, Vectors] = OrderedDict()

    @property
    def dim(self) -> int:
        """Numbers of a vector. Raises as :meth:`embed`."""
        return self._open().dim

    @property
    def id(self) -> str:
        """Name of the vector space. Raises as :meth:`embed`."""
        return self._open().id

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of the texts in their order, float32 [n, dim], rows of length 1.

        Raises:
            ModelError: it can't be loaded; said again at each call, and tried again after some seconds.
            EngineError, InputError: as :meth:`ltm_edge.engine.embedder.Embedder.embed`.
        """
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            found = dict(zip(new, self._open().embed(new), strict=True)) if new else {}
            for text in dict.fromkeys(texts):
                if text not in found:
                    found[text] = self._kept[text]
                    self._kept.move_to_end(text)
            self._kept.update((text, found[text]) for text in new)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            rows = [found[text] for text in texts]
            return np.stack(rows) if rows else np.empty((0, self._open().dim), dtype=np.float32)

    def covers(self, text: str) -> bool:
        """Whether its vocabulary can represent the text. Raises as :meth:`embed`."""
        return self._open().covers(text)

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            if self._made is not None:
                self._made.close()
            self._made, self._failed, self._until = None, "the embedder is closed", math.inf
            self._kept.clear()

    def _open(self) -> Embedder:
        with self._lock:
            if self._failed and time.monotonic() < self._until:
                raise ModelError(self._failed)
            if self._made is None:
                try:
                    self._made = self._make()
                except ModelError as error:
                    self._failed, self._until = str(error), time.monotonic() + _AGAIN_S
                    raise
                self._failed = ""
            return self._made


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
