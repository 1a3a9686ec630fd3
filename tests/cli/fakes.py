"""A bundle without a model: answers at once, stops when told, fails when asked to.

Requests that begin with ``slow`` write half an answer and wait to be cancelled; ``fail`` raises; ``empty`` is
cancelled before anything was written; ``revised`` is written anew; ``narrow`` leaves no room for a consilium.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltm_edge.cli.session_api import OnEvent, OnToken
from ltm_edge.errors import Cancelled, InputError
from ltm_edge.loop.events import Replaced, Stage
from ltm_edge.overlay_set import load_overlay
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory
from ltm_edge.settings import Settings
from ltm_edge.turn import Turn
from tests.memory.hashed import HashedEmbedder


@dataclass
class FakeReply:
    text: str
    document: str
    trace: dict[str, Any]
    partial: bool
    form: str
    remark: str = ""


@dataclass
class FakeTemplate:
    about: str


TEMPLATES = {"initiation": FakeTemplate("something begins"), "mirror": FakeTemplate("one sees oneself")}


FIELD = load_overlay().field


class FakeSession:
    def __init__(self, name: str | None, history: Sequence[Turn], system: str | None, settings: dict[str, Any]) -> None:
        self.name = name
        self.memory: SceneMemory | None = None
        self.closed = False
        self._history = list(history)
        self._settings = Settings().changed({**settings, "system": system}, field=FIELD)
        self._cancel = threading.Event()
        self._again = 0

    @property
    def history(self) -> tuple[Turn, ...]:
        return tuple(self._history)

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings.to_dict()

    def send(
        self,
        request: Any,
        /,
        *,
        on_token: OnToken | None = None,
        on_event: OnEvent | None = None,
        form: str | None = None,
        council: str | None = None,
    ) -> FakeReply:
        text = request if isinstance(request, str) else request.text
        assert not self.closed
        self._cancel.clear()
        if text.startswith("fail"):
            raise InputError(f"can't answer {text!r}: asked to fail\nover two lines")
        if text.startswith("logged"):
            logging.getLogger("llama.cpp").warning("a warning")
        if text.startswith("empty"):
            raise Cancelled("nothing was written")
        if "\x00" in text:
            raise InputError("the request holds NUL bytes")
        form = form or self._settings.form
        answer = f"You said {text.splitlines()[0]}, in turn {len(self._history) + 1}.\nThe end{'!' * self._again}"
        document = (
            'scene:\n  actors:\n    - you: "asker"\n    - inner_voice: "doubt"\n  tension: "saying vs doing"\n'
            '  archetype: "pilgrim, guardian"\n  resonance_center: "the next step"\n  response: |\n'
            + "".join(f"    {line}\n" for line in answer.split("\n"))
        )
        slow = text.startswith("slow")
        written = ""
        for start in range(0, len(document), 7):
            written += document[start : start + 7]
            if on_token is not None:
                on_token(document[start : start + 7])
            if slow and "said" in written:
                with contextlib.suppress(OSError):  # whoever reads this may close the terminal at its first letters
                    sys.stderr.write("waiting\n")
                    sys.stderr.flush()
                assert self._cancel.wait(300), "nobody cancelled"
                break
        remark = ""
        if text.startswith("revised") and on_event is not None:  # the response is written anew
            on_event(Stage("revise", "obstructio"))
            document = written = written.replace("You said", "Once more, you said")
            answer, remark = answer.replace("You said", "Once more, you said"), "It went past the question."
            on_event(Replaced(document, "obstructio"))
        partial = written != document
        shown = {
            "yaml": written,
            "json": json.dumps({"scene": {"response": answer}}, ensure_ascii=False, indent=2),
            "image": "<svg>\n<text>scene</text>\n</svg>",
        }.get(form, answer if not partial else written.rpartition("|\n    ")[2])
        if form == "auto":
            form = "text"
        trace = {
            "version": 1,
            "request": text,
            "template": {
                "name": "initiation",
                "why": "closest in wording",
                "scores": {"initiation": 0.5, "mirror": 0.25},
            },
            "prompt": {"tokens": 120, "reused": 100, "prefilled": 20, "dropped_turns": 0},
            "passes": [
                {
                    "kind": "draft",
                    "tokens": {"reused": 100, "prefilled": 20, "sampled": 60, "forced": 20, "resampled": 2},
                    "ms": {"prefill": 50.0, "decode": 1600.0, "sample": 12.0},
                    "stop": "cancelled" if partial else "end",
                }
            ],
            "settings": {"temperature": 0.7, "seed": self._settings.seed, "system": self._settings.system},
            "notices": ["a cut context"] if text.startswith("long") else [],
            "ms_total": 1700.0,
        }
        if self.memory is not None and self._settings.memory != "off":
            trace["memory"] = {"recalled": [], "text": "", "tokens": 0, "ms": {"recall": 1.0}}
            if self._settings.memory == "on" and not partial:
                added = self.memory.add(Scene.from_yaml(document), text=text, session=self.name or "unnamed")
                trace["memory"]["stored"] = {"id": added.id, "status": added.status}
        if council == "on" and not text.startswith("narrow"):
            trace["consilium"] = {
                "why": "asked for",
                "chosen": "poet",
                "drafts": [
                    {"channel": name, "document": document, "score": score, "will": 0.0, "apart": 0.25, "verdicts": []}
                    for name, score in (("poet", 0.75), ("ironist", 0.5))
                ],
            }
        self._history.append(Turn(text, written, shown, "initiation", "en", partial, trace))
        return FakeReply(shown, written, trace, partial, form, remark)

    def regenerate(self, *, on_token: OnToken | None = None, on_event: OnEvent | None = None) -> FakeReply:
        turn = self._history.pop()
        self._again += 1
        return self.send(turn.request, on_token=on_token, on_event=on_event)

    def cancel(self) -> None:
        self._cancel.set()

    def undo(self) -> Turn | None:
        return self._history.pop() if self._history else None

    def clear(self) -> None:
        self._history.clear()

    def set(self, key: str, value: Any, /) -> None:
        self._settings = self._settings.changed({key: value}, templates=TEMPLATES, languages=("en", "ru"), field=FIELD)

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeBundle:
    sessions: list[FakeSession] = field(default_factory=list)
    opened_with: Any = None
    closed: bool = False

    @property
    def templates(self) -> Mapping[str, FakeTemplate]:
        return TEMPLATES

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(FIELD.channels)

    @property
    def model_info(self) -> Mapping[str, Any]:
        return {"name": "fake", "layers": 3}

    def describe(self) -> list[str]:
        return ["fake model, 3 layers, CPU"]

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
        clock: Any = None,
    ) -> FakeSession:
        assert all(session.closed for session in self.sessions), "two sessions open at once"
        settings = {"template": template, "lang": lang, "form": form, **(sampling or {})}
        self.sessions.append(FakeSession(name, history, system, settings))
        self.sessions[-1].memory = memory
        return self.sessions[-1]

    def open_memory(self, path: Path | None = None, **options: Any) -> SceneMemory:
        return SceneMemory.open(path, HashedEmbedder(), **options)

    def close(self) -> None:
        self.closed = True
