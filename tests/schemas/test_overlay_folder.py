"""What a folder given as overlay may hold: nothing in it is left out without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ltm_edge.errors import BundleError
from ltm_edge.overlay_set import load_overlay, packaged_documents

CONFIG = packaged_documents()["ltm_overlay_config.yaml"]
HEARTH = packaged_documents()["scene_templates/hearth.yaml"]


def _write(name: str, text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "holds nothing of an overlay; put one of ltm_overlay_config.yaml, "),
        (_write("notes.txt", "x"), "holds nothing of an overlay"),
        (lambda folder: (folder / "prompts.yaml").mkdir(), "prompts.yaml: is a folder; an overlay's prompts.yaml is"),
        (lambda folder: (folder / "prompts.yaml").symlink_to("gone"), "prompts.yaml: leads nowhere"),
        (lambda folder: (folder / "prompts.yaml").symlink_to("prompts.yaml"), "prompts.yaml: leads nowhere"),
        (lambda folder: (folder / "prompts.yaml").symlink_to("/dev/null"), "prompts.yaml: is no file"),
        (lambda folder: (folder / "scene_templates" / "a.yaml").mkdir(parents=True), "a.yaml: is a folder"),
        (_write("scene_templates", "x"), "scene_templates: is no folder"),
        (_write("scene_template/hearth.yaml", HEARTH), "scene_template: is no part .* did you mean scene_templates"),
        (_write("ltm_overlay_config.yml", CONFIG), "did you mean ltm_overlay_config.yaml"),
        (_write("Field_architecure.yaml", CONFIG), "did you mean field_architecture.yaml"),
        (_write("scene_templates/hearth.yml", HEARTH), "hearth.yml: would be left out; rename it to hearth.yaml"),
    ],
)
def test_what_would_be_left_out_is_refused(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path)
    with pytest.raises(BundleError, match=words) as refused:
        load_overlay(tmp_path)
    assert "\n" not in str(refused.value)


def test_other_files_and_copies_put_aside_do_no_harm(tmp_path: Path) -> None:
    for name in ("README.md", "prompts.yaml.bak", "config.json", "curriculum.yaml"):
        (tmp_path / name).write_text("x", "utf-8")
    (tmp_path / "ltm_overlay_config.yaml").write_text(CONFIG, "utf-8")
    assert load_overlay(tmp_path).overlay.name
