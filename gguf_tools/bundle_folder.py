"""A bundle folder (`ltm-vortex-1B/`): the form that one edits. Reading it, with every problem at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_tools import keys
from gguf_tools.errors import BadSource, GgufError
from gguf_tools.json_files import read_json, read_json_object
from gguf_tools.lora_peft import CONFIG as PEFT_CONFIG
from gguf_tools.lora_peft import WEIGHTS as PEFT_WEIGHTS
from gguf_tools.printable import printable
from gguf_tools.sidecar import is_safe_path
from gguf_tools.yaml_files import MAX_YAML, load_yaml

__all__ = ["BundleFolder", "Channel", "Check", "is_inner_path", "read_bundle_folder"]

CONFIG = "config.json"
OVERLAY = "ltm_overlay_config.yaml"
FIELD = "field_architecture.yaml"
PROMPTS = "prompts.yaml"
CURRICULA = ("curriculum.yaml", "ltm_curriculum.yaml")
TEMPLATES = "scene_templates"
STRUCTS = "pvq_structs"
LORA_FOLDER = "lora"
LORAS = ("model_lora.safetensors", "model_lora.gguf", PEFT_WEIGHTS)
MEMORIES = ("memory", "memory_faiss")
LOG = "integration_log.json"
# Belong to a model folder and say nothing that the GGUF doesn't, or belong to training.
_KNOWN = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    PEFT_CONFIG,
    "data",
    "training",
    "PVQ.yaml",
)
_MAX_JSON = 16 << 20
_MAX_LAYERS = 1024
_MAX_HEADS = 1024
_BUNDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHANNEL = re.compile(r"[a-z][a-z0-9_-]{0,63}")

Check = Callable[[str, bytes], list[str]]
"""Given a document's name (as in a bundle folder) and content, says what is wrong with it, a line each."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What a zone of the field architecture says of its adapter.

    Attributes:
        name: the zone.
        adapter: file of a learned LoRA; None if there is none.
        head_gates: gain by layer, then by head of the attention output.
    """

    name: str
    adapter: Path | None
    head_gates: Mapping[int, Mapping[int, float]]


@dataclass(frozen=True, slots=True)
class BundleFolder:
    """A bundle folder that was read.

    Attributes:
        path: the folder.
        name: the overlay's name.
        entries: `ltm.*` entries that come from its documents.
        channels: zones that have an adapter or head gates, sorted by name.
        files: sidecar files by their path there.
        lora: file of the LoRA to merge; None if there is none.
        config: what `config.json` holds.
        ignored: names in the folder that belong to no bundle, sorted.
    """

    path: Path
    name: str
    entries: Mapping[str, str]
    channels: tuple[Channel, ...]
    files: Mapping[str, Path]
    lora: Path | None
    config: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def read_bundle_folder(path: str | Path, check: Check | None = None) -> tuple[BundleFolder, list[str]]:
    """Read a bundle folder: what it holds, and everything that is wrong with it, a line each.

    Args:
        path: the folder.
        check: looks at each document more closely, such as by its schema.

    Raises:
        BadSource: it isn't a folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BadSource(folder, "is no folder" if folder.exists() else "no such folder", remedy="name a bundle folder")
    return _Reader(folder, check).read()


class _Reader:
    """Goes through the folder once, noting what is wrong and going on."""

    def __init__(self, folder: Path, check: Check | None) -> None:
        self.folder = folder
        self.root = folder.resolve()
        self.check = check
        self.problems: list[str] = []
        self.entries: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        self.seen: set[str] = set()
        self.left_out: list[str] = []

    def read(self) -> tuple[BundleFolder, list[str]]:
        overlay = self.document(OVERLAY, keys.LTM_OVERLAY, required=True)
        field = self.document(FIELD, keys.LTM_FIELD_ARCHITECTURE)
        self.document(PROMPTS, keys.LTM_PROMPTS)
        found = [name for name in CURRICULA if self.there(name)]
        if len(found) > 1:
            self.problems.append(f"{found[0]} and {found[1]}: two names for one thing; keep one of them")
        for name in found[:1]:
            self.document(name, keys.LTM_CURRICULUM)
        self.templates()
        self.structs()
        name = self.name(overlay)
        channels = self.channels(field)
        self.embedder(overlay)
        self.memory()
        self.log()
        config = self.config()
        lora = self.lora()
        self.seen.update(_KNOWN)
        strangers = [p.name for p in self.folder.iterdir() if p.name not in self.seen and not p.name.startswith(".")]
        ignored = sorted([*strangers, *self.left_out])
        entries = {keys.LTM_FORMAT: str(keys.LTM_FORMAT_VERSION), keys.LTM_NAME: name, **self.entries}
        files = dict(sorted(self.files.items()))
        folder = BundleFolder(self.folder, name, entries, channels, files, lora, config, tuple(ignored))
        return folder, self.problems

    def there(self, name: str) -> bool:
        return (self.folder / name).exists() or (self.folder / name).is_symlink()

    def own(self, name: str) -> Path | None:
        """A regular file of the folder; None, with a problem noted, if it isn't one or leads out of it."""
        path = self.folder / name
        self.seen.add(name.split("/", 1)[0])
        shown = printable(name, 200)
        try:
            if not path.exists():
                self.problems.append(f"{shown}: {'leads nowhere' if path.is_symlink() else 'is missing'}")
            elif not path.resolve().is_relative_to(self.root):
                self.problems.append(f"{shown}: leads out of the folder; put the file itself there")
            elif not path.is_file():
                self.problems.append(f"{shown}: is {'a folder' if path.is_dir() else 'no regular file'}")
            else:
                return path
        except (OSError, ValueError, RuntimeError) as error:
            self.problems.append(f"{shown}: can't be read: {printable(str(error), 120)}")
        return None

    def document(self, name: str, key: str | None, *, required: bool = False) -> Any:
        """The data of a YAML document, whose text is noted under `key`; None if it isn't there or isn't sound."""
        if not required and not self.there(name):
            return None
        path = self.own(name)
        if path is None:
            return None
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_YAML + 1)
            data = load_yaml(raw)
        except (OSError, ValueError) as error:
            self.problems.append(f"{printable(name, 200)}: {printable(str(error), 200)}")
            return None
        except ImportError:
            self.problems.append(f"{printable(name, 200)}: reading YAML needs the package PyYAML; install it")
            return None
        version = _version(data)
        if version > 1:
            self.problems.append(f"{printable(name, 200)}: version {version} is newer than the newest known, 1")
            return None
        if self.check is not None:
            complaints = self.check(name, raw)
            if complaints:
                self.problems += complaints
                return None
        if key is not None:
            self.entries[key] = raw.decode("utf-8-sig")
        return data

    def own_folder(self, name: str) -> Path | None:
        """A folder inside the folder; None if there is none, with a problem noted if it isn't one or leads out."""
        path = self.folder / name
        self.seen.add(name)
        if not self.there(name):
            return None
        if not path.is_dir():
            self.problems.append(f"{name}: is no folder" if path.exists() else f"{name}: leads nowhere")
        elif not path.resolve().is_relative_to(self.root):
            self.problems.append(f"{name}: leads out of the folder; put the folder itself there")
        else:
            return path
        return None

    def templates(self) -> None:
        """Scene templates, by the names that they give themselves."""
        for where, path, data in self.documents(TEMPLATES):
            name = data.get("name") if isinstance(data, dict) else None
            try:
                key = keys.scene_template_key(name if isinstance(name, str) else "")
            except ValueError as error:
                self.problems.append(f"{printable(where, 200)}: name: {printable(str(error), 200)}")
                continue
            if key in self.entries:
                self.problems.append(f"{printable(where, 200)}: name: '{name}' is another template's name already")
                continue
            self.entries[key] = path.read_bytes().decode("utf-8-sig")

    def structs(self) -> None:
        """Example requests, by the names of their files."""
        for where, path, _ in self.documents(STRUCTS):
            try:
                key = keys.pvq_key(path.stem)
            except ValueError as error:
                self.problems.append(f"{printable(where, 200)}: {printable(str(error), 200)}; rename the file")
                continue
            self.entries[key] = path.read_bytes().decode("utf-8-sig")

    def documents(self, part: str) -> Iterator[tuple[str, Path, Any]]:
        """The YAML files of a folder that can be read: name in the bundle folder, path, content."""
        folder = self.own_folder(part)
        for path in sorted(folder.iterdir()) if folder is not None else ():
            where = f"{part}/{path.name}"
            if path.suffix.lower() in (".yaml", ".yml") and path.suffix != ".yaml":
                self.problems.append(f"{printable(where, 200)}: files in {part} end in .yaml; rename it")
            if path.suffix != ".yaml":
                if not path.name.startswith("."):
                    self.left_out.append(where)
                continue
            data = self.document(where, None)
            if data is not None:
                yield where, path, data

    def name(self, overlay: Any) -> str:
        root = overlay.get("ltm_overlay") if isinstance(overlay, dict) else None
        name = root.get("name") if isinstance(root, dict) else None
        if keys.LTM_OVERLAY not in self.entries:  # refused already
            return ""
        if not isinstance(root, dict):
            self.problems.append(f"{OVERLAY}: ltm_overlay: is missing, or no mapping")
        elif name is None:
            self.problems.append(f"{OVERLAY}: ltm_overlay.name: the bundle's name is missing")
        elif not isinstance(name, str) or not _BUNDLE.fullmatch(name):
            self.problems.append(
                f"{OVERLAY}: ltm_overlay.name: '{printable(str(name), 60)}' is no name: letters, digits, dots, hyphens "
                "and underscores, 100 at most"
            )
        return name if isinstance(name, str) else ""

    def channels(self, data: Any) -> tuple[Channel, ...]:
        root = data.get("field") if isinstance(data, dict) else None
        zones = root.get("zones") if isinstance(root, dict) else None
        if keys.LTM_FIELD_ARCHITECTURE in self.entries and not isinstance(zones, dict):
            self.problems.append(f"{FIELD}: field.zones: is missing, or no mapping")
        found = []
        for name, zone in (zones or {}).items() if isinstance(zones, dict) else ():
            if not isinstance(zone, dict) or not ("adapter" in zone or "head_gates" in zone):
                continue
            where = f"{FIELD}: field.zones.{printable(str(name), 80)}"
            if not isinstance(name, str) or not _CHANNEL.fullmatch(name) or not is_safe_path(f"channels/{name}.gguf"):
                self.problems.append(f"{where}: a channel with an adapter has a name of a-z, 0-9, - and _")
                continue
            adapter = self.named_file(f"{where}.adapter", self.weights(zone.get("adapter")))
            gates = self.gates(f"{where}.head_gates", zone.get("head_gates"))
            if adapter is not None or gates:
                found.append(Channel(name, adapter, gates))
        return tuple(sorted(found, key=lambda channel: channel.name))

    def weights(self, adapter: Any) -> Any:
        """What a zone names as its adapter; of a PEFT folder, the file in it."""
        inside = f"{adapter}/{PEFT_WEIGHTS}"
        return inside if isinstance(adapter, str) and is_inner_path(adapter) and self.there(inside) else adapter

    def named_file(self, where: str, value: Any) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, str) or not is_inner_path(value):
            self.problems.append(f"{where}: '{printable(str(value), 120)}' is no path inside the folder")
            return None
        return self.own(value)

    def gates(self, where: str, value: Any) -> Mapping[int, Mapping[int, float]]:
        if value is None:
            return {}
        gates: dict[int, dict[int, float]] = {}
        if not isinstance(value, dict):
            self.problems.append(f"{where}: must be {{layer: {{head: gain}}}}")
            return {}
        for layer, heads in value.items():
            number = _index(layer, _MAX_LAYERS)
            if number is None or number in gates or not isinstance(heads, dict):
                self.problems.append(
                    f"{where}.{printable(str(layer), 40)}: must be a layer's number with {{head: gain}}"
                )
                continue
            row = gates.setdefault(number, {})
            for head, gain in heads.items():
                index = _index(head, _MAX_HEADS)
                sound = isinstance(gain, (int, float)) and not isinstance(gain, bool) and -16 <= gain <= 16
                if index is None or index in row or not sound:
                    shown = f"{printable(str(layer), 40)}.{printable(str(head), 40)}"
                    self.problems.append(f"{where}.{shown}: must be a head's number with a gain from -16 to 16")
                    continue
                row[index] = float(gain)
        return {layer: dict(sorted(row.items())) for layer, row in sorted(gates.items()) if row}

    def embedder(self, overlay: Any) -> None:
        root = overlay.get("ltm_overlay") if isinstance(overlay, dict) else None
        entry = root.get("embedder") if isinstance(root, dict) else None
        if isinstance(entry, dict) and entry.get("file") is not None:
            path = self.named_file(f"{OVERLAY}: ltm_overlay.embedder.file", entry["file"])
            if path is not None:
                self.files["embedder.gguf"] = path

    def memory(self) -> None:
        found = [name for name in MEMORIES if self.own_folder(name) is not None]
        if len(found) > 1:
            self.problems.append(f"{found[0]}/ and {found[1]}/: two names for one thing; keep one of them")
            return
        folded: dict[str, str] = {}
        for name in found:
            for path in sorted((self.folder / name).rglob("*")):
                relative = path.relative_to(self.folder / name).as_posix()
                if path.is_dir() and path.is_symlink():
                    self.problems.append(f"{name}/{printable(relative)}: is a link to a folder; put the folder there")
                if path.is_dir() or path.name.startswith(".") or path.name.endswith((".lock", "-shm")):
                    continue
                if path.name.endswith(("-wal", "-journal")):
                    if path.stat().st_size:
                        self.problems.append(f"{name}/{printable(relative)}: the memory is in use; close it first")
                    continue
                if not is_safe_path(f"memory/{relative}"):
                    self.problems.append(f"{name}/{printable(relative)}: a name that a sidecar folder can't hold")
                    continue
                other = folded.setdefault(relative.casefold(), relative)
                if other != relative:
                    self.problems.append(f"{name}/{relative} and {name}/{other}: differ in case only; rename one")
                elif (own := self.own(f"{name}/{relative}")) is not None:
                    self.files[f"memory/{relative}"] = own

    def log(self) -> None:
        if self.there(LOG) and (path := self.own(LOG)) is not None:
            try:
                read_json(path, _MAX_JSON, BadSource)
            except GgufError as error:
                self.problems.append(f"{LOG}: {error.what}")
            self.files[LOG] = path

    def config(self) -> Mapping[str, Any]:
        if not self.there(CONFIG) or (path := self.own(CONFIG)) is None:
            return {}
        try:
            found = read_json_object(path, _MAX_JSON, BadSource)
        except GgufError as error:
            self.problems.append(f"{CONFIG}: {error.what}")
            return {}
        if not isinstance(found.get("lora", {}), dict):
            self.problems.append(f"{CONFIG}: 'lora' isn't a JSON object")
            return {}
        return found

    def lora(self) -> Path | None:
        found = [name for name in LORAS if self.there(name)]
        if self.own_folder(LORA_FOLDER) is not None and self.there(f"lora/{PEFT_WEIGHTS}"):
            found.append(f"lora/{PEFT_WEIGHTS}")
        if len(found) > 1:
            self.problems.append(f"{' and '.join(found)}: one LoRA is merged; keep one of them")
        if not found:
            self.refuse_stray_lora()
        paths = [self.own(name) for name in found]
        return paths[0] if paths else None

    def refuse_stray_lora(self) -> None:
        """A LoRA that would be left out silently: under another name, as a pickle, or settings without weights."""
        inner = self.folder / LORA_FOLDER
        for path in sorted([*self.folder.iterdir(), *(inner.iterdir() if inner.is_dir() else ())]):
            name = path.relative_to(self.folder).as_posix()
            kind = path.suffix.lower()
            inside = name.startswith("lora/") or "lora" in path.stem.lower() or "adapter" in path.stem.lower()
            shown = printable(name, 200)
            if path.is_dir() and (path / PEFT_CONFIG).is_file() and name not in self.seen:
                self.problems.append(f"{shown}: is a PEFT folder; call it {LORA_FOLDER}")
            elif path.name == PEFT_CONFIG:
                self.problems.append(f"{shown}: the weights are missing; put {PEFT_WEIGHTS} beside it")
            elif inside and kind in (".bin", ".pt", ".pth", ".ckpt"):
                self.problems.append(f"{shown}: is a PyTorch file, which may hold code; save it as {PEFT_WEIGHTS}")
            elif inside and kind in (".safetensors", ".gguf"):
                self.problems.append(f"{shown}: a LoRA is looked for as {', '.join(LORAS)}; rename it, or take it out")


def is_inner_path(value: str) -> bool:
    """Whether a path that a document names stays inside the folder."""
    parts = value.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)


def _version(data: Any) -> int:
    """The version that a document names, at its top or under its one key; 1 where it names none."""
    if isinstance(data, dict) and "version" not in data and len(data) == 1:
        (data,) = data.values()
    version = data.get("version") if isinstance(data, dict) else None
    return min(version, 1 << 32) if type(version) is int else 1


def _index(value: Any, limit: int) -> int | None:
    """A number from 0 to limit - 1, which YAML may give as text."""
    if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,3}", value):
        value = int(value)
    return value if type(value) is int and 0 <= value < limit else None
