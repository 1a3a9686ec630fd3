"""Hashes of files, remembered in the cache folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path

from ltm_edge.files import write_atomic
from ltm_edge.paths import cache_dir

__all__ = ["file_sha256"]

_HASHES = "hashes.json"
_HASHES_VERSION = 1
_HASHES_KEPT = 256
_HASHES_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache folder for as long as path, size and time of change stay the same.

    Raises:
        OSError: the file can't be read.
    """
    status = path.stat()
    key = str(path)
    known = _read_hashes()
    entry = known.get(key)
    if isinstance(entry, dict) and (entry.get("size"), entry.get("mtime_ns")) == (status.st_size, status.st_mtime_ns):
        remembered = entry.get("sha256")
        if isinstance(remembered, str) and re.fullmatch(r"[0-9a-f]{64}", remembered):
            return remembered
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    known.pop(key, None)
    known[key] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest.hexdigest()}
    _write_hashes(known)
    return digest.hexdigest()


def _read_hashes() -> dict[str, object]:
    """What is remembered; nothing if the file is missing, damaged or of another version."""
    file = cache_dir() / _HASHES
    try:
        if file.stat().st_size > _HASHES_BYTES:
            return {}
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or found.get("version") != _HASHES_VERSION:
        return {}
    files = found.get("files")
    return dict(files) if isinstance(files, dict) else {}


def _write_hashes(files: dict[str, object]) -> None:
    newest = dict(itertools.islice(files.items(), max(0, len(files) - _HASHES_KEPT), None))
    text = json.dumps({"version": _HASHES_VERSION, "files": newest}, indent=1)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        write_atomic(cache_dir() / _HASHES, text.encode("ascii"))
    except OSError:
        # A cache that can't be kept costs the time of hashing again, nothing else; `doctor` names the folder.
        return
