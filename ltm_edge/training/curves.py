"""Loss curves as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["loss_curves"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 380, 56, 120, 24, 40
_COLOURS = {"training": "#9aa7b5", "create": "#1b6ca8", "hold": "#2a9d5c", "restore": "#b8860b", "judge": "#b03a2e"}
_COLOURS["chat"] = "#6a4c93"
_SMOOTH = 0.9  # of the training loss, which jumps from batch to batch


def loss_curves(log: Sequence[Mapping[str, Any]], phases: Sequence[str]) -> str:
    """The losses of a run over its steps: training, smoothed, and validation by task.

    Args:
        log: the steps, as the trainer notes them.
        phases: names of the curriculum's phases; shown where each begins.
    """
    lines = _lines(log)
    if not lines:
        return '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>\n'
    last = max(step for points in lines.values() for step, _ in points) or 1
    top = max(value for points in lines.values() for _, value in points) * 1.05 or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + step / last * (_WIDTH - _LEFT - _RIGHT)
        return x, _HEIGHT - _BOTTOM - min(value / top, 1.0) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for number in range(6):
        value = top * number / 5
        x, y = place(0, value)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#e3e7eb"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    seen: set[int] = set()
    for entry in log:
        section = entry.get("section")
        if section is None or section in seen or not isinstance(section, int):
            continue
        seen.add(section)
        x, _ = place(entry["step"], 0)
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="#d5d9de" '
            'stroke-dasharray="3 3"/>'
        )
        name = phases[section] if section < len(phases) else str(section)
        parts.append(f'<text x="{x + 3:.1f}" y="{_TOP - 6}" fill="#69747f">{escape(name)}</text>')
    ends: list[float] = []
    for name, points in lines.items():
        colour = _COLOURS.get(name, "#444444")
        drawn = " ".join("{:.1f},{:.1f}".format(*place(step, value)) for step, value in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        x, y = place(*points[-1])
        while any(abs(y - other) < 12 for other in ends):
            y += 12
        ends.append(y)
        parts.append(f'<text x="{x + 5:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(name)} {points[-1][1]:.2f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">step (0 to {last})</text>')
    parts.append(
        f'<text x="14" y="{_HEIGHT / 2:.0f}" transform="rotate(-90 14 {_HEIGHT / 2:.0f})">nats per token</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _lines(log: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(Step, loss) points by the name of the curve."""
    lines: dict[str, list[tuple[int, float]]] = {}
    smooth: float | None = None
    for entry in log:
        if "loss" in entry:
            smooth = entry["loss"] if smooth is None else _SMOOTH * smooth + (1 - _SMOOTH) * entry["loss"]
            lines.setdefault("training", []).append((entry["step"], smooth))
        for name, value in entry.get("validation", {}).items():
            if name != "judge_auc":
                lines.setdefault(name, []).append((entry["step"], value))
    return lines
