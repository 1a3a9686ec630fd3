"""A turn's trace in plain words: what was asked, chosen, read, written, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from ltm_edge.explain_thinking import judged_lines, lifted_lines, routed_lines

__all__ = ["explain", "statistics"]


def explain(trace: Mapping[str, Any]) -> list[str]:
    """Say why the last turn came out as it did, one sentence per line. Missing parts of the trace are passed over."""
    lines: list[str] = []
    lines += lifted_lines(trace)
    _template(lines, trace)
    lines += routed_lines(trace)
    _prompt(lines, trace)
    _memory(lines, trace)
    passes = [entry for entry in _list(trace, "passes") if isinstance(entry, Mapping)]
    for number, entry in enumerate(passes, start=1):
        _pass(lines, entry, number if len(passes) > 1 else 0)
    lines += judged_lines(trace)
    _settings(lines, trace)
    for notice in _list(trace, "notices"):
        lines.append(f"Note: {notice}")
    total = _number(trace, "ms_total")
    if total is not None:
        lines.append(f"The whole turn took {_duration(total)}.")
    return lines or ["The trace of this turn is empty."]


def statistics(trace: Mapping[str, Any]) -> list[str]:
    """The counts and speeds of one turn, one per line."""
    lines: list[str] = []
    prompt = _prompt_counts(trace)
    tokens = _number(prompt, "tokens")
    if tokens is not None:
        lines.append(f"prompt      {_parts(tokens, 'tokens', prompt, ('reused', 'prefilled', 'dropped_turns'))}")
    for entry in _list(trace, "passes"):
        if not isinstance(entry, Mapping):
            continue
        counts, times = _mapping(entry, "tokens"), _mapping(entry, "ms")
        kind = str(entry.get("kind", "pass"))
        written = _written(counts)
        if written is not None:
            lines.append(f"{kind:<11} {_parts(written, 'tokens', counts, ('sampled', 'forced', 'resampled'))}")
        for name, count in (("prefill", _number(counts, "prefilled")), ("decode", written)):
            spent = _number(times, name)
            if spent is not None:
                lines.append(f"{name:<11} {_duration(spent)}{_rate(count, spent)}")
        spent = _number(times, "sample")
        if spent is not None:
            lines.append(f"{'sampling':<11} {_duration(spent)}")
    total = _number(trace, "ms_total")
    if total is not None:
        lines.append(f"{'total':<11} {_duration(total)}")
    return lines or ["No figures for this turn."]


def _template(lines: list[str], trace: Mapping[str, Any]) -> None:
    template = _mapping(trace, "template")
    name = template.get("name")
    if name:
        line = f"The scene follows the template {name}"
        why = template.get("why")
        line += f": {_sentence(why)}" if why else "."
        lines.append(line)
        scores = template.get("scores")
        if isinstance(scores, Mapping):
            ranked = sorted(
                ((str(k), float(v)) for k, v in scores.items() if _is_number(v)), key=lambda item: (-item[1], item[0])
            )
            if len(ranked) > 1:
                lines.append("Templates by score: " + ", ".join(f"{k} {v:.2f}" for k, v in ranked[:4]) + ".")
    if trace.get("lang"):
        lines.append(f"Language of the scene: {trace['lang']}.")
    model = trace.get("model")
    if isinstance(model, Mapping):
        model = model.get("name")
    if model:
        lines.append(f"Model: {model}.")


def _prompt(lines: list[str], trace: Mapping[str, Any]) -> None:
    prompt = _prompt_counts(trace)
    tokens = _number(prompt, "tokens")
    if tokens is not None:
        line = f"The prompt has {_count(tokens, 'token')}"
        reused, prefilled = _number(prompt, "reused"), _number(prompt, "prefilled")
        if reused is not None and prefilled is not None:
            line += f"; {reused:.0f} of them were already known, {prefilled:.0f} had to be read"
        lines.append(line + ".")
    dropped = _number(prompt, "dropped_turns")
    if dropped:
        lines.append(f"{_count(dropped, 'earlier turn')} did not fit into the context and could not be seen.")


def _memory(lines: list[str], trace: Mapping[str, Any]) -> None:
    """What was brought up and why, and what became of the turn."""
    memory = _mapping(trace, "memory")
    if not memory:
        return
    times, hits = _mapping(memory, "ms"), [hit for hit in _list(memory, "recalled") if isinstance(hit, Mapping)]
    spent = _number(times, "recall")
    took = f" (searched in {_duration(spent)})" if spent is not None else ""
    if hits:
        tokens = _number(memory, "tokens") or 0
        lines.append(f"Memory brought up {_count(len(hits), 'scene')} in {_count(tokens, 'token')}{took}:")
        lines += [_recalled(hit) for hit in hits]
    else:
        lines.append(f"Memory brought up nothing: no earlier scene was close enough{took}.")
    stored = _mapping(memory, "stored")
    spent = _number(times, "store")
    if stored:
        kind = _STORED.get(str(stored.get("status")), "It went into memory as scene {id}")
        line = kind.format(id=stored.get("id")) + (f", in {_duration(spent)}" if spent is not None else "")
        for key, words in (("superseded", "took the place of"), ("strengthened", "strengthened")):
            numbers = [str(number) for number in _list(stored, key)]
            line += f"; it {words} scene{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else ""
        lines.append(f"{line}.")
    else:
        lines.append("This turn was not stored in memory.")


_SHOWN = 0.005  # what rounds to nothing explains nothing

_STORED = {
    "added": "It was stored as scene {id}",
    "strengthened": "It says the same as scene {id}, which grew stronger instead",
    "echo": "It only repeats what was recalled; scene {id} grew stronger instead",
}

_VIA = {
    "predecessor": "came before",
    "successor": "came after",
    "arc": "sums up",
    "newer": "took the place of what hangs on",
    "original": "is what was repeated by",
}


def _recalled(hit: Mapping[str, Any]) -> str:
    line = f"  scene {hit.get('id')} of {str(hit.get('created', ''))[:10]}"
    said = hit.get("said")
    if said:
        line += f", “{said}”"
    score, parts = _number(hit, "score"), _mapping(hit, "parts")
    if parts:
        shown = [(name, value) for name, value in parts.items() if _is_number(value) and value >= _SHOWN]
        named = ", ".join(f"{name} {value:.2f}" for name, value in shown) or "nothing"
        return f"{line}: resonance {score or 0:.2f} from {named}."
    return f"{line}: {_VIA.get(str(hit.get('via')), 'hangs on')} scene {hit.get('of')}."


def _prompt_counts(trace: Mapping[str, Any]) -> Mapping[str, Any]:
    """The prompt's figures; what of it was already known stands with the first pass that read it."""
    first = next((entry for entry in _list(trace, "passes") if isinstance(entry, Mapping)), {})
    counts = _mapping(first, "tokens")
    return {key: counts[key] for key in ("reused", "prefilled") if key in counts} | dict(_mapping(trace, "prompt"))


def _pass(lines: list[str], entry: Mapping[str, Any], number: int) -> None:
    counts, times = _mapping(entry, "tokens"), _mapping(entry, "ms")
    kind = str(entry.get("kind", "pass"))
    kind += f", {entry['channel']}" if entry.get("channel") else ""
    name = f"Pass {number} ({kind})" if number else f"The {kind}"
    written = _written(counts)
    if written is not None:
        line = f"{name} has {_count(written, 'token')}"
        parts = [
            f"{value:.0f} {words}"
            for key, words in (
                ("sampled", "chosen by the model"),
                ("forced", "given by the template"),
                ("resampled", "chosen again because the grammar refused the first choice"),
            )
            if (value := _number(counts, key))
        ]
        line += f": {', '.join(parts)}" if parts else ""
        kept = _number(entry, "kept")
        line += f"; of the response before it keeps {_count(kept, 'sentence')}" if kept else ""
        spent = _number(times, "decode")
        if spent:
            line += f"; written in {_duration(spent)}{_rate(written, spent)}"
        lines.append(line + ".")
    prefill = _number(times, "prefill")
    if prefill:
        lines.append(f"Reading before it took {_duration(prefill)}{_rate(_number(counts, 'prefilled'), prefill)}.")
    stop = entry.get("stop")
    if stop:
        lines.append(f"It ended because {_STOPS.get(str(stop), f'of {stop!r}')}.")


_STOPS = {
    "end": "the scene was complete",
    "complete": "the scene was complete",
    "eos": "the model ended it",
    "eog": "the model ended it",
    "grammar": "the scene was complete",
    "length": "it reached the longest allowed length",
    "max_tokens": "it reached the longest allowed length",
    "context": "the context was full",
    "cancelled": "it was stopped",
    "cancel": "it was stopped",
    "abort": "it was stopped",
}


def _settings(lines: list[str], trace: Mapping[str, Any]) -> None:
    settings = _mapping(trace, "settings")
    given = [f"{key} {value}" for key, value in settings.items() if key in _TELLING and _plain(value)]
    if given:
        lines.append(f"Settings: {', '.join(given)}.")


_TELLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "seed", "form", "template")


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def _written(counts: Mapping[str, Any]) -> float | None:
    sampled, forced = _number(counts, "sampled"), _number(counts, "forced")
    if sampled is None and forced is None:
        return None
    return (sampled or 0) + (forced or 0)


def _parts(total: float, unit: str, counts: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    parts = [f"{value:.0f} {key.replace('_', ' ')}" for key in keys if (value := _number(counts, key)) is not None]
    return f"{total:.0f} {unit}" + (f" ({', '.join(parts)})" if parts else "")


def _rate(count: float | None, ms: float) -> str:
    return f", {count * 1000 / ms:.1f} tokens/s" if count and ms > 0 else ""


def _duration(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms"


def _count(value: float, noun: str) -> str:
    return f"{value:.0f} {noun}" + ("" if value == 1 else "s")


def _sentence(text: Any) -> str:
    words = str(text).strip()
    return words if words.endswith((".", "!", "?")) else words + "."


def _mapping(trace: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = trace.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(trace: Mapping[str, Any], key: str) -> list[Any]:
    value = trace.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def _number(counts: Mapping[str, Any], key: str) -> float | None:
    value = counts.get(key)
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
