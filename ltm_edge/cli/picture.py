"""A scene as a picture on this terminal, where it can show one."""

from __future__ import annotations

import shutil
import sys

from ltm_edge.cli import console

__all__ = ["picture"]


def picture(document: str) -> str | None:
    """A scene's picture with its response below; None where stdout is no terminal, or one without box characters.

    Args:
        document: the complete scene, as YAML.
    """
    from ltm_edge.scene.record import Scene
    from ltm_edge.scene.render import scene_text
    from ltm_edge.scene.terminal_picture import draw

    if sys.stdout is None or not sys.stdout.isatty():
        return None
    try:
        "╭●‹".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return None
    scene = Scene.from_yaml(document, "<answer>")
    lines = draw(scene, shutil.get_terminal_size((80, 24)).columns, console.coloured(sys.stdout))
    return "\n".join(lines) + f"\n\n{console.printable(scene_text(scene))}\n"
