"""Bundle: a model together with the overlay that gives it a structure of thinking."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from ltm_edge.engine.model import LoadedModel
from ltm_edge.engine.offload import ModelFacts
from ltm_edge.engine.options import EngineOptions
from ltm_edge.errors import BundleError, Problem, SchemaError
from ltm_edge.schemas.field import FieldArchitecture, parse_field
from ltm_edge.schemas.overlay import Overlay, parse_overlay
from ltm_edge.schemas.prompts import Prompts, parse_prompts
from ltm_edge.schemas.template import Template, parse_template

if TYPE_CHECKING:
    from ltm_edge.loop.remembering import Clock
    from ltm_edge.scene_memory import SceneMemory
    from ltm_edge.session import Session
    from ltm_edge.turn import Turn

__all__ = ["Bundle", "OverlaySet", "load_overlay"]

_MAX_YAML = 1 << 20


class OverlaySet:
    """Everything an overlay folder holds, read and checked.

    Attributes:
        overlay: the switchboard.
        field: zones, links and archetypes.
        templates: scene templates by name, in alphabetical order.
        prompts: the words around a request, by language.
    """

    def __init__(
        self, overlay: Overlay, field: FieldArchitecture, templates: Mapping[str, Template], prompts: Prompts
    ) -> None:
        self.overlay = overlay
        self.field = field
        self.templates = MappingProxyType(dict(sorted(templates.items())))
        self.prompts = prompts

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


def load_overlay(folder: Path | None = None) -> OverlaySet:
    """Read an overlay folder; None is the packaged default, whose files also stand in for those that ``folder`` lacks.

    Raises:
        SchemaError: with the problems of all files.
        BundleError: the folder is not there or can't be read.
    """
    if folder is not None and not folder.is_dir():
        raise BundleError(f"{folder}: no such overlay folder; give a folder that holds ltm_overlay_config.yaml")
    packaged = resources.files("ltm_edge") / "overlay"
    problems: list[Any] = []

    def read(name: str) -> tuple[bytes, str]:
        if folder is not None and (folder / name).is_file():
            path = folder / name
            try:
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

    names: Iterable[str]
    if folder is not None and (folder / "scene_templates").is_dir():
        names = sorted(path.name for path in (folder / "scene_templates").glob("*.yaml"))
    else:
        names = sorted(item.name for item in (packaged / "scene_templates").iterdir() if item.name.endswith(".yaml"))
    overlay = parse(parse_overlay, "ltm_overlay_config.yaml")
    field = parse(parse_field, "field_architecture.yaml")
    prompts = parse(parse_prompts, "prompts.yaml")
    templates = [parse(parse_template, f"scene_templates/{name}") for name in names]
    if problems:
        raise SchemaError(problems)
    if not templates:
        raise BundleError(f"{folder}/scene_templates: no *.yaml in it; at least one scene template is needed")
    loaded = OverlaySet(overlay, field, {t.name: t for t in templates}, prompts)
    own_config = folder is None or (folder / "ltm_overlay_config.yaml").is_file()
    _check_references(loaded, len(templates), own_config=own_config)
    return loaded


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


def _facts(path: Path) -> tuple[ModelFacts, int]:
    """What the offload plan needs to know, and the context that the model was trained on, from the file's header."""
    from gguf_tools.reader import read_gguf

    info = read_gguf(path)
    meta = info.metadata
    arch = str(meta.get("general.architecture", ""))

    def number(name: str, default: int = 0) -> int:
        value = meta.get(f"{arch}.{name}", default)
        if isinstance(value, (list, tuple)):  # per-layer values
            value = max(value, default=default)
        return int(value) if isinstance(value, (int, float)) else default

    heads = max(number("attention.head_count", 1), 1)
    embedding = number("embedding_length")
    head_size = embedding // heads
    kv_heads = number("attention.head_count_kv", heads)
    kv_width = kv_heads * (number("attention.key_length", head_size) + number("attention.value_length", head_size))
    output = next((t.shape for t in info.tensors if t.name in ("output.weight", "token_embd.weight")), (0, 0))
    facts = ModelFacts(
        weights=sum(t.nbytes for t in info.tensors),
        layers=number("block_count", 1),
        embedding=embedding,
        kv_width=kv_width,
        vocabulary=int(max(output, default=0)),
    )
    return facts, number("context_length")


class Bundle:
    """A model together with the overlay that gives it a structure of thinking.

    A bundle may be shared between threads; each :class:`~ltm_edge.session.Session` of it belongs to one thread at a
    time. Closing a bundle closes its sessions.
    """

    def __init__(self, model: LoadedModel, overlay: OverlaySet, name: str) -> None:
        self._model: LoadedModel | None = model
        self.overlay_set = overlay
        self.name = name
        self.path = model.path
        self._sessions: list[Session] = []

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        gpu_layers: int | str = "auto",
        device: str | None = None,
        threads: int | None = None,
        ctx: int | None = None,
        flash_attn: str = "auto",
        kv_type: str = "f16",
        overlay: str | os.PathLike[str] | None = None,
    ) -> Bundle:
        """Open a bundle or any instruct GGUF.

        Args:
            path: a GGUF file; None: the demo model.
            gpu_layers: ``auto`` (what fits), ``all`` or a number.
            device: name of one device to offload to.
            threads: CPU threads; None: one per core.
            ctx: context in tokens; None: 4096 or what the model was trained on.
            flash_attn: ``auto``, ``on`` or ``off``.
            kv_type: type of the KV cache, such as ``f16`` or ``q8_0``.
            overlay: folder with an overlay; None: the packaged one.

        Raises:
            ModelError: the file can't be used as a chat model; says why.
            SchemaError: the overlay has problems; lists all of them.
            InputError: an option is out of range.
        """
        from ltm_edge.models import resolve_model

        options = EngineOptions(gpu_layers, device, threads, ctx, flash_attn, kv_type)
        loaded = load_overlay(Path(overlay) if overlay is not None else None)
        file = resolve_model(None if path is None else os.fspath(path))
        facts, n_ctx_train = _facts(file)
        model = LoadedModel.load(file, options, facts, n_ctx_train)
        return cls(model, loaded, loaded.overlay.name)

    @property
    def model(self) -> LoadedModel:
        """The loaded model. Raises BundleError after :meth:`close`."""
        if self._model is None:
            raise BundleError(f"{self.path}: the bundle is closed")
        return self._model

    @property
    def overlay(self) -> Overlay:
        """The overlay's switchboard."""
        return self.overlay_set.overlay

    @property
    def field(self) -> FieldArchitecture:
        """Zones, links and archetypes."""
        return self.overlay_set.field

    @property
    def templates(self) -> Mapping[str, Template]:
        """Scene templates by name."""
        return self.overlay_set.templates

    @property
    def model_info(self) -> dict[str, Any]:
        """Facts about the model and where it runs, for people and for the trace."""
        model = self.model
        return {
            "path": str(self.path),
            "name": model.metadata.get("general.name") or self.path.stem,
            "description": model.description,
            "parameters": int(model.handle.n_params),
            "bytes": int(model.handle.n_bytes),
            "context": model.n_ctx,
            "context_trained": int(model.handle.n_ctx_train),
            "threads": model.threads,
            "kv_type": model.options.kv_type,
            "runs": model.plan.line,
            "license": model.metadata.get("general.license"),
        }

    def describe(self) -> list[str]:
        """The lines that a chat starts with: model, what runs where, overlay, and what should be known."""
        info = self.model_info
        size = info["bytes"] / (1 << 20)
        lines = [
            f"{info['name']}: {info['description']}, {size:.0f} MiB, context {info['context']} tokens",
            f"{info['runs']}, {info['threads']} threads",
            f"overlay {self.overlay.name}: {len(self.templates)} scene templates, "
            f"{', '.join(self.overlay_set.languages)}",
        ]
        lines.extend(f"note: {notice}" for notice in self.model.notices)
        return lines

    def session(
        self,
        *,
        name: str | None = None,
        history: Iterable[Turn] = (),
        system: str | None = None,
        template: str | None = None,
        lang: str | None = None,
        form: str = "auto",
        sampling: Mapping[str, Any] | None = None,
        memory: SceneMemory | None = None,
        clock: Clock | None = None,
    ) -> Session:
        """Start a conversation.

        Args:
            name: for the trace and for people; nothing is saved here (see :mod:`ltm_edge.store`).
            history: earlier turns to go on from.
            system: text added to the system message.
            template: scene template of every turn; None: chosen for each request.
            lang: language of the answers; None: the request's.
            form: ``auto``, ``text``, ``yaml``, ``json``, ``image`` or ``refusal``.
            sampling: settings such as ``temperature``, ``max_tokens`` or ``seed``.
            memory: scene memory to recall from and to store in; None: none. The session doesn't close it.
            clock: gives the time that scenes are stored with; None: the machine's.

        Raises:
            InputError: a setting is unknown or out of range.
            EngineError: the context can't be created.
        """
        from ltm_edge.session import Session

        given = {"system": system, "template": template, "lang": lang, "form": form, **(sampling or {})}
        session = Session(self, name=name, history=history, settings=given, memory=memory, clock=clock)
        self._sessions.append(session)
        return session

    def open_memory(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        notice: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
        timeout: float = 10.0,
    ) -> SceneMemory:
        """Open a scene memory with the numbers of this bundle's overlay; close it after the sessions that use it.

        Args:
            path: its folder; None: the user's own.
            notice: gets sentences for the user.
            progress: gets (done, all) while scenes are embedded.
            timeout: seconds to wait for another process that writes.

        Raises:
            MemoryStoreError: can't be read, damaged, of a newer version, or in use for too long.
        """
        from ltm_edge.memory.records import Policy
        from ltm_edge.scene_memory import SceneMemory

        names = {name: key for of in self.overlay_set.archetype_names().values() for key, name in of.items()}
        policy = Policy.from_overlay(self.overlay.memory)
        return SceneMemory.open(
            path, policy=policy, archetype_ids=names, notice=notice, progress=progress, timeout=timeout
        )

    def _forget(self, session: Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)

    def close(self) -> None:
        """Close all sessions and free the model. Closing twice is allowed."""
        for session in list(self._sessions):
            session.close()
        self._model = None

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
