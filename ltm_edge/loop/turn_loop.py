"""TurnLoop: one request from its lift to the finished document."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm_edge.errors import ContextFull, GrammarError, InputError, SchemaError
from ltm_edge.grammar import template_gbnf
from ltm_edge.loop.prompt import FittedPrompt, Known, common_prefix, fit_prompt, moved_tokens, next_prompt
from ltm_edge.loop.protocols import Vocabulary, Writer
from ltm_edge.scene.choose import choose_template
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import Template, smallest_document

__all__ = ["Outcome", "TurnLoop", "TurnOrder"]

TRACE_VERSION = 1


@dataclass(frozen=True, slots=True)
class TurnOrder:
    """What one turn is asked to do.

    Attributes:
        pvq: the request.
        lang: language of the answer.
        template: name of the template, or None to choose one.
        max_tokens: tokens that the document may take.
        sampling: how tokens are chosen, the seed included.
        notices: what happened to the request before it got here.
        recalled: what the memory brings up, as it is to stand in the prompt.
    """

    pvq: Pvq
    lang: str
    template: str | None
    max_tokens: int
    sampling: Any
    notices: tuple[str, ...] = ()
    recalled: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn came to.

    Attributes:
        document: the scene as written (YAML); cut off if ``partial``.
        scene: the scene, None if the document is not complete.
        template: the template it follows.
        partial: it was stopped, or ran out of tokens, before it was complete.
        stop: why it ended: ``eog``, ``length``, ``cancelled`` or ``sink``.
        trace: the turn's trace.
        known: what was read, and that with what was written.
        dropped: oldest turns that stand in the prompt no more.
        reminded: what the memory brought up stood in the prompt.
    """

    document: str
    scene: Scene | None
    template: Template
    partial: bool
    stop: str
    trace: dict[str, Any]
    known: tuple[Known, ...] = ()
    dropped: int = 0
    reminded: bool = False


class TurnLoop:
    """One request from its lift to the finished document. Holds no conversation: that is the session's."""

    def __init__(
        self,
        writer: Writer,
        vocabulary: Vocabulary,
        templates: Mapping[str, Template],
        names: Mapping[str, Mapping[str, str]],
        default_template: str | None = None,
    ) -> None:
        """Take the parts.

        Args:
            writer: the context that writes.
            vocabulary: its vocabulary and chat format.
            templates: by name.
            names: names of the archetypes by language, then by id.
            default_template: for requests that are like no template; None: the first.
        """
        self._default = default_template
        self._writer = writer
        self._vocabulary = vocabulary
        self._templates = templates
        self._names = names
        self._gbnf: dict[tuple[str, str], str] = {}

    def choose(self, order: TurnOrder) -> tuple[Template, dict[str, Any]]:
        """The template of a turn and how it was chosen, as it stands in the trace."""
        if order.template is not None:
            if order.template not in self._templates:
                raise InputError(f"no template {order.template!r}; there are: {', '.join(self._templates)}")
            return self._templates[order.template], {"name": order.template, "why": "asked for", "scores": {}}
        if order.pvq.form == "refusal" and "refusal" in self._templates:
            return self._templates["refusal"], {"name": "refusal", "why": "the form asked for", "scores": {}}
        ids = {name: key for names in self._names.values() for key, name in names.items()}
        choice = choose_template(
            order.pvq.text,
            self._templates,
            order.lang,
            phase=order.pvq.phase,
            archetype=[ids.get(name, name) for name in order.pvq.archetype],
            fallback=self._default,
        )
        scores = {name: round(float(score), 3) for name, score in choice.scores.items()}
        return self._templates[choice.name], {"name": choice.name, "why": choice.why, "scores": scores}

    def run(
        self,
        order: TurnOrder,
        template: Template,
        chosen: Mapping[str, Any],
        composer: PromptComposer,
        history: Sequence[Any],
        on_text: Callable[[str], None] | None = None,
        known: Sequence[Known] = (),
        dropped: int = 0,
    ) -> Outcome:
        """Write the document of one turn.

        Args:
            order: what is asked.
            template, chosen: as :meth:`choose` gave them.
            composer: how messages are put.
            history: earlier turns, oldest first.
            on_text: gets the document as it is written.
            known: what has been read and written before, the latest last.
            dropped: oldest turns of the history that were left out before.

        Raises:
            GrammarError: the template's smallest document can't fit into ``max_tokens``.
            ContextFull: the request doesn't fit into the context even alone.
        """
        start = time.perf_counter()
        names = self._names.get(order.lang, {})
        gbnf = self._grammar(template, order.lang)
        self._check_room(template, names, order.max_tokens)
        notices = list(order.notices)

        def fit(recalled: str) -> FittedPrompt:
            return fit_prompt(
                composer,
                self._vocabulary,
                history,
                order.pvq,
                template,
                order.lang,
                n_ctx=self._writer.n_ctx,
                max_tokens=order.max_tokens,
                recalled=recalled,
                known=known,
                dropped=dropped,
            )

        reminded = bool(order.recalled)
        try:
            prompt = fit(order.recalled)
        except ContextFull:
            if not reminded:
                raise
            prompt, reminded = fit(""), False
            notices.append("the request leaves no room for what was recalled; this turn goes without it")
        moved = 0
        if prompt.dropped_turns > dropped and known:
            keep, count = moved_tokens(known[-1].tokens, prompt.tokens)
            moved = self._writer.rebase(known[-1].tokens, keep, count) if count else 0
        restored = 0
        if not known:
            head, _ = next_prompt(composer, self._vocabulary, (), ())
            restored = self._writer.warm(prompt.tokens, common_prefix(prompt.tokens, head))
        if prompt.rendered.notice:
            notices.append(prompt.rendered.notice)
        if prompt.dropped_turns > dropped:
            count = prompt.dropped_turns
            notices.append(
                f"the context of {self._writer.n_ctx} tokens is full: the oldest {count} "
                f"{'turn' if count == 1 else 'turns'} of this conversation were left out of the prompt"
            )
        done = self._writer.write(
            prompt.tokens, max_tokens=order.max_tokens, sampling=order.sampling, gbnf=gbnf, on_text=on_text
        )
        scene: Scene | None = None
        if done.complete:
            try:
                scene = Scene.from_yaml(done.text, "<answer>")
            except SchemaError as error:  # the grammar rules it out; if it happens the user must hear of it
                notices.append(f"the document does not follow its schema: {error}")
        if done.stop == "length":
            notices.append(f"the answer ran out of its {order.max_tokens} tokens before it was complete")
        trace: dict[str, Any] = {
            "version": TRACE_VERSION,
            "request": order.pvq.to_dict(),
            "template": dict(chosen),
            "lang": order.lang,
            "prompt": {
                "tokens": len(prompt.tokens),
                "format": prompt.rendered.source,
                "merged_system": prompt.rendered.merged_system,
                "dropped_turns": prompt.dropped_turns,
                "moved": moved,
                "restored": restored,
            },
            "passes": [done.to_trace("draft")],
            "notices": notices,
            "ms_total": round((time.perf_counter() - start) * 1000, 1),
        }
        read = Known(prompt.rendered.text + done.text, np.concatenate([prompt.tokens, done.tokens]).astype(np.int32))
        return Outcome(
            done.text,
            scene,
            template,
            scene is None,
            done.stop,
            trace,
            (prompt.known, read),
            prompt.dropped_turns,
            reminded,
        )

    def _grammar(self, template: Template, lang: str) -> str:
        key = (template.name, lang)
        if key not in self._gbnf:
            self._gbnf[key] = template_gbnf(template, self._names.get(lang))
        return self._gbnf[key]

    def _check_room(self, template: Template, names: Mapping[str, str], max_tokens: int) -> None:
        smallest = len(self._vocabulary.tokenize(smallest_document(template, names)))
        if smallest > max_tokens:
            raise GrammarError(
                f"template {template.name}: its smallest document takes {smallest} tokens, max_tokens is {max_tokens}; "
                f"give at least {smallest}"
            )
