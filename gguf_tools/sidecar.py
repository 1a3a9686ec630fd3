"""The sidecar folder of a bundle: reading its manifest and comparing the folder with it (see FORMAT.md)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf_tools.duplicates import repeated
from gguf_tools.errors import BadManifest, GgufError
from gguf_tools.printable import printable

__all__ = [
    "MANIFEST",
    "ManifestEntry",
    "check_sidecar",
    "file_sha256",
    "is_safe_path",
    "read_manifest",
    "sidecar_folder",
    "write_manifest",
]

MANIFEST = "manifest.json"
_MANIFEST_VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_FILES = 10_000
_MAX_DEPTH = 8

_PART = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(10))}


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file of a sidecar folder.

    Attributes:
        path: relative to the folder, parts joined by `/`.
        size: bytes.
        sha256: 64 lower-case hexadecimal digits.
    """

    path: str
    size: int
    sha256: str


def sidecar_folder(bundle: str | os.PathLike[str]) -> Path:
    """The folder that belongs to a bundle's GGUF: `NAME.gguf` has `NAME.ltm` beside it."""
    path = Path(bundle)
    return path.with_name((path.stem if path.suffix.lower() == ".gguf" else path.name) + ".ltm")


def is_safe_path(path: str) -> bool:
    """Whether the path stays inside its folder and means the same file on every system."""
    parts = path.split("/")
    return len(parts) <= _MAX_DEPTH and all(
        _PART.fullmatch(part)
        and part.strip(".")
        and not part.endswith(".")  # Windows drops it
        and part.split(".")[0].lower() not in _WINDOWS_DEVICES
        for part in parts
    )


def read_manifest(folder: Path, sha256: str | None = None) -> tuple[ManifestEntry, ...]:
    """The entries of a sidecar folder's manifest, sorted by path.

    Args:
        folder: the sidecar folder.
        sha256: what the bundle says of the manifest (`ltm.sidecar.sha256`); None to leave that unchecked.

    Raises:
        BadManifest: it is missing, has another hash, or isn't what FORMAT.md says.
    """
    file = folder / MANIFEST
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BadManifest(file, "is no regular file")
        if status.st_size > _MAX_BYTES:
            raise BadManifest(file, f"has {status.st_size} bytes, {_MAX_BYTES} allowed")
        raw = file.read_bytes()
    except FileNotFoundError as error:
        raise BadManifest(file, "no such file") from error
    except OSError as error:
        raise BadManifest(file, f"can't be read: {error.strerror or error}") from error
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
        raise BadManifest(file, "isn't the manifest of this bundle: its hash differs from the bundle's")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise BadManifest(file, f"isn't JSON: {printable(str(error))}") from error
    if not isinstance(found, dict) or set(found) != {"files", "version"} or not isinstance(found["files"], list):
        raise BadManifest(file, "must hold 'files' (a list) and 'version', and nothing else")
    if found["version"] != _MANIFEST_VERSION or isinstance(found["version"], bool):
        version = printable(repr(found["version"]), 40)
        raise BadManifest(file, f"has version {version}, {_MANIFEST_VERSION} is known", remedy="update ltm-edge")
    if len(found["files"]) > _MAX_FILES:
        raise BadManifest(file, f"lists {len(found['files'])} files, {_MAX_FILES} allowed")
    entries = tuple(_entry(file, number, item) for number, item in enumerate(found["files"]))
    _check_paths(file, [entry.path for entry in entries])
    return entries


def write_manifest(folder: Path) -> str:
    """Write the manifest of all files in a folder; returns its SHA-256.

    Raises:
        ValueError: a file's path is none that a manifest may hold, or there are too many.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    unsafe = [path for path in paths if not is_safe_path(path)]
    if unsafe or len(paths) > _MAX_FILES or len({path.casefold() for path in paths}) != len(paths):
        raise ValueError(f"{folder}: {unsafe[0] if unsafe else 'too many files, or two that differ in case only'}")
    files = [
        {"path": path, "sha256": file_sha256(folder / path), "size": (folder / path).stat().st_size} for path in paths
    ]
    text = json.dumps({"files": files, "version": _MANIFEST_VERSION}, indent=2, sort_keys=True) + "\n"
    raw = text.encode("ascii")
    with (folder / MANIFEST).open("wb") as stream:
        stream.write(raw)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(raw).hexdigest()


def check_sidecar(folder: Path, sha256: str | None = None, *, hasher: Callable[[Path], str] | None = None) -> list[str]:
    """Everything that is wrong with a sidecar folder, one line each; empty if nothing is.

    Args:
        folder: the sidecar folder.
        sha256: as for `read_manifest`.
        hasher: gives the SHA-256 of a file, for callers that remember them; None reads every file.
    """
    try:
        entries = read_manifest(folder, sha256)
    except GgufError as error:
        return [str(error)]
    hash_of = hasher or file_sha256
    problems = [f"{entry.path}: {problem}" for entry in entries for problem in _wrong_file(folder, entry, hash_of)]
    listed = {entry.path for entry in entries} | {MANIFEST}
    problems += [f"{printable(name)}: {what}" for name, what in _strangers(folder, listed)]
    return problems


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if repeated(key for key, _ in pairs) is not None:
        raise ValueError("a key stands there twice")
    return dict(pairs)


def _entry(file: Path, number: int, item: object) -> ManifestEntry:
    if not isinstance(item, dict) or set(item) != {"path", "sha256", "size"}:
        raise BadManifest(file, f"files[{number}] must hold 'path', 'sha256' and 'size', and nothing else")
    path, sha256, size = item["path"], item["sha256"], item["size"]
    if not isinstance(path, str) or not is_safe_path(path) or path.casefold() == MANIFEST:
        raise BadManifest(file, f"files[{number}].path is {printable(repr(path), 120)}, not a path that is allowed")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadManifest(file, f"files[{number}].sha256 isn't 64 lower-case hexadecimal digits")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise BadManifest(file, f"files[{number}].size is {printable(repr(size), 40)}, not a number of bytes")
    return ManifestEntry(path, size, sha256)


def _check_paths(file: Path, paths: list[str]) -> None:
    if paths != sorted(paths):
        raise BadManifest(file, "lists its files in another order than that of their paths")
    twice = repeated(path.casefold() for path in paths)
    if twice is not None:
        raise BadManifest(file, f"lists '{twice}' twice, or in two spellings that differ in case only")


def _wrong_file(folder: Path, entry: ManifestEntry, hash_of: Callable[[Path], str]) -> Iterator[str]:
    """What is wrong with one listed file. A link anywhere on the way to it counts: it may lead out of the folder."""
    path = folder
    try:
        for part in entry.path.split("/"):
            path = path / part
            if path.is_symlink():
                yield "is, or is behind, a symbolic link"
                return
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield "is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file"
        elif status.st_size != entry.size:
            yield f"has {status.st_size} bytes, the manifest says {entry.size}"
        elif hash_of(path) != entry.sha256:
            yield "has another hash than the manifest says"
    except (FileNotFoundError, NotADirectoryError):
        yield "is missing"
    except OSError as error:
        yield f"can't be read: {error.strerror or error}"


def _strangers(folder: Path, listed: set[str]) -> Iterator[tuple[str, str]]:
    """Files and links that the manifest doesn't list. Empty folders are nobody's concern."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in sorted([*names, *(f for f in folders if (Path(parent) / f).is_symlink())]):
            relative = (Path(parent) / name).relative_to(folder).as_posix()
            if relative not in listed:
                yield relative, "isn't in the manifest"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()
