"""Sessions on the real demo model whose critics say what a test wants, behind short prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ltm_edge.bundle import Bundle
from ltm_edge.embedders import SharedEmbedder
from ltm_edge.loop.critics.exhibit import Exhibit
from ltm_edge.loop.critics.panel import CriticPanel
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.events import Replaced, Stage, TurnEvent
from ltm_edge.overlay_set import load_overlay
from ltm_edge.session import Session
from tests.memory.hashed import HashedEmbedder
from tests.overlays import PLAIN, switchboard

SHORT: dict[str, Any] = {"seed": 1, "temperature": 0.0, "max_tokens": 90}

# A template of few tokens, since a test waits for every one.
BRIEF = """
version: 1
name: brief
about: a few words
phases: [drama]
archetypes: [host, witness]
directive: {en: Be brief., ru: Говори коротко.}
fields:
  actors:           {kind: roles, min: 1, max: 1, max_chars: 12}
  tension:          {kind: poles, max_chars: 12}
  archetype:        {kind: choice, from: archetypes, min: 1, max: 1}
  resonance_center: {kind: line, max_chars: 20}
  response:         {kind: block, min_lines: 1, max_lines: 2, max_chars: 60}
anchors:
  en: [hello]
  ru: [привет]
"""

SMALL: dict[str, Any] = {
    "few_shot": 0,
    "default_template": "brief",
    "critics": {"obstructio": {"refuse_below": 0.1}, "patience": 60.0},
}

# All critics but those of the test are silent, and no consilium is held unless it is asked for.
QUIET: dict[str, Any] = {
    "critics": {name: {"enabled": False} for name in ("insight_seeker", "recursia")},
    "consilium": {"enabled": "never"},
    "self_loop": {"max_passes": 2, "accept": 0.6},
}


class Hashed(HashedEmbedder):
    def __init__(self) -> None:
        super().__init__(256)

    def close(self) -> None: ...


def variant(
    bundle: Bundle, *changes: Mapping[str, Any], embedder: Callable[[], Any] = Hashed, field: str | None = None
) -> Bundle:
    """The same loaded model under the packaged overlay, changed, with one short template and no examples of it.

    Args:
        bundle: gives the model.
        changes: to the switchboard.
        embedder: makes what meaning is measured with.
        field: text of another field_architecture.yaml.
    """
    texts = {"ltm_overlay_config.yaml": switchboard(SMALL, *changes), "scene_templates/brief.yaml": BRIEF}
    overlay = load_overlay(texts | ({"field_architecture.yaml": field} if field is not None else {}))
    made = Bundle(bundle.model, overlay, "variant")
    made._embedder = SharedEmbedder(embedder)
    made.orienter = made.overlay_set.orienter(made._embedder)
    return made


def plain(bundle: Bundle) -> Bundle:
    """Every switch off."""
    return variant(bundle, PLAIN)


class Says:
    """A critic that says of each draft what it was told to say; the last word from then on."""

    def __init__(self, *said: float | Verdict | Exception, name: str = "obstructio") -> None:
        self.name = name
        self.seen: list[Exhibit] = []
        self._said = said

    def judge(self, exhibit: Exhibit) -> float | Verdict:
        self.seen.append(exhibit)
        said = self._said[min(len(self.seen), len(self._said)) - 1]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Verdict):
            return said
        question = "" if said >= 0.5 else QUESTION
        return Verdict(self.name, said, said >= 0.5, question=question, weakest="")


QUESTION = "Which of their own words are taken up?"


def with_critics(session: Session, *critics: Any) -> Session:
    """Put critics in the place of the session's own."""
    session._loop._panel = CriticPanel(critics, session.bundle.overlay)
    return session


class Spy:
    """A session's writer, with what it is asked for."""

    def __init__(self, session: Session) -> None:
        self.orders: list[list[Any]] = []
        self._real = session._loop._decoder.writer
        session._loop._decoder.writer = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write_many(self, orders: Any, **options: Any) -> Any:
        self.orders.append(list(orders))
        return self._real.write_many(orders, **options)


class Heard:
    """What was heard of a turn: the pieces of its draft, its stages, and documents that took the draft's place."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.events: list[TurnEvent] = []

    @property
    def streamed(self) -> str:
        return "".join(self.pieces)

    @property
    def stages(self) -> list[str]:
        return [event.name for event in self.events if isinstance(event, Stage)]

    @property
    def replaced(self) -> list[str]:
        return [event.document for event in self.events if isinstance(event, Replaced)]

    @property
    def ears(self) -> dict[str, Any]:
        return {"on_token": self.pieces.append, "on_event": self.events.append}


def field_of(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The field as a trace holds it, without the name of its space."""
    return {key: value for key, value in trace["field"]["state"].items() if key != "space"}


def kinds(trace: Mapping[str, Any]) -> list[str]:
    return [one["kind"] for one in trace["passes"]]
