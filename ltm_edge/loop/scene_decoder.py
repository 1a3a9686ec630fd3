"""SceneDecoder: drafts of a scene under its template's grammar, one at a time or several at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltm_edge.errors import GrammarError, SchemaError
from ltm_edge.grammar.template import document_gbnf, template_gbnf
from ltm_edge.loop.prompt import FittedPrompt, Known
from ltm_edge.loop.protocols import DraftPass, Tokens, Vocabulary, Writer
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import Template, answer_document, smallest_document

__all__ = ["Draft", "DraftOrder", "SceneDecoder"]


@dataclass(frozen=True, slots=True)
class DraftOrder:
    """One draft to write.

    Attributes:
        prompt: tokens before it, int32 [n].
        max_tokens: tokens that it may take.
        sampling: how tokens are chosen.
        gbnf: its grammar.
        references: texts (int32 [n] each) that it is likely to repeat.
    """

    prompt: Tokens
    max_tokens: int
    sampling: Any
    gbnf: str = ""
    references: tuple[Tokens, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A scene as it was drafted.

    Attributes:
        kind: ``draft`` or ``revision``.
        channel: the channel that it was drafted for; empty for a draft of the whole mix.
        prompt: what stood before it.
        done: what the decode did.
        scene: the scene; None if the document is not complete.
        notices: sentences for the user.
        kept: of a revision, sentences of the response before that it begins with.
    """

    kind: str
    channel: str
    prompt: FittedPrompt
    done: DraftPass
    scene: Scene | None
    notices: tuple[str, ...] = ()
    kept: int = 0

    @property
    def document(self) -> str:
        """The scene as written (YAML); cut off if there is no scene."""
        return self.done.text

    @property
    def read(self) -> Tokens:
        """Tokens of prompt and document, int32 [n]."""
        return np.concatenate([self.prompt.tokens, self.done.tokens]).astype(np.int32)

    @property
    def known(self) -> Known:
        """Prompt and document as what has been read."""
        return Known(self.prompt.rendered.text + self.done.text, self.read)

    def to_trace(self) -> dict[str, Any]:
        """The pass as it stands in a turn's trace."""
        entry = self.done.to_trace(self.kind)
        if self.kept:
            entry["kept"] = self.kept
        return {**entry, "channel": self.channel} if self.channel else entry


@dataclass(slots=True)
class SceneDecoder:
    """SceneDecoder: drafts scenes under their templates' grammars.

    Attributes:
        writer: the context that writes.
        vocabulary: its vocabulary and chat format.
        names: names of the archetypes by language, then by id.
    """

    writer: Writer
    vocabulary: Vocabulary
    names: Mapping[str, Mapping[str, str]]
    _gbnf: dict[tuple[str, str], str] = field(default_factory=dict)

    def check_room(self, template: Template, lang: str, max_tokens: int) -> None:
        """Refuse a budget of tokens that the template's smallest document can't fit into.

        Raises:
            GrammarError: says what it takes.
        """
        smallest = self.smallest(template, lang)
        if smallest > max_tokens:
            raise GrammarError(
                f"template {template.name}: its smallest document takes {smallest} tokens, max_tokens is {max_tokens}; "
                f"give at least {smallest}"
            )

    def smallest(self, template: Template, lang: str) -> int:
        """Tokens of the template's smallest document; of its answer, where it has one."""
        document = answer_document(template, lang) or smallest_document(template, self.names.get(lang, {}))
        return len(self.vocabulary.tokenize(document))

    def order(
        self,
        prompt: FittedPrompt,
        template: Template,
        lang: str,
        *,
        max_tokens: int,
        sampling: Any,
        head: str = "",
        references: Sequence[Tokens] = (),
    ) -> DraftOrder:
        """What to write after a prompt.

        Args:
            head: beginning of an earlier draft's document that is kept as it is.
            references: as for :class:`DraftOrder`.
        """
        gbnf = template_gbnf(template, self.names.get(lang), head) if head else self._grammar(template, lang)
        return DraftOrder(prompt.tokens, max_tokens, sampling, gbnf, tuple(references))

    def write(
        self,
        prompts: Sequence[FittedPrompt],
        orders: Sequence[DraftOrder],
        *,
        kind: str = "draft",
        channels: Sequence[str] = (),
        kept: int = 0,
        adapters: Any = None,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Draft]:
        """Write drafts in common batches; what their prompts share is computed once.

        Args:
            prompts, orders: what each is written after, and how.
            kind, channels, kept: as they stand in the drafts.
            adapters: what acts on all of them; None: the base.
            on_text: gets the first draft's document as it is written.
        """

        def first(index: int, text: str) -> None:
            if index == 0 and on_text is not None:
                on_text(text)

        done = self.writer.write_many(orders, adapters=adapters, on_text=first if on_text is not None else None)
        named = channels or [""] * len(done)
        return [
            self._drafted(kind, channel, prompt, one, order.max_tokens, kept)
            for channel, prompt, one, order in zip(named, prompts, done, orders, strict=True)
        ]

    def _drafted(
        self, kind: str, channel: str, prompt: FittedPrompt, done: DraftPass, max_tokens: int, kept: int
    ) -> Draft:
        scene: Scene | None = None
        notices: list[str] = []
        if done.complete:
            try:
                scene = Scene.from_yaml(done.text, "<answer>")
            except SchemaError as error:  # the grammar rules it out; if it happens the user must hear of it
                notices.append(f"the document does not follow its schema: {error}")
        if done.stop == "length":
            notices.append(f"the answer ran out of its {max_tokens} tokens before it was complete")
        return Draft(kind, channel, prompt, done, scene, tuple(notices), kept)

    def _grammar(self, template: Template, lang: str) -> str:
        key = (template.name, lang)
        if key not in self._gbnf:
            said = answer_document(template, lang)  # the model only reads it: all of its tokens are forced
            self._gbnf[key] = document_gbnf(said) if said else template_gbnf(template, self.names.get(lang))
        return self._gbnf[key]
