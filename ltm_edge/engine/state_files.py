"""KV on disk, so that a second start of the same conversation computes nothing twice.

A file, all numbers little-endian:

=======================  ==============================================================
8 bytes                  ``ltm-kv\\r\\n``
uint32                   length of the header, at most 64 KiB
16 bytes                 BLAKE2b of the header
header                   JSON (ASCII): version, BLAKE2b of the key, number and
                         BLAKE2b of the tokens, bytes and CRC-32 of the KV
int32 [tokens]           the tokens
uint8 [bytes]            the KV as llama.cpp wrote it, to the end of the file
=======================  ==============================================================

The KV is by far the largest part and is checked by a CRC, which takes a fifth of BLAKE2b's time: it tells damage, and
nothing here could tell malice. llama.cpp trusts these bytes, so files of other users are not read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import EngineError, InputError, SessionError
from ltm_edge.files import replacing
from ltm_edge.native import LLAMA_CPP_PYTHON, core
from ltm_edge.paths import cache_dir

if TYPE_CHECKING:
    from ltm_edge.engine.decoder import Decoder
    from ltm_edge.engine.model import LoadedModel, Tokens

__all__ = ["DEFAULT_BYTES", "StateFiles", "StateKey", "file_identity"]

DEFAULT_BYTES = 2 << 30
"""Bytes that all files of the folder may take together, where nothing else is asked for."""

_MB_VARIABLE = "LTM_EDGE_STATE_MB"
_MAX_MB = 1 << 24

_MAGIC = b"ltm-kv\r\n"
_VERSION = 1
_LEAD = struct.Struct("<8sI16s")
_MAX_HEADER = 1 << 16
_MAX_TOKENS = 1 << 24
_CHUNK = 1 << 20  # checked while it is still in the processor's cache
_EDGE = 1 << 20

_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}\.kv")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}-[0-9a-f]{16}\.kv\..+\.tmp")
_TEMPORARY_S = 3600.0
_PART = re.compile(r"(.*-)00001(-of-(\d{5})\.gguf)", re.DOTALL)

_PREFIX = "prefix"
_PREFIXES = 4  # templates and languages between which a user goes back and forth

logger = logging.getLogger(__name__)


def file_identity(path: Path) -> str:
    """What tells one model file from another, without reading it all: 32 hexadecimal digits.

    Made of size, time of change, and the first and last MiB, of every part of a split model. A file that was changed
    in its middle and given its old time again is not noticed; a copy with a time of its own is another file.

    Raises:
        OSError: the file, or a part of it, can't be read.
    """
    paths = [path]
    if split := _PART.fullmatch(path.name):
        paths += [path.with_name(f"{split[1]}{n:05d}{split[2]}") for n in range(2, int(split[3]) + 1)]
    digest = hashlib.blake2b(digest_size=16)
    for part in paths:
        with part.open("rb") as stream:
            status = os.fstat(stream.fileno())
            digest.update(struct.pack("<Qq", status.st_size, status.st_mtime_ns))
            digest.update(stream.read(_EDGE))
            stream.seek(max(0, status.st_size - _EDGE))
            digest.update(stream.read(_EDGE))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class StateKey:
    """What saved KV depends on, besides its tokens. Not on the size of the context.

    Attributes:
        model: :func:`file_identity` of the model file.
        kv_type: type of the cache, and whether flash attention (which lays V out otherwise) was asked for.
        adapters: the base state's adapters and scales in words; empty for none.
        library: versions of llama.cpp and of its package.
        name: ``prefix`` for what conversations begin with, of which a few are kept; ``session-NAME`` for one
            conversation, of which the last is kept.
    """

    model: str
    kv_type: str
    adapters: str
    library: str
    name: str = _PREFIX

    @classmethod
    def of(cls, model: LoadedModel, adapters: str = "") -> StateKey:
        """The key of a model's prefixes. Raises OSError if the model file is gone."""
        return cls(
            model=file_identity(model.path),
            kv_type=f"{model.options.kv_type}, flash attention {model.options.flash_attn}",
            adapters=adapters,
            library=f"llama.cpp {core().llama_version()}, llama-cpp-python {LLAMA_CPP_PYTHON}",
        )

    def session(self, name: str) -> StateKey:
        """The key of one conversation."""
        return replace(self, name=f"session-{name}")

    @property
    def digest(self) -> str:
        """BLAKE2b of the key and of this format's version, 32 hexadecimal digits: the beginning of a file's name."""
        parts = [_VERSION, self.model, self.kv_type, self.adapters, self.library, self.name]
        return hashlib.blake2b(json.dumps(parts).encode("ascii"), digest_size=16).hexdigest()


class _Unusable(Exception):
    """A file that is of no use to anyone, and why."""


@dataclass(frozen=True, slots=True)
class _State:
    tokens: Tokens
    data: npt.NDArray[np.uint8]  # empty where only the tokens were wanted


class StateFiles:
    """A folder of saved KV. What is missing, stale or damaged is a miss with one log line, never an error.

    The files hold what was said, in tokens and in KV from which it could be read back: the folder is made for its user
    alone (0700), each file likewise (0600). An existing folder keeps its mode.

    Any number of processes may use one folder: files appear whole, by renaming, and one that is evicted while it is
    being read stays readable on POSIX systems and can't be evicted on Windows.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int | None = None) -> None:
        """Name the folder; nothing is touched yet.

        Args:
            folder: where the files lie; ``state`` in the user's cache folder by default.
            max_bytes: bytes that all files may take together, those used least recently go first; 0 stores and reads
                nothing. None: what the environment variable LTM_EDGE_STATE_MB says (in MiB), else 2 GiB.

        Raises:
            InputError: LTM_EDGE_STATE_MB is not a whole number.
        """
        self.folder = cache_dir() / "state" if folder is None else folder
        self.max_bytes = _bytes_allowed() if max_bytes is None else max_bytes

    def save(self, key: StateKey, tokens: Tokens, decoder: Decoder) -> bool:
        """Save the KV that ``decoder`` holds of the longest beginning of ``tokens`` (int32 [n]).

        What is there already is not written again.

        Returns:
            Whether it is on disk now.

        Raises:
            InputError: tokens that the model doesn't have.
        """
        if self.max_bytes <= 0:
            return False
        path = self._path(key, tokens)
        if self._stands(path, key, tokens):
            self._evict(key, path)
            return True
        try:
            data, count = decoder.save_state(tokens)
        except EngineError as error:
            logger.warning("saved state: not saved: %s", error)
            return False
        if count == 0:
            return False
        if count < len(tokens):
            tokens = tokens[:count]
            path = self._path(key, tokens)
            if self._stands(path, key, tokens):
                self._evict(key, path)
                return True
        head = _head(key, tokens, data)
        size = len(head) + data.nbytes
        if size > self.max_bytes:
            logger.warning(
                "saved state: %d tokens take %d bytes, the folder may hold %d (%s, in MiB); not saved",
                len(tokens),
                size,
                self.max_bytes,
                _MB_VARIABLE,
            )
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
            with replacing(path, mode=0o600) as stream:
                stream.write(head)
                stream.write(data.data)
        except OSError as error:
            logger.warning("saved state: %s can't be written: %s", self.folder, error)
            return False
        self._evict(key, path)
        return True

    def load(self, key: StateKey, tokens: Tokens, decoder: Decoder) -> int:
        """Give ``decoder`` the saved KV that has most in common with the beginning of ``tokens`` (int32 [n]).

        A file of which less than half would be used is left alone, and so is one that the context can't hold. Where
        cached tokens can't be shifted they can't be counted on to be cut off either; then all of a file's tokens must
        be a beginning of ``tokens``.

        Returns:
            How many of ``tokens`` are cached by it; 0: none.

        Raises:
            EngineError: the decoder is in use by another thread.
        """
        if self.max_bytes <= 0:
            return 0
        found: list[tuple[int, int, Path]] = []
        for path in self._paths(key):
            head = self._read(path, key, with_data=False)
            if head is None or len(head.tokens) > decoder.n_ctx:
                continue
            common = _common(head.tokens, tokens)
            whole = common == len(head.tokens)
            if common > 0 and (whole or (2 * common >= len(head.tokens) and decoder.can_shift)):
                found.append((common, -len(head.tokens), path))
        for common, _, path in sorted(found, reverse=True):
            state = self._read(path, key, with_data=True)
            if state is None or _common(state.tokens, tokens) != common:
                continue
            try:
                taken = decoder.restore_state(state.tokens, state.data)
            except InputError:  # tokens that this model doesn't have
                taken = False
            if taken:
                _touch(path)
                return common
            self._drop(path, "llama.cpp refuses it")
        return 0

    def forget(self, key: StateKey) -> int:
        """Remove what is saved under a key, for a conversation that its user wants gone; returns how many files went.

        Raises:
            SessionError: a file is there and can't be removed.
        """
        gone = 0
        for path in self._paths(key):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise SessionError(
                    f"saved state: {path} can't be removed: {error.strerror}; delete it by hand"
                ) from error
            gone += 1
        return gone

    def _path(self, key: StateKey, tokens: Tokens) -> Path:
        digest = hashlib.blake2b(_little(tokens), digest_size=8).hexdigest()
        return self.folder / f"{key.digest}-{digest}.kv"

    def _paths(self, key: StateKey) -> list[Path]:
        """Files of a key, in the order of their names."""
        start = key.digest
        try:
            return sorted(self.folder / e.name for e in self._entries() if e.name.startswith(start))
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("saved state: %s can't be read: %s", self.folder, error)
            return []

    def _entries(self, pattern: re.Pattern[str] = _NAME) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if pattern.fullmatch(entry.name):
                    yield entry

    def _stands(self, path: Path, key: StateKey, tokens: Tokens) -> bool:
        """Whether these very tokens are saved; if so, they count as used just now."""
        try:
            path.lstat()
        except OSError:  # if that is more than a missing file, writing says so
            return False
        head = self._read(path, key, with_data=False)
        if head is None or not np.array_equal(head.tokens, tokens):
            return False
        _touch(path)
        return True

    def _read(self, path: Path, key: StateKey, *, with_data: bool) -> _State | None:
        """A file's tokens, and its KV if wanted; None after a log line, and without the file if that is at fault."""
        try:
            with _open(path) as stream:
                return _parse(stream, key, self.max_bytes, with_data=with_data)
        except FileNotFoundError:  # evicted by another process
            return None
        except _Unusable as error:
            self._drop(path, str(error))
        except (OSError, MemoryError) as error:
            logger.warning("saved state: %s can't be read: %s", path, str(error) or "out of memory")
        return None

    def _drop(self, path: Path, why: str) -> None:
        outcome = "removed"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            outcome = f"can't be removed: {error.strerror}"
        logger.warning("saved state: %s: %s; %s", path, why, outcome)

    def _sweep(self) -> None:
        """Remove what killed writers left. An hour is far beyond any writer's time; so is one in the future."""
        for entry in self._entries(_TEMPORARY):
            with contextlib.suppress(OSError):
                if abs(time.time() - entry.stat(follow_symlinks=False).st_mtime) > _TEMPORARY_S:
                    Path(entry.path).unlink()

    def _evict(self, key: StateKey, saved: Path) -> None:
        """Remove files used least recently: of this key those beyond its number, of all those beyond the size.

        What another process has used since ``saved`` was written stays, so that two of them never remove each other's.
        """
        files: list[tuple[int, str, int]] = []
        with contextlib.suppress(OSError):
            for entry in self._entries():
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime_ns, entry.name, status.st_size))
        own = next((file for file in files if file[1] == saved.name), None)
        if own is None:  # another process saved later, and has cleared up
            return
        total = sum(size for _, _, size in files)
        now = time.time_ns()  # a file from the future was left by a wrong clock
        others = sorted(file for file in files if file < own or file[0] > now)
        surplus = sum(name.startswith(key.digest) for _, name, _ in others) + 1
        surplus -= _PREFIXES if key.name == _PREFIX else 1
        for _, name, size in others:
            same = name.startswith(key.digest)
            if total <= self.max_bytes and not (same and surplus > 0):
                continue
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
                total -= size
                surplus -= same


def _bytes_allowed() -> int:
    text = os.environ.get(_MB_VARIABLE, "").strip()
    if not text:
        return DEFAULT_BYTES
    if not re.fullmatch(r"[0-9]{1,8}", text) or int(text) > _MAX_MB:
        raise InputError(
            f"{_MB_VARIABLE}: expected a whole number of MiB from 0 (store nothing) to {_MAX_MB}, found {text!r}"
        )
    return int(text) << 20


def _little(tokens: Tokens) -> bytes:
    return np.ascontiguousarray(tokens, dtype="<i4").tobytes()


def _common(a: Tokens, b: Tokens) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # a folder that can only be read still serves
        os.utime(path)


def _head(key: StateKey, tokens: Tokens, data: npt.NDArray[np.uint8]) -> bytes:
    """All of a file up to the KV."""
    spelled = _little(tokens)
    header = json.dumps(
        {
            "version": _VERSION,
            "key": key.digest,
            "tokens": len(tokens),
            "tokens_blake2b": hashlib.blake2b(spelled, digest_size=16).hexdigest(),
            "bytes": data.nbytes,
            "crc32": zlib.crc32(data.data),
        }
    ).encode("ascii")
    return _LEAD.pack(_MAGIC, len(header), hashlib.blake2b(header, digest_size=16).digest()) + header + spelled


def _open(path: Path) -> io.FileIO:
    """Open a plain file of this user. Not through a link, and without waiting for the other end of a pipe."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    try:
        stream = io.FileIO(os.open(path, flags), "rb")
    except IsADirectoryError:
        raise _Unusable("a folder") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _Unusable("a link") from None
        raise
    try:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable("not a file")
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            raise _Unusable(f"belongs to user {status.st_uid}")
    except BaseException:
        stream.close()
        raise
    return stream


def _parse(stream: io.FileIO, key: StateKey, most: int, *, with_data: bool) -> _State:
    """Read a file. Nothing is allocated that the file's own size doesn't bear out.

    Raises:
        _Unusable: it is damaged, or not what its name says.
        OSError: the system can't read it.
    """
    total = os.fstat(stream.fileno()).st_size
    if total > most:
        raise _Unusable(f"{total} bytes, the folder may hold {most}")
    magic, length, digest = _LEAD.unpack(_exactly(stream, _LEAD.size, total))
    if magic != _MAGIC:
        raise _Unusable("not saved KV")
    if length > _MAX_HEADER:
        raise _Unusable(f"damaged: a header of {length} bytes, at most {_MAX_HEADER} are allowed")
    header = _exactly(stream, length, total - _LEAD.size)
    if hashlib.blake2b(header, digest_size=16).digest() != digest:
        raise _Unusable("damaged: the header doesn't match its checksum")
    count, spelled_digest, size, crc = _fields(header, key)
    if total != _LEAD.size + length + 4 * count + size:
        raise _Unusable(f"damaged: {total} bytes, {_LEAD.size + length + 4 * count + size} were written")
    spelled = _exactly(stream, 4 * count, total)
    if hashlib.blake2b(spelled, digest_size=16).hexdigest() != spelled_digest:
        raise _Unusable("damaged: the tokens don't match their checksum")
    tokens = np.frombuffer(spelled, dtype="<i4").astype(np.int32)
    data: npt.NDArray[np.uint8] = np.empty(size if with_data else 0, dtype=np.uint8)
    if with_data:
        found = 0
        for start in range(0, size, _CHUNK):
            chunk = data[start : start + _CHUNK].data
            _fill(stream, chunk)
            found = zlib.crc32(chunk, found)
        if found != crc:
            raise _Unusable("damaged: the KV doesn't match its checksum")
    return _State(tokens, data)


def _fields(header: bytes, key: StateKey) -> tuple[int, str, int, int]:
    """Tokens, their checksum, bytes of KV, their checksum."""
    try:
        found: Any = json.loads(header)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _Unusable("damaged: the header is not a JSON object")
    if found.get("version") != _VERSION:
        raise _Unusable(f"format {found.get('version')!r}, this program reads {_VERSION}")
    if found.get("key") != key.digest:
        raise _Unusable("saved for another model, adapter, library or session than its name says")
    numbers: list[int] = [found.get(name, -1) for name in ("tokens", "bytes", "crc32")]
    if any(type(number) is not int or number < 0 for number in numbers) or not 0 < numbers[0] <= _MAX_TOKENS:
        raise _Unusable("damaged: the header's numbers are out of range")
    count, size, crc = numbers
    return count, str(found.get("tokens_blake2b")), size, crc


def _exactly(stream: io.FileIO, size: int, left: int) -> bytes:
    if size > left:
        raise _Unusable("damaged: it ends too early")
    buffer = bytearray(size)
    _fill(stream, memoryview(buffer))
    return bytes(buffer)


def _fill(stream: io.FileIO, buffer: memoryview) -> None:
    while len(buffer) > 0:
        read = stream.readinto(buffer)
        if not read:
            raise _Unusable("damaged: it ends too early")
        buffer = buffer[read:]
