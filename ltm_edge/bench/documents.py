"""What the mask benchmark walks along: a grammar and a document that it allows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Case", "cases"]

# Small and without bounds, as grammars for other engines are usually written.
_SHORT_GBNF = r"""root ::= "scene:\n  actors:\n" actor actor? actor? "  tension: " str "\n  archetype: " str "\n  resonance_center: " str "\n  response: |\n" line line? line? line?
actor ::= "    - " [a-z_]+ ": " str "\n"
str ::= "\"" [^"\\\n\x00-\x1f]+ "\""
line ::= "    " [^\n\x00-\x1f]+ "\n"
"""  # noqa: E501
_SHORT_DOCUMENT = """scene:
  actors:
    - you: "architect"
    - inner_voice: "anxiety"
  tension: "certainty vs fatigue"
  archetype: "initiator, pilgrim"
  resonance_center: "the will to continue"
  response: |
    You do not know, and that is honest. But the scene has already begun. To stop is to forget why you started.
    The question is not the result. It is whether you are ready to be the one who carries meaning into the void.
"""
_TEMPLATE = "mirror"


@dataclass(frozen=True, slots=True)
class Case:
    """A grammar and a document that it allows."""

    name: str
    gbnf: str
    document: str


def cases() -> tuple[Case, ...]:
    """The small unbounded scene grammar, and a packaged template with its bounds and its first example."""
    from ltm_edge.bundle import load_overlay
    from ltm_edge.grammar import template_gbnf

    overlay = load_overlay()
    template = overlay.templates[_TEMPLATE]
    gbnf = template_gbnf(template, overlay.archetype_names().get("en"))
    document = template.examples["en"][0].scene.to_yaml(order=tuple(template.fields))
    return (
        Case("short", _SHORT_GBNF, _SHORT_DOCUMENT),
        Case(_TEMPLATE, gbnf, document),
    )
