"""MetaResponder: the accepted scene in the wanted form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltm_edge.scene.record import Scene
from ltm_edge.scene.render import render_form
from ltm_edge.scene.stream import SceneStream

__all__ = ["MetaResponder", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        text: the answer in the wanted form.
        scene: the scene, None if the answer was stopped before it was complete.
        document: the scene as the model wrote it (YAML); cut off if ``partial``.
        trace: what happened, as one JSON-ready object.
        partial: the answer was stopped before it was complete; ``text`` holds what there is.
        form: the form of ``text``.
        stop: why writing ended: ``eog`` (complete), ``length``, ``cancelled`` or ``sink``.
    """

    text: str
    scene: Scene | None
    document: str
    trace: Mapping[str, Any]
    partial: bool
    form: str
    stop: str


class MetaResponder:
    """MetaResponder: turns a scene into text, YAML, JSON, an image (SVG) or a reasoned refusal."""

    def respond(self, scene: Scene | None, document: str, form: str, lang: str) -> str:
        """The answer in ``form``; of a document that was cut off, what there is of it.

        ``refusal`` is the text of a scene written under the refusal template. A partial document has no image: its
        text is given instead.
        """
        if scene is not None:
            return document if form == "yaml" else render_form(scene, form, lang)
        if form in ("yaml", "json"):
            return document
        stream = SceneStream()
        stream.feed(document)
        return str(stream.partial().get("response", ""))
