"""Bundle: a model together with the overlay that gives it a structure of thinking."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from gguf_tools.bundle_reader import BundleReader
from gguf_tools.errors import GgufError
from ltm_edge.embedders import SharedEmbedder, open_embedder
from ltm_edge.engine.embedder import Embedder
from ltm_edge.engine.model import LoadedModel
from ltm_edge.engine.offload import ModelFacts
from ltm_edge.engine.options import EngineOptions
from ltm_edge.errors import BundleError
from ltm_edge.hashes import file_sha256
from ltm_edge.models import read_model
from ltm_edge.overlay_set import OverlaySet, load_overlay
from ltm_edge.schemas.field import FieldArchitecture
from ltm_edge.schemas.overlay import Overlay
from ltm_edge.schemas.template import Template

if TYPE_CHECKING:
    from gguf_tools.records import GgufInfo
    from ltm_edge.loop.remembering import Clock
    from ltm_edge.scene_memory import SceneMemory
    from ltm_edge.session import Session
    from ltm_edge.turn import Turn

__all__ = ["Bundle", "OverlaySet", "load_overlay"]


def _opened(info: GgufInfo) -> BundleReader:
    """The file's entries, and its sidecar folder after it was checked."""
    try:
        return BundleReader.of(info, hasher=file_sha256)
    except GgufError as error:
        raise BundleError(str(error)) from error


def _read_overlay(reader: BundleReader) -> OverlaySet:
    """The file's own overlay, or the packaged one, with the modules that it is asked for next."""
    import_module("ltm_edge.loop.orientation")
    return load_overlay(reader.documents if reader.is_bundle else None, str(reader.info.path))


def _facts(info: GgufInfo) -> tuple[ModelFacts, int]:
    """What the offload plan needs to know, and the context that the model was trained on, from the file's header."""
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
    time. Closing a bundle closes its sessions. Several bundles may be open in one process.

    >>> from ltm_edge import Bundle
    >>> with Bundle.open(ctx=1024, threads=1) as bundle:
    ...     bundle.model.n_ctx, "mirror" in bundle.templates, bundle.overlay_set.languages
    (1024, True, ('en', 'ru'))
    """

    def __init__(
        self,
        model: LoadedModel,
        overlay: OverlaySet,
        name: str,
        *,
        adapters: Mapping[str, Path] | None = None,
        memory: Path | None = None,
        embedder: Path | None = None,
    ) -> None:
        """Put a bundle together; :meth:`open` does it from a file.

        Args:
            model: the loaded model.
            overlay: how it thinks.
            name: the bundle's name.
            adapters: GGUF LoRA of each channel that has one, by the channel's name.
            memory: folder with the scenes that it begins with; None: none.
            embedder: its own embedding model; None: it has none.
        """
        self._model: LoadedModel | None = model
        self.overlay_set = overlay
        self.name = name
        self.path = model.path
        self.adapters = MappingProxyType(dict(adapters or {}))
        self._loaded_adapters: dict[str, Any] = {}
        self.memory_folder = memory
        self.embedder_file = embedder
        self._embedder = SharedEmbedder(self._open_embedder)
        self.orienter = overlay.orienter(self._embedder)
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
            overlay: folder with an overlay; None: the bundle's own, or the packaged one where the file has none.

        Raises:
            BundleError: its ``ltm.*`` entries are wrong, or its sidecar folder isn't as listed.
            ModelError: the file can't be used as a chat model; says why.
            SchemaError: the overlay has problems; lists all of them.
            InputError: an option is out of range.
        """
        options = EngineOptions(gpu_layers, device, threads, ctx, flash_attn, kv_type)
        reader = _opened(read_model(path))
        file = Path(reader.info.path)
        facts, n_ctx_train = _facts(reader.info)
        if overlay is not None:  # being edited, perhaps: its mistakes are told before the weights are read
            loaded = load_overlay(Path(overlay))
            model = LoadedModel.load(file, options, facts, n_ctx_train)
        else:  # the weights in this thread, where Ctrl-C is heard
            with ThreadPoolExecutor(1, "ltm-edge-overlay") as beside:
                reading = beside.submit(_read_overlay, reader)
                model = LoadedModel.load(file, options, facts, n_ctx_train)
                loaded = reading.result()
        folder = reader.folder
        embedder = reader.file("embedder.gguf") if "embedder.gguf" in reader.files else None
        if overlay is not None:
            named = loaded.overlay.embedder.file
            embedder = Path(overlay) / named if named is not None else None
            if embedder is not None and not embedder.is_file():
                raise BundleError(
                    f"{embedder}: the overlay's embedder is not there; put it there, or take the line out"
                )
        return cls(
            model,
            loaded,
            loaded.overlay.name,
            adapters=reader.channels,
            memory=folder / "memory" if folder is not None and "memory/scenes.sqlite" in reader.files else None,
            embedder=embedder,
        )

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
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that a request can be routed to."""
        return tuple(self.field.channels)

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

    def adapter(self, channel: str) -> Any:
        """The loaded adapter of a channel that has one.

        Raises:
            ModelError: it doesn't fit the model.
        """
        if channel not in self._loaded_adapters:
            self._loaded_adapters[channel] = self.model.load_adapter(self.adapters[channel])
        return self._loaded_adapters[channel]

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
        fill: bool = True,
    ) -> SceneMemory:
        """Open a scene memory with the numbers of this bundle's overlay; close it after the sessions that use it.

        One that is empty begins with the scenes that the bundle brings.

        Args:
            path: its folder; None: the user's own.
            notice: gets sentences for the user.
            progress: gets (done, all) while scenes are embedded.
            timeout: seconds to wait for another process that writes.
            fill: embed scenes that have no vectors when that is first needed; else only ``SceneMemory.fill`` does.

        Raises:
            MemoryStoreError: can't be read, damaged, of a newer version, or in use for too long.
        """
        from ltm_edge.memory.records import Policy
        from ltm_edge.scene_memory import SceneMemory

        names = {name: key for of in self.overlay_set.archetype_names().values() for key, name in of.items()}
        policy = Policy.from_overlay(self.overlay.memory)
        memory = SceneMemory.open(
            path,
            self._embedder,
            policy=policy,
            archetype_ids=names,
            notice=notice,
            progress=progress,
            timeout=timeout,
            fill=fill,
        )
        if self.memory_folder is not None and memory.writable:
            try:
                memory.seed(self.memory_folder)
            except BaseException:
                memory.close()
                raise
        return memory

    @property
    def embedder(self) -> SharedEmbedder:
        """What meaning is measured with; loaded when it is first needed."""
        return self._embedder

    def _open_embedder(self) -> Embedder:
        """What the overlay names: a file of the bundle's, the base model, or nothing, which is the demo embedder."""
        if self.embedder_file is None and self.overlay.embedder.base:
            return Embedder.of_model(self.model)
        return open_embedder(self.embedder_file, threads=self.model.threads)

    def _forget(self, session: Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)

    def close(self) -> None:
        """Close all sessions and free the model. Closing twice is allowed."""
        for session in list(self._sessions):
            session.close()
        self._embedder.close()
        self._loaded_adapters.clear()
        self._model = None

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
