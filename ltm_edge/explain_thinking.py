"""The thinking part of a trace in plain words: how a request was read, routed, drafted, judged and revised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ltm_edge.scene.stream import SceneStream

__all__ = ["council_lines", "judged_lines", "lifted_lines", "routed_lines"]

_SHOWN_CHARS = 160  # of a draft that lost

_NAMES = {"insight_seeker": "INSIGHT-SEEKER", "obstructio": "OBSTRUCTIO", "recursia": "RECURSIA"}

_WHY = {
    "accepted": "it was accepted",
    "passes": "no further pass was allowed",
    "no better": "the revisions made it no better",
    "budget": "the budget of the turn was spent",
    "cancelled": "it was stopped",
    "incomplete": "the document was not complete",
}

_SAID = {
    "given": "as given",
    "default": "for want of anything better",
}


def lifted_lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """How the request was read."""
    lift = _part(trace, "lift")
    if not lift:
        return
    how = "by meaning" if lift.get("how") == "embeddings" else "letter by letter"
    phase = _part(lift, "phase")
    line = f"The request was read {how}: phase {_inferred(phase)}"
    archetypes = [_inferred(one) for one in _list(lift, "archetypes") if isinstance(one, Mapping)]
    yield line + (f"; archetypes {', '.join(archetypes)}." if archetypes else "; no archetype was near.")
    for key, words in (("goal", "The goal"), ("tension", "The tension"), ("centre", "The centre")):
        found = _part(lift, key)
        if found:
            yield f"{words}: {_inferred(found)}."


def routed_lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """Where the turn was routed, and what the session wants."""
    routing = _part(trace, "routing")
    weights = {name: value for name, value in _part(routing, "weights").items() if _number(value) and value > 0}
    if weights:
        listed = ", ".join(f"{name} {value:g}" for name, value in weights.items())
        yield f"Channels: {listed} ({routing.get('why')})."
        if routing.get("manner"):
            yield f"The model was told: {routing['manner']}"
    field = _part(trace, "field")
    if field.get("goal"):
        yield f"The session's will: {field['goal']} (pull {field.get('pull')})."


def judged_lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """What the critics said of each draft, and why the loop stopped."""
    council = _part(trace, "consilium")
    if council:
        names = ", ".join(str(one.get("channel")) for one in _list(council, "drafts") if isinstance(one, Mapping))
        yield f"A consilium was held ({council.get('why')}): {names}; {council.get('chosen')} was chosen (/council)."
    loop = _part(trace, "loop")
    judged = [one for one in _list(loop, "judged") if isinstance(one, Mapping)]
    for number, one in enumerate(judged):
        verdicts = [verdict for verdict in _list(one, "verdicts") if isinstance(verdict, Mapping)]
        if not verdicts:
            continue
        said = "; ".join(_verdict(verdict) for verdict in verdicts)
        yield f"The critics on {'the draft' if number == 0 else f'revision {number}'}: {said}. Mean {one.get('score')}."
        for verdict in verdicts:
            if verdict.get("question"):
                yield f"  {_name(verdict)} asked: {verdict['question']}"
        if isinstance(one.get("document"), str):
            yield f"  It lost: “{_said(one['document'])}”"
    if judged and any(_list(one, "verdicts") for one in judged):
        accepted, passes = loop.get("accepted"), len(judged)
        which = "The draft" if accepted == 0 else f"Revision {accepted}"
        tried = "" if passes == 1 else f" of {passes} passes"
        yield f"{which} is the answer{tried}: {_WHY.get(str(loop.get('why')), loop.get('why'))}."
    if trace.get("refused"):
        yield "No draft was good enough, so the answer says what is missing and asks one question."
    if trace.get("remark"):
        yield f"Remark: {trace['remark']}"


def council_lines(trace: Mapping[str, Any]) -> list[str]:
    """All drafts of a turn's consilium with their scores; empty if none was held."""
    council = _part(trace, "consilium")
    lines: list[str] = []
    for one in _list(council, "drafts"):
        if not isinstance(one, Mapping):
            continue
        chosen = "  <- chosen" if one.get("channel") == council.get("chosen") else ""
        verdicts = [verdict for verdict in _list(one, "verdicts") if isinstance(verdict, Mapping)]
        scores = ", ".join(f"{_name(verdict)} {verdict.get('score')}" for verdict in verdicts)
        apart = "" if one.get("apart") is None else f", apart {one['apart']}"
        lines.append(f"{one.get('channel')}: score {one.get('score')}, will {one.get('will')}{apart}{chosen}")
        if scores:
            lines.append(f"  {scores}")
        lines += [f"  | {line}" for line in str(one.get("document", "")).rstrip("\n").split("\n")]
        lines.append("")
    return lines[:-1]


def _said(document: str) -> str:
    """The response of a document on one line, its beginning where it is long."""
    stream = SceneStream()
    stream.feed(document)
    words = " ".join(str(stream.partial().get("response", "")).split())
    return words if len(words) <= _SHOWN_CHARS else words[: _SHOWN_CHARS - 1].rstrip() + "…"


def _verdict(verdict: Mapping[str, Any]) -> str:
    line = f"{_name(verdict)} {verdict.get('score')}"
    if not verdict.get("passed"):
        line += " (against)"
    if verdict.get("weakest"):
        signals = _part(verdict, "signals")
        line += f", weakest {verdict['weakest']} {signals.get(verdict['weakest'])}"
    if verdict.get("probe") is not None:
        line += f", the model says {verdict['probe']}"
    return line


def _name(verdict: Mapping[str, Any]) -> str:
    critic = str(verdict.get("critic"))
    return _NAMES.get(critic, critic)


def _inferred(found: Mapping[str, Any]) -> str:
    likeness = found.get("similarity")
    how = f"likeness {likeness:.2f}" if _number(likeness) else _SAID.get(str(found.get("source")), "from its words")
    return f"{found.get('value')} ({how})"


def _part(trace: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = trace.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(trace: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = trace.get(key)
    return value if isinstance(value, (list, tuple)) else ()


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
