"""ltm-edge: a local runtime that makes a language model answer through typed scenes.

>>> from ltm_edge import Bundle
>>> with Bundle.open() as bundle, bundle.session() as session:
...     reply = session.send("My garden keeps dying.", seed=1)
>>> reply.stop
'eog'
>>> reply.scene.response == reply.text
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ltm_edge.aio import AsyncSession, AsyncStream
    from ltm_edge.bundle import Bundle
    from ltm_edge.errors import LtmError
    from ltm_edge.loop.events import Replaced, Stage
    from ltm_edge.scene.pvq import Pvq
    from ltm_edge.scene.record import Scene
    from ltm_edge.scene_memory import SceneMemory
    from ltm_edge.session import Reply, Session
    from ltm_edge.turn import Turn

# Names are loaded on first use: `ltm-edge --help` must not pay for numpy, pydantic or the extension.
_EXPORTS = {
    "AsyncSession": "ltm_edge.aio",
    "AsyncStream": "ltm_edge.aio",
    "Bundle": "ltm_edge.bundle",
    "LtmError": "ltm_edge.errors",
    "Pvq": "ltm_edge.scene.pvq",
    "Replaced": "ltm_edge.loop.events",
    "Reply": "ltm_edge.session",
    "Scene": "ltm_edge.scene.record",
    "SceneMemory": "ltm_edge.scene_memory",
    "Session": "ltm_edge.session",
    "Stage": "ltm_edge.loop.events",
    "Turn": "ltm_edge.turn",
}

__all__ = [
    "AsyncSession",
    "AsyncStream",
    "Bundle",
    "LtmError",
    "Pvq",
    "Replaced",
    "Reply",
    "Scene",
    "SceneMemory",
    "Session",
    "Stage",
    "Turn",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ltm_edge' has no attribute {name!r}")
