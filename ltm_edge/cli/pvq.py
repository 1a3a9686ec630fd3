"""``ltm-edge pvq``: a request lifted to a PVQ, with where each part comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ltm_edge.cli.options import bundle_argument

if TYPE_CHECKING:
    from ltm_edge.field.lift import Inferred, Reading
    from ltm_edge.scene.pvq import Pvq

__all__ = ["annotated", "lifted", "pvq"]


@click.command(short_help="Show how a request is lifted: phase, archetypes, goal, tension.")
@click.argument("text")
@bundle_argument
@click.option(
    "--infer",
    type=click.Choice(["fast", "model"]),
    default="fast",
    show_default=True,
    help="fast: by likeness to anchor texts; model: it is asked for tension, goal and centre, too.",
)
@click.option("--lang", metavar="CODE", help="Language of the request, such as en or ru; else it is detected.")
@click.option("--json", "as_json", is_flag=True, help="Everything that was measured, as JSON.")
def pvq(text: str, bundle: str | None, infer: str, lang: str | None, as_json: bool) -> int:
    """Lift a request to a structured one (PVQ) and print it as YAML.

    TEXT is the request, - reads it from stdin; one that is a PVQ.yaml keeps what it gives. Comments say what was given,
    what was inferred, and by which likeness. Without BUNDLE_OR_GGUF the packaged overlay reads it, and no model is
    loaded unless it is to be asked.
    """
    from ltm_edge.cli import console
    from ltm_edge.cli.run import read_request
    from ltm_edge.scene.pvq import Pvq

    request = read_request(text, None) if text == "-" else text
    given = Pvq.from_yaml(request) if request.lstrip().startswith("pvq:") else Pvq.from_text(request)
    reading, asked, notices, names = _read(given, bundle, lang, model=infer == "model")
    for notice in notices:
        console.notice(notice)
    if as_json:
        found = {"pvq": lifted(asked, reading, names).to_dict(), "reading": reading.to_trace()}
        console.write_out(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    else:
        console.write_out("".join(annotated(given, asked, reading, names)))
    return 0


def _read(
    given: Pvq, bundle: str | None, lang: str | None, *, model: bool
) -> tuple[Reading, Pvq, tuple[str, ...], dict[str, str]]:
    """The reading, the request with what the model was asked for, sentences for the user, and the archetypes' names."""
    from ltm_edge.bundle import Bundle
    from ltm_edge.embedders import SharedEmbedder, open_embedder
    from ltm_edge.errors import InputError
    from ltm_edge.field.state import FieldState
    from ltm_edge.overlay_set import load_overlay
    from ltm_edge.scene.language import detect_language

    opened = Bundle.open(bundle) if bundle is not None or model else None
    shared = SharedEmbedder(open_embedder) if opened is None else opened.embedder
    try:
        overlay = load_overlay() if opened is None else opened.overlay_set
        if lang is not None and lang not in overlay.languages:
            raise InputError(f"--lang {lang}: the overlay speaks {', '.join(overlay.languages)}")
        spoken = lang or detect_language(given.text, overlay.languages, overlay.languages[0])
        lifted_ = overlay.orienter(shared).lift(given, spoken, FieldState.empty())
        assert lifted_.reading is not None
        asked, notices = given, lifted_.notices
        if model and opened is not None:
            with opened.session() as session:
                asked, said = session.infer(given, spoken)
                notices += said
        return lifted_.reading, asked, notices, overlay.archetype_names().get(spoken, {})
    finally:
        shared.close()
        if opened is not None:
            opened.close()


def lifted(asked: Pvq, reading: Reading, names: dict[str, str]) -> Pvq:
    """The request with everything that was read of it.

    Args:
        asked: the request, with what the model was asked for.
        reading: what was read.
        names: names of the archetypes by id.
    """
    scene: dict[str, Any] = dict(asked.scene)
    for key, found in (("tension", reading.tension), ("resonance_center", reading.centre)):
        if found is not None:
            scene.setdefault(key, found.value)
    return replace(
        asked,
        scene=scene,
        goal=asked.goal or (reading.goal.value if reading.goal is not None else None),
        archetype=asked.archetype or tuple(names.get(one, one) for one in reading.archetype_ids),
        phase=asked.phase or reading.phase.value,
    )


def annotated(given: Pvq, asked: Pvq, reading: Reading, names: dict[str, str]) -> Iterator[str]:
    """The lines of the lifted request's YAML; behind each inferred value a comment says where it comes from."""
    scene = {"tension": reading.tension, "resonance_center": reading.centre}
    for line in lifted(asked, reading, names).to_yaml().splitlines():
        key = line.strip().partition(":")[0]
        note = ""
        if key in scene and line.startswith("    ") and key not in given.scene:
            note = "the model's" if key in asked.scene else _note(scene[key])
        elif key == "vector" and given.goal is None:
            note = "the model's" if asked.goal is not None else _note(reading.goal)
        elif key == "archetype" and not given.archetype and line.startswith("  "):
            note = ", ".join(_note(one) for one in reading.archetypes)
        elif key == "phase" and given.phase is None:
            note = _note(reading.phase)
        yield f"{line}{'   # ' + note if note else ''}\n"


def _note(found: Inferred | None) -> str:
    if found is None:
        return ""
    if found.similarity is not None:
        return f"likeness {found.similarity:.2f}"
    return "nothing was near" if found.source == "default" else "from its words"
