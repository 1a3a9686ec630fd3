"""MetaResponder: the accepted scene in the wanted form, or a reasoned refusal, with a remark where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.self_loop import LoopResult
from ltm_edge.scene.record import Scene
from ltm_edge.scene.render import render_form
from ltm_edge.scene.stream import SceneStream
from ltm_edge.schemas.prompts import LanguagePrompts, fill

__all__ = ["MetaResponder", "Reply", "refusal_scene", "remark"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        text: the answer in the wanted form.
        scene: the scene, None if the answer was stopped before it was complete.
        document: the scene as the model wrote it (YAML); cut off if ``partial``.
        trace: what happened, as one JSON-ready object.
        partial: the answer was stopped before it was complete; ``text`` holds what there is.
        form: the form of ``text``; ``refusal`` where no draft was good enough.
        stop: why writing ended: ``eog`` (complete), ``length``, ``cancelled`` or ``sink``.
        remark: what the critics objected to and what was done about it, in one sentence; empty: nothing is said.
    """

    text: str
    scene: Scene | None
    document: str
    trace: Mapping[str, Any]
    partial: bool
    form: str
    stop: str
    remark: str = ""


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


def refusal_scene(scene: Scene, verdict: Verdict, phrases: LanguagePrompts) -> Scene:
    """A scene whose response says that there is no good answer yet, what is missing, and asks one question."""
    words = phrases.refusal
    parts = (words.opening, _by(words.missing, verdict), _by(words.questions, verdict))
    return replace(scene, response=" ".join(part for part in parts if part), self_commentary=None)


def remark(loop: LoopResult, phrases: LanguagePrompts, wanted: str) -> str:
    """One sentence on what the critics objected to and what came of it, made from their verdicts.

    Args:
        loop: the drafts with their verdicts.
        wanted: ``always``, ``never``, or ``auto``: only where they objected to something.
    """
    if wanted == "never" or loop.cancelled or loop.best.draft.scene is None:
        return ""
    if not any(one.judged.verdicts for one in loop.tried):
        return ""
    words = phrases.remark
    against = [verdict for verdict in loop.tried[0].judged.verdicts if not verdict.passed]
    if not against:
        return words.stood if wanted == "always" else ""
    items = _joined([_by(words.objections, verdict) or verdict.critic for verdict in against])
    if loop.best is not loop.tried[0]:
        return fill(words.revised, items=items)
    return fill(words.kept if len(loop.tried) > 1 else words.noted, items=items)


def _by(words: Mapping[str, str], verdict: Verdict) -> str:
    """The words for what the verdict is about: those of its weakest signal, else those of its critic."""
    return words.get(verdict.weakest) or words.get(verdict.critic, "")


def _joined(items: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(items))
