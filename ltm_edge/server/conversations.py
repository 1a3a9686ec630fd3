"""Conversations of one connection: their bundles, sessions, memories and lanes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltm_edge import __version__
from ltm_edge.bundle import Bundle
from ltm_edge.errors import InputError, MemoryStoreError, SessionError
from ltm_edge.scene_memory import SceneMemory, memory_folder
from ltm_edge.schemas.stdio import PROTOCOL, OpenParams, OpenResult
from ltm_edge.server.lane import Job, Lane
from ltm_edge.session import Session

__all__ = ["Conversation", "Conversations"]

# The parameters that say which bundle is loaded, and how; their values are its key.
_OF_THE_BUNDLE = ("bundle", "overlay", "gpu_layers", "device", "threads", "ctx", "flash_attn", "kv_type")
_Key = tuple[Any, ...]


@dataclass(slots=True)
class Conversation:
    """A session with what belongs to it.

    Attributes:
        id: what the client calls it.
        session: the session.
        lane: where its requests are carried out.
        key: of its bundle.
    """

    id: str
    session: Session
    lane: Lane
    key: _Key

    @property
    def memory(self) -> SceneMemory:
        """Its scene memory.

        Raises:
            InputError: it has none.
        """
        if self.session.memory is None:
            raise InputError(f"session {self.id} has no memory; open it with memory or memory_folder")
        return self.session.memory

    def cancel(self, *, only: Any = None, all: bool = True) -> int:
        """Stop what runs and drop what waits, or only one request; returns how many requests this reached."""
        return self.lane.cancel(self.session.cancel, only=only, all=all)


@dataclass(slots=True)
class _Shared:
    """A loaded bundle and how many sessions use it."""

    bundle: Bundle
    users: int = 0


@dataclass(slots=True)
class Conversations:
    """All conversations of a connection. Bundles that are asked for alike are loaded once.

    Attributes:
        notice: gets (session id, sentence) for people.
    """

    notice: Callable[[str, str], None]
    _open: dict[str, Conversation] = field(default_factory=dict)
    _bundles: dict[_Key, _Shared] = field(default_factory=dict)
    _ending: list[Lane] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0

    def get(self, id: str) -> Conversation:
        """The conversation that the client calls so.

        Raises:
            SessionError: there is none.
        """
        with self._lock:
            found = self._open.get(id)
            if found is None:
                known = ", ".join(self._open) or "none is open"
                raise SessionError(f"no session {id!r}; open: {known}")
            return found

    def all(self) -> list[Conversation]:
        """All that are open."""
        with self._lock:
            return list(self._open.values())

    def open(self, params: OpenParams) -> OpenResult:
        """Load the bundle, unless it is loaded, and start a session.

        Raises:
            LtmError: as `Bundle.open`, `Bundle.open_memory` and `Bundle.session` raise it.
        """
        if params.protocol > PROTOCOL:
            raise InputError(f"protocol {params.protocol} is newer than this release speaks ({PROTOCOL}); update it")
        if params.memory is not None and params.memory_folder is not None:
            raise InputError("memory and memory_folder both name a memory; give one")
        if params.memory_folder == "":
            raise InputError("memory_folder is empty; name a folder, or leave it out for no memory")
        key = tuple(getattr(params, name) for name in _OF_THE_BUNDLE)
        bundle = self._take(key)
        try:
            with self._lock:
                self._count += 1
                id = f"s{self._count}"
            memory = self._memory(bundle, params, id)
            try:
                session = bundle.session(
                    name=params.name,
                    system=params.system,
                    template=params.template,
                    lang=params.lang,
                    form=params.form,
                    sampling=params.settings,
                    memory=memory,
                )
            except BaseException:
                if memory is not None:
                    memory.close()
                raise
        except BaseException:
            self._give_back(key)
            raise
        with self._lock:
            self._open[id] = Conversation(id, session, Lane(id), key)
        return OpenResult(
            session=id,
            protocol=PROTOCOL,
            version=__version__,
            model=bundle.model_info,
            templates=tuple(bundle.templates),
            languages=tuple(bundle.overlay_set.languages),
            notices=tuple(bundle.model.notices),
        )

    def close(
        self, conversation: Conversation, answer: Callable[[Any, BaseException | None], None], *, cancel: bool = True
    ) -> None:
        """Close a conversation in its lane, at once or after what waits there; ``answer`` is called when it is done.

        Raises:
            SessionError: it is closed already.
        """
        with self._lock:
            if self._open.pop(conversation.id, None) is None:
                raise SessionError(f"session {conversation.id} is closed")
            self._ending = [lane for lane in self._ending if not lane.join(0)] + [conversation.lane]
        if cancel:
            conversation.cancel()
        conversation.lane.end(Job(None, lambda: self._close(conversation), answer))

    def ending(self) -> list[Lane]:
        """Lanes of conversations that are being closed."""
        with self._lock:
            return list(self._ending)

    def _close(self, conversation: Conversation) -> None:
        memory = conversation.session.memory
        try:
            conversation.session.close()
            if memory is not None:
                memory.close()
        finally:
            self._give_back(conversation.key)

    def _memory(self, bundle: Bundle, params: OpenParams, id: str) -> SceneMemory | None:
        if params.memory is None and params.memory_folder is None:
            return None
        folder = Path(params.memory_folder) if params.memory_folder is not None else memory_folder(params.memory or "")
        try:
            return bundle.open_memory(folder, notice=lambda text: self.notice(id, text))
        except ValueError as error:  # a path that no system takes, such as one with a zero byte
            raise MemoryStoreError(f"{folder!s}: can't be opened: {error}; name another folder") from None

    def _take(self, key: _Key) -> Bundle:
        with self._lock:
            shared = self._bundles.get(key)
            if shared is not None:
                shared.users += 1
                return shared.bundle
        # Only the lane of `open` comes here, so that no bundle is loaded twice.
        bundle = Bundle.open(key[0], **dict(zip(_OF_THE_BUNDLE[1:], key[1:], strict=True)))
        with self._lock:
            self._bundles[key] = _Shared(bundle, 1)
        return bundle

    def _give_back(self, key: _Key) -> None:
        with self._lock:
            shared = self._bundles[key]
            shared.users -= 1
            if shared.users:
                return
            del self._bundles[key]
        shared.bundle.close()
