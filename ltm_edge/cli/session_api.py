"""What the commands need of a bundle and a session; the real ones stand in bundle.py and session.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ltm_edge.turn import Turn

if TYPE_CHECKING:
    from ltm_edge.scene_memory import SceneMemory

__all__ = ["ChatBundle", "ChatReply", "ChatSession", "OnEvent", "OnToken"]

OnToken = Callable[[str], None]


class OnEvent(Protocol):
    """Hears of a turn's parts; the events are those of ``ltm_edge.loop.events``."""

    def __call__(self, event: Any, /) -> None: ...


class ChatReply(Protocol):
    """An answer, whole or partial."""

    @property
    def text(self) -> str: ...
    @property
    def document(self) -> str: ...
    @property
    def trace(self) -> Mapping[str, Any]: ...
    @property
    def partial(self) -> bool: ...
    @property
    def form(self) -> str: ...
    @property
    def remark(self) -> str: ...


class ChatSession(Protocol):
    """One conversation. All methods belong to one thread at a time, except ``cancel``, which any thread may call."""

    name: str | None
    memory: SceneMemory | None

    @property
    def history(self) -> Sequence[Turn]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    def send(
        self,
        request: Any,
        /,
        *,
        on_token: OnToken | None = None,
        on_event: OnEvent | None = None,
        form: str | None = None,
        council: str | None = None,
    ) -> ChatReply: ...
    def regenerate(self, *, on_token: OnToken | None = None, on_event: OnEvent | None = None) -> ChatReply: ...
    def cancel(self) -> None: ...
    def undo(self) -> Turn | None: ...
    def clear(self) -> None: ...
    def set(self, key: str, value: Any, /) -> None: ...
    def close(self) -> None: ...


class ChatBundle(Protocol):
    """A model under an overlay."""

    @property
    def templates(self) -> Mapping[str, Any]: ...
    @property
    def channels(self) -> Sequence[str]: ...
    @property
    def model_info(self) -> Mapping[str, Any]: ...
    def describe(self) -> Sequence[str]: ...
    def session(
        self,
        *,
        name: str | None = None,
        history: Sequence[Turn] = (),
        system: str | None = None,
        template: str | None = None,
        lang: str | None = None,
        form: str = "auto",
        sampling: Mapping[str, Any] | None = None,
        memory: SceneMemory | None = None,
        clock: Callable[[], datetime | None] | None = None,
    ) -> ChatSession: ...
    def open_memory(
        self,
        path: Path | None = None,
        *,
        notice: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
        timeout: float = 10.0,
        fill: bool = True,
    ) -> SceneMemory: ...
    def close(self) -> None: ...
