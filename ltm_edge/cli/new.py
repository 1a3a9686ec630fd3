"""`ltm-edge new`: a commented bundle folder to start from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gguf_tools.records import GgufInfo

__all__ = ["new"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CURRICULUM = """\
# The order in which training data is fed (`ltm-edge train` reads it; a chat doesn't): phases in order, each with its
# archetypes, the shares of the three tasks and of critic judgements, epochs and learning rate.
curriculum:
  version: 1
  name: {name}
  seed: 0
  phases:
    - phase: myth
      archetypes: [initiator, pilgrim]
      tasks: {{restore: 0.5, create: 0.3, hold: 0.2}}   # restore the field, create the scene, hold the chain; sum 1
      judgements: 0.1                                 # share of critic judgements among the examples
      epochs: 1
      learning_rate: 1e-4
    - phase: drama
      archetypes: [guardian, rebel]
      tasks: {{restore: 0.3, create: 0.5, hold: 0.2}}
    - phase: logic
      archetypes: [sage, judge]
      tasks: {{restore: 0.2, create: 0.5, hold: 0.3}}
    - phase: irony
      archetypes: [trickster]
      tasks: {{restore: 0.2, create: 0.4, hold: 0.4}}
  data: [data/stories/*.yaml]                         # files of the folder, or patterns; see docs/training.md
"""


@click.command(short_help="Make a commented bundle folder to start from.")
@click.argument("name")
@click.option("--base", required=True, metavar="BASE.gguf", help="The base model's GGUF; `demo`: the demo model.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder to make; default: NAME.")
def new(name: str, base: str, out: Path | None) -> None:
    """Make a commented bundle folder to start from.

    It holds the packaged overlay, field, prompts and scene templates to edit, a curriculum, and what the base model
    is; put model_lora.safetensors into it where there is one.
    """
    from gguf_tools.bundle_converter import open_base
    from gguf_tools.errors import GgufError
    from gguf_tools.files import room_for
    from ltm_edge.cli.console import write_out
    from ltm_edge.errors import BundleError
    from ltm_edge.hashes import file_sha256
    from ltm_edge.models import base_path

    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            "a bundle's name has letters, digits, dots, hyphens and underscores, 100 at most", param_hint="NAME"
        )
    folder = out or Path(name)
    model = base_path(base)
    try:
        info = open_base(model)
    except GgufError as error:
        raise BundleError(str(error)) from error
    if folder.exists() or folder.is_symlink():
        raise BundleError(f"{folder}: is there already; choose another name with -o")
    try:
        with room_for(folder):
            _write(folder, name, info, file_sha256(model))
    except GgufError as error:
        raise BundleError(str(error)) from error
    write_out(
        f"{folder}: edit the files, then\n"
        f"  ltm-edge convert {folder} --base {base} -o {name}.gguf\n  ltm-edge chat {name}.gguf\n"
    )


def _write(folder: Path, name: str, info: GgufInfo, base_sha256: str) -> None:
    import json

    from gguf_tools.bundle_converter import facts_of
    from gguf_tools.files import keep_permissions, remove, temporary_folder
    from ltm_edge.overlay_set import packaged_documents

    files = packaged_documents()
    overlay = files["ltm_overlay_config.yaml"]
    files["ltm_overlay_config.yaml"] = re.sub(r"(?m)^  name: default\b", lambda _: f"  name: {name}", overlay, count=1)
    files["curriculum.yaml"] = _CURRICULUM.format(name=name)
    facts = {**facts_of(info), "base_sha256": base_sha256}
    files["config.json"] = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    temporary: Path | None = temporary_folder(folder)
    assert temporary is not None
    try:
        (temporary / "scene_templates").mkdir()
        for path, text in files.items():
            (temporary / path).write_bytes(text.encode("utf-8"))
        keep_permissions(temporary)
        temporary.rename(folder)
        temporary = None
    finally:
        remove(temporary)
