"""Scenes for the tests of critics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ltm_edge.loop.critics.exhibit import Exhibit
from ltm_edge.scene.record import Scene

REQUEST = "I have worked on the same book for nine years and I am afraid to finish it."
RESPONSE = (
    "Nine years kept the book safe from readers, and you with it.\n"
    "Finish one chapter by Friday and give it to a single friend; keep the rest of the book closed."
)
REQUEST_RU = "Девять лет пишу одну книгу и боюсь её закончить."
RESPONSE_RU = (
    "Пока книга не закончена, её никто не ругает, и страх сидит тихо.\n"
    "Допиши одну главу до пятницы и отдай её одному читателю, остальную книгу не трогай."
)


def scene(response: str = RESPONSE, **fields: Any) -> Scene:
    """A scene about the book, with this response."""
    given = {
        "actors": (("you", "a writer"), ("book", "nine years old")),
        "tension": "finishing the book vs keeping it safe",
        "archetype": ("guardian",),
        "resonance_center": "one chapter and one reader",
        **fields,
    }
    return Scene(response=response, **given)


def exhibit(response: str = RESPONSE, request: str = REQUEST, lang: str = "en", **fields: Any) -> Exhibit:
    """A draft about the book."""
    names = ("goal", "recalled", "earlier", "drafts", "disagreement", "embed")
    own: dict[str, Any] = {name: fields.pop(name) for name in names if name in fields}
    goal = own.pop("goal", None)
    return Exhibit(request, goal, lang, scene(response, **fields), **own)


def russian(response: str = RESPONSE_RU, **fields: Any) -> Exhibit:
    """The same in Russian."""
    given = {
        "actors": (("you", "писатель"), ("book", "ей девять лет")),
        "tension": "закончить книгу vs уберечь её",
        "resonance_center": "одна глава и один читатель",
        **fields,
    }
    return exhibit(response, REQUEST_RU, "ru", **given)


def earlier(*responses: str) -> Sequence[Scene]:
    """Scenes of earlier turns."""
    return tuple(map(scene, responses))
