"""OverlaySet: the documents that give a model a structure of thinking, from a folder, a bundle or the package."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ltm_edge.errors import BundleError, Problem, SchemaError
from ltm_edge.paths import cache_dir
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.field import FieldArchitecture, parse_field
from ltm_edge.schemas.overlay import Overlay, parse_overlay
from ltm_edge.schemas.prompts import Prompts, parse_prompts
from ltm_edge.schemas.template import Template, parse_template

if TYPE_CHECKING:
    from ltm_edge.field.vectors import Embedder
    from ltm_edge.loop.orientation import Orienter

__all__ = ["OverlaySet", "load_overlay", "packaged_documents"]

_MAX_YAML = 1 << 20
_FILES = ("ltm_overlay_config.yaml", "field_architecture.yaml", "prompts.yaml")
_FOLDERS = ("scene_templates", "pvq_structs")
_LISTED = 2000
_ALIKE = 0.85  # of two names, from which one is taken for a slip of the pen


class OverlaySet:
    """Everything an overlay folder holds, read and checked.

    Attributes:
        overlay: the switchboard.
        field: zones, links and archetypes.
        templates: scene templates by name, in alphabetical order.
        prompts: the words around a request, by language.
        structs: requests whose scenes are known (`pvq_structs/*.yaml`).
    """

    def __init__(
        self,
        overlay: Overlay,
        field: FieldArchitecture,
        templates: Mapping[str, Template],
        prompts: Prompts,
        structs: Iterable[Pvq] = (),
    ) -> None:
        self.overlay = overlay
        self.field = field
        self.templates = MappingProxyType(dict(sorted(templates.items())))
        self.prompts = prompts
        self.structs = tuple(structs)

    def orienter(self, embedder: Embedder | None) -> Orienter:
        """What lifts and routes requests by this overlay; the vectors of its anchors are kept in the cache folder.

        Args:
            embedder: turns texts into vectors; None: requests are read letter by letter.
        """
        from ltm_edge.loop.orientation import Orienter

        return Orienter(
            self.field,
            self.templates,
            self.archetype_names(),
            self.languages,
            self.overlay,
            embedder,
            cache_dir() / "anchors",
            self.structs,
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that the overlay speaks."""
        return tuple(lang for lang in self.overlay.languages if lang in self.prompts.languages)

    def archetype_names(self) -> dict[str, dict[str, str]]:
        """Names of the archetypes by language, then by id; ids without a name are left out."""
        return {
            lang: {key: item.names[lang] for key, item in self.field.archetypes.items() if lang in item.names}
            for lang in self.languages
        }


def packaged_documents() -> dict[str, str]:
    """The packaged overlay's texts by name, such as ``scene_templates/hearth.yaml``."""
    root = resources.files("ltm_edge") / "overlay"
    found = {item.name: item.read_text("utf-8") for item in root.iterdir() if item.name.endswith(".yaml")}
    templates = (root / "scene_templates").iterdir()
    found |= {f"scene_templates/{item.name}": item.read_text("utf-8") for item in templates}
    return dict(sorted(found.items()))


def load_overlay(source: Path | Mapping[str, str] | None = None, where: str = "") -> OverlaySet:
    """Read an overlay; the packaged files stand in for those that the source lacks.

    Args:
        source: a folder, or texts by the names that they would have in one (as a bundle holds them); None: the
            packaged default.
        where: for messages, what the texts stand in.

    Raises:
        SchemaError: with the problems of all files.
        BundleError: the folder is not there, can't be read, or has names that are nearly an overlay's.
    """
    texts = source if isinstance(source, Mapping) else None
    folder = source if isinstance(source, Path) else None
    if folder is not None and not folder.is_dir():
        raise BundleError(f"{folder}: no such overlay folder; give a folder that holds ltm_overlay_config.yaml")
    if folder is not None:
        _check_names(folder)
    packaged = resources.files("ltm_edge") / "overlay"
    problems: list[Any] = []

    def read(name: str) -> tuple[bytes, str]:
        if texts is not None and name in texts:
            return texts[name].encode("utf-8"), f"{where}: {name}" if where else name
        if folder is not None and os.path.lexists(folder / name):
            path = folder / name
            try:
                if not path.is_file():
                    what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "leads nowhere"
                    raise BundleError(f"{path}: {what}; an overlay's {name} is a YAML file")
                if path.stat().st_size > _MAX_YAML:
                    raise BundleError(f"{path}: {path.stat().st_size} bytes; an overlay file has at most {_MAX_YAML}")
                return path.read_bytes(), str(path)
            except OSError as error:
                raise BundleError(f"{path}: can't be read: {error.strerror or error}") from error
        return packaged.joinpath(*name.split("/")).read_bytes(), name

    def parse(parser: Any, name: str) -> Any:
        text, where = read(name)
        try:
            return parser(text, where)
        except SchemaError as error:
            problems.extend(error.problems)
            return None

    def names_in(part: str) -> list[str]:
        """Files of a part of the overlay, such as ``scene_templates/hearth.yaml``, of the source or else packaged."""
        if texts is not None and any(name.startswith(f"{part}/") for name in texts):
            return sorted(name for name in texts if name.startswith(f"{part}/"))
        if folder is not None and os.path.lexists(folder / part):
            if not (folder / part).is_dir():
                raise BundleError(f"{folder / part}: is no folder; an overlay's {part} is a folder of YAML files")
            return sorted(f"{part}/{path.name}" for path in (folder / part).glob("*.yaml"))
        own = packaged / part
        found = own.iterdir() if own.is_dir() else ()
        return sorted(f"{part}/{item.name}" for item in found if item.name.endswith(".yaml"))

    overlay = parse(parse_overlay, "ltm_overlay_config.yaml")
    field = parse(parse_field, "field_architecture.yaml")
    prompts = parse(parse_prompts, "prompts.yaml")
    names = names_in("scene_templates")
    templates = [parse(parse_template, name) for name in names]
    structs = [parse(Pvq.from_yaml, name) for name in names_in("pvq_structs")]
    if problems:
        raise SchemaError(problems)
    if not templates:
        raise BundleError(f"{source}/scene_templates: no *.yaml in it; at least one scene template is needed")
    loaded = OverlaySet(overlay, field, {t.name: t for t in templates}, prompts, structs)
    own_config = folder is None or (folder / "ltm_overlay_config.yaml").is_file()
    _check_references(loaded, len(templates), own_config=own_config)
    return loaded


def _check_names(folder: Path) -> None:
    """Raise BundleError for a folder that holds nothing of an overlay, or a name that is nearly one of its names.

    What is misnamed would be left out without a word, and the packaged file stand in for it.
    """
    known = (*_FILES, *_FOLDERS)
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, _LISTED))
    except OSError as error:
        raise BundleError(f"{folder}: can't be read: {error.strerror or error}") from error
    for name in names:
        if Path(name).suffix not in ("", ".yaml", ".yml"):
            continue  # such as a copy that was put aside
        meant = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=_ALIKE)
        if meant and meant[0] not in names:
            raise BundleError(f"{folder / name}: is no part of an overlay; did you mean {meant[0]}?")
    if not any(name in known for name in names):
        raise BundleError(f"{folder}: holds nothing of an overlay; put one of {', '.join(known)} there")
    for part in _FOLDERS:
        other = next((path for path in sorted((folder / part).glob("*.yml"))), None)
        if other is not None:
            raise BundleError(f"{other}: would be left out; rename it to {other.stem}.yaml")


def _check_references(loaded: OverlaySet, files: int, *, own_config: bool) -> None:
    """Raise SchemaError where one file names something that no other file has.

    The packaged config may stand beside a folder's own templates; its default template is then only a wish.
    """
    problems = []
    default = loaded.overlay.default_template
    if own_config and default is not None and default not in loaded.templates:
        message = f"no template {default!r}; known: {', '.join(loaded.templates)}"
        problems.append(Problem("ltm_overlay_config.yaml", "ltm_overlay.default_template", message))
    if len(loaded.templates) != files:
        problems.append(Problem("scene_templates", "name", "two templates have the same name"))
    if not loaded.languages:
        message = f"prompts.yaml speaks none of {', '.join(loaded.overlay.languages)}"
        problems.append(Problem("ltm_overlay_config.yaml", "ltm_overlay.languages", message))
    if problems:
        raise SchemaError(problems)
