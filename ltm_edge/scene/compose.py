"""PromptComposer: a turn is composed as scenes first; text is rendered and tokenised last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ltm_edge.errors import SchemaError
from ltm_edge.scene.chat_template import Message
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.prompts import Prompts, Share, fill
from ltm_edge.schemas.template import Template

__all__ = ["Message", "PastTurn", "PromptComposer"]


class PastTurn(Protocol):
    """What the composer needs of an earlier turn."""

    @property
    def request(self) -> str:
        """What the user said."""

    @property
    def document(self) -> str:
        """The scene as the model wrote it."""

    @property
    def template(self) -> str:
        """Name of its template."""

    @property
    def lang(self) -> str:
        """Its language."""

    @property
    def trace(self) -> Mapping[str, object]:
        """Its trace; ``trace["request"]`` is the whole PVQ, ``trace["memory"]["text"]`` what was brought up for it, and
        ``trace["routing"]["manner"]`` the directives it was given.
        """


class PromptComposer:
    """Composes the messages of one session's turns.

    Layout: system, few-shot pairs of the session's first template, earlier turns, this request. The part before the
    earlier turns (the spine) depends on nothing but what is given here, and an earlier turn is repeated as it was sent;
    so each prompt begins with all of the one before, and its cached state is used again. A turn whose template or
    language differs from the spine's says so within its own message.

    Args:
        prompts: the words around a request.
        template: the session's first template.
        lang: the session's first language.
        system_extra: text of the user's own, added to the system message.
        templates: all templates by name, to repeat earlier turns that followed another one.
        few_shot: most examples shown; None: all that the template has.
    """

    def __init__(
        self,
        prompts: Prompts,
        template: Template,
        lang: str,
        system_extra: str | None = None,
        templates: Mapping[str, Template] | None = None,
        few_shot: int | None = None,
    ) -> None:
        self._prompts = prompts
        self._template = template
        self._lang = lang
        self._templates: dict[str, Template] = {**(templates or {}), template.name: template}
        self._few_shot = few_shot
        self._spine = self._compose_spine(system_extra)

    @property
    def template(self) -> Template:
        """The template that the spine shows."""
        return self._template

    @property
    def lang(self) -> str:
        """The language of the spine."""
        return self._lang

    def spine_messages(self) -> list[Message]:
        """What every prompt of the session begins with: the system message and the few-shot pairs."""
        return list(self._spine)

    def recalled(self, lines: Sequence[str], lang: str) -> str:
        """Scenes that the memory brings up, one a line, as they stand in a turn's message."""
        return fill(self._prompts.of(lang).recalled, items="\n".join(f"- {' '.join(line.split())}" for line in lines))

    def manner(self, directives: Sequence[tuple[str, float]], lang: str) -> str:
        """Directives with their weights (summing to at most 1), strongest first, as they stand in a turn's message."""
        phrases = self._prompts.of(lang)
        if not directives:
            return ""
        ordered = sorted(directives, key=lambda item: -item[1])
        if len(ordered) == 1:
            return fill(phrases.manner, items=ordered[0][0])
        shares: list[Share] = ["most", *(_share(weight) for _, weight in ordered[1:])]
        pairs = zip(shares, ordered, strict=True)
        items = (f"{phrases.shares.get(share, '')} {text}".strip() for share, (text, _) in pairs)
        return fill(phrases.manner, items=" ".join(items))

    def again(self, questions: Sequence[str], lang: str) -> str:
        """The critics' questions to a draft that they sent back, as they stand behind the request."""
        return fill(self._prompts.of(lang).again, items=" ".join(questions)) if questions else ""

    def turn_message(
        self, pvq: Pvq, template: Template, lang: str, recalled: str = "", manner: str = "", again: str = ""
    ) -> Message:
        """The user message of one turn: what the spine doesn't say yet, what is known, and the request as it is."""
        self._templates.setdefault(template.name, template)
        return self._user(pvq, template, template.name, lang, recalled, manner, again)

    def messages(
        self,
        history: Sequence[PastTurn],
        pvq: Pvq,
        template: Template,
        lang: str,
        recalled: str = "",
        manner: str = "",
        again: str = "",
    ) -> list[Message]:
        """The whole chat for one turn.

        Args:
            history: earlier turns, oldest first; those without any document are left out.
            pvq: this request.
            template, lang: of this turn.
            recalled: what the memory brings up for it, as :meth:`recalled` puts it.
            manner: the directives of its channels, as :meth:`manner` puts them.
            again: the critics' questions to the draft before, as :meth:`again` puts them.
        """
        chat = self.spine_messages()
        for turn in history:
            if turn.document.strip():
                chat.append(self._past(turn))
                chat.append(Message("assistant", turn.document))
        chat.append(self.turn_message(pvq, template, lang, recalled, manner, again))
        return chat

    def _compose_spine(self, system_extra: str | None) -> tuple[Message, ...]:
        phrases = self._prompts.of(self._lang)
        system = fill(
            phrases.system,
            template=self._template.name,
            about=self._template.about,
            fields=_fields(self._template),
            directive=_directive(self._template, self._lang),
        ).strip()
        if system_extra and system_extra.strip():
            system = f"{system}\n{system_extra.strip()}"
        chat = [Message("system", system)]
        order = tuple(self._template.fields)
        examples = self._template.examples.get(self._lang) or self._template.examples.get("en", ())
        for example in examples[: self._few_shot]:
            chat.append(self._user(example.pvq, self._template, self._template.name, self._lang))
            chat.append(Message("assistant", example.scene.to_yaml(order)))
        return tuple(chat)

    def _past(self, turn: PastTurn) -> Message:
        given = turn.trace.get("request")
        try:
            pvq = Pvq.from_dict(given) if isinstance(given, Mapping) else Pvq(turn.request)
        except SchemaError:  # a session file of another version: what the user said is still known
            pvq = Pvq(turn.request)
        recalled, manner = _said(turn, "memory", "text"), _said(turn, "routing", "manner")
        return self._user(pvq, self._templates.get(turn.template), turn.template, turn.lang, recalled, manner)

    def _user(
        self,
        pvq: Pvq,
        template: Template | None,
        name: str,
        lang: str,
        recalled: str = "",
        manner: str = "",
        again: str = "",
    ) -> Message:
        phrases = self._prompts.of(lang)
        head: list[str] = []
        if name != self._template.name or lang != self._lang:
            directive = _directive(template, lang) if template is not None else ""
            about = template.about if template is not None else ""
            fields = _fields(template) if template is not None else ""
            line = fill(phrases.turn, template=name, about=about, fields=fields, directive=directive).strip()
            if lang != self._lang:
                line = f"{line} {phrases.language}"
            head.append(line)
        if recalled:
            head.append(recalled)
        known = self._known(pvq, lang)
        if known:
            head.append(fill(phrases.known, items="; ".join(known)))
        if manner:
            head.append(manner)
        # What changes from draft to draft stands last, so that everything before it is read once.
        return Message("user", "\n\n".join(part for part in ("\n".join(head), pvq.text, again) if part))

    def _known(self, pvq: Pvq, lang: str) -> list[str]:
        phrases = self._prompts.of(lang)
        values: dict[str, str] = {}
        for key, value in pvq.scene.items():
            if isinstance(value, str):
                values[key] = value
            elif isinstance(value, (list, tuple)):
                pairs = (pair for item in value if isinstance(item, Mapping) for pair in item.items())
                values[key] = ", ".join(f"{role}: {who}" for role, who in pairs)
        if pvq.goal:
            values["goal"] = pvq.goal
        if pvq.archetype:
            values["archetype"] = ", ".join(pvq.archetype)
        if pvq.phase:
            values["phase"] = dict(phrases.phases).get(pvq.phase, pvq.phase)  # type: ignore[call-overload]
        return [f"{label}: {' '.join(values[key].split())}" for key, label in phrases.labels.items() if values.get(key)]


def _share(weight: float) -> Share:
    return "some" if weight >= 0.25 else "little"


def _said(turn: PastTurn, part: str, key: str) -> str:
    """What a part of an earlier turn's trace put into its message."""
    found = turn.trace.get(part)
    text = found.get(key) if isinstance(found, Mapping) else None
    return text if isinstance(text, str) else ""


def _directive(template: Template, lang: str) -> str:
    return template.directive.get(lang) or template.directive.get("en", "")


def _fields(template: Template) -> str:
    return ", ".join(name for name, spec in template.fields.items() if not spec.optional)
