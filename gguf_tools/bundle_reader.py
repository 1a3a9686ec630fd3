"""Opening a bundle: its documents, and the files of its sidecar folder after all of them were checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gguf_tools import keys
from gguf_tools.errors import BadManifest
from gguf_tools.ltm import ltm_entries
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo
from gguf_tools.sidecar import ManifestEntry, check_sidecar, read_manifest, sidecar_folder

__all__ = ["BundleReader", "documents", "with_defaults"]

_CHANNELS = "channels/"
_NAMES = {
    keys.LTM_OVERLAY: "ltm_overlay_config.yaml",
    keys.LTM_FIELD_ARCHITECTURE: "field_architecture.yaml",
    keys.LTM_PROMPTS: "prompts.yaml",
    keys.LTM_CURRICULUM: "curriculum.yaml",
}
_FOLDERS = {"scene_templates": keys.LTM_SCENE_TEMPLATE_PREFIX, "pvq_structs": keys.LTM_PVQ_PREFIX}


def documents(entries: Mapping[str, str]) -> dict[str, str]:
    """The texts of a bundle's documents by the names that they have in a bundle folder."""
    found = {name: entries[key] for key, name in _NAMES.items() if key in entries}
    for key in sorted(entries):
        for folder, prefix in _FOLDERS.items():
            if key.startswith(prefix):
                found[f"{folder}/{key.removeprefix(prefix)}.yaml"] = entries[key]
    return found


def with_defaults(entries: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, str]:
    """A bundle's entries and, for documents that it lacks, those of `texts`, by names as `documents` has them.

    Scene templates belong together: they are taken only where the bundle has none.
    """
    found = dict(entries)
    own = any(key.startswith(keys.LTM_SCENE_TEMPLATE_PREFIX) for key in entries)
    by_name = {name: key for key, name in _NAMES.items()}
    for name, text in texts.items():
        if name in by_name:
            found.setdefault(by_name[name], text)
        elif name.startswith("scene_templates/") and not own:
            found[keys.scene_template_key(name.removeprefix("scene_templates/").removesuffix(".yaml"))] = text
    return found


@dataclass(frozen=True, slots=True)
class BundleReader:
    """A GGUF file seen as a bundle. A plain model is one without entries.

    Attributes:
        info: the GGUF's header.
        entries: `ltm.*` entries by full key; empty for a plain model.
        folder: the sidecar folder; None where the bundle has none.
        files: its files by path.
    """

    info: GgufInfo
    entries: Mapping[str, str]
    folder: Path | None
    files: Mapping[str, ManifestEntry]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, hasher: Callable[[Path], str] | None = None) -> BundleReader:
        """Read the header and check the sidecar folder.

        Args:
            path: the GGUF file.
            hasher: gives the SHA-256 of a file; None reads every file of the sidecar folder.

        Raises:
            GgufError: the file is no GGUF, its `ltm.*` entries are wrong, or its sidecar folder isn't as listed.
        """
        return cls.of(read_gguf(path), hasher=hasher)

    @classmethod
    def of(cls, info: GgufInfo, *, hasher: Callable[[Path], str] | None = None) -> BundleReader:
        """The same for a header that was read already."""
        entries = ltm_entries(info)
        sha256 = entries.get(keys.LTM_SIDECAR_SHA256)
        if sha256 is None:
            return cls(info, entries, None, MappingProxyType({}))
        folder = sidecar_folder(info.path)
        listed = read_manifest(folder, sha256)
        problems = check_sidecar(folder, sha256, hasher=hasher)
        if problems:
            raise BadManifest(folder, "; ".join(problems))
        return cls(info, entries, folder, MappingProxyType({entry.path: entry for entry in listed}))

    @property
    def is_bundle(self) -> bool:
        """Whether it has `ltm.*` entries."""
        return bool(self.entries)

    @property
    def name(self) -> str | None:
        """The bundle's name; None for a plain model."""
        return self.entries.get(keys.LTM_NAME)

    @property
    def documents(self) -> dict[str, str]:
        """The texts of its documents by the names that they have in a bundle folder."""
        return documents(self.entries)

    @property
    def channels(self) -> dict[str, Path]:
        """Adapters of its channels by the channel's name, sorted."""
        found = {}
        for path in self.files:
            if path.startswith(_CHANNELS) and path.endswith(".gguf"):
                found[path.removeprefix(_CHANNELS).removesuffix(".gguf")] = self.file(path)
        return found

    def file(self, path: str) -> Path:
        """A file of the sidecar folder.

        Raises:
            KeyError: it has none of that path.
        """
        if self.folder is None or path not in self.files:
            raise KeyError(path)
        return self.folder / path
