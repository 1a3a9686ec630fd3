"""A scene in the form that was asked for: text, YAML, JSON, a card, or an image (образ)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ltm_edge.scene.measure import wrap
from ltm_edge.scene.record import Scene
from ltm_edge.scene.svg import scene_svg

__all__ = ["card_lines", "render_form", "scene_text"]

_CARD_WIDTH = 76
_LABELS = {
    "actors": "actors",
    "tension": "tension",
    "archetype": "archetype",
    "resonance_center": "centre",
    "self_commentary": "aside",
}
_LABEL_WIDTH = max(map(len, _LABELS.values()))


def scene_text(scene: Scene) -> str:
    """The response alone, and the self-commentary below it where there is one."""
    return f"{scene.response}\n\n({scene.self_commentary})" if scene.self_commentary else scene.response


def render_form(scene: Scene, form: str, lang: str = "en") -> str:
    """The scene in one of the forms text, yaml, json, image; `auto` is text.

    Raises:
        ValueError: an unknown form.
    """
    if form in ("auto", "text", "refusal"):
        return scene_text(scene)
    if form == "yaml":
        return scene.to_yaml()
    if form == "json":
        return scene.to_json()
    if form == "image":
        return scene_svg(scene, lang)
    raise ValueError(f"unknown form {form!r}; known are auto, text, yaml, json, image, refusal")


def card_lines(fields: Mapping[str, Any], width: int = _CARD_WIDTH) -> list[str]:
    """A scene's fields without the response, one to a row, wrapped to `width` columns.

    Args:
        fields: the scene as a mapping; it may be incomplete, with actors as pairs or as one-key mappings.
    """
    out = []
    for name, value in fields.items():
        if name == "response" or not value:
            continue
        label = _LABELS.get(name, name.replace("_", " "))
        for line in wrap(" ".join(_plain(name, value).split()), max(width - _LABEL_WIDTH - 2, 20)):
            out.append(f"{label:<{_LABEL_WIDTH}}  {line}")
            label = ""
    return out


def _plain(name: str, value: Any) -> str:
    if name == "actors":
        return " · ".join(f"{role.replace('_', ' ')}: {who}" for role, who in _pairs(value))
    if isinstance(value, str):
        return value
    return ", ".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def _pairs(value: Any) -> Iterator[tuple[str, str]]:
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, Mapping):
            yield from ((str(role), str(who)) for role, who in item.items())
        elif isinstance(item, (list, tuple)) and len(item) == 2:
            yield str(item[0]), str(item[1])
