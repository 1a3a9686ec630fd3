"""The `ltm.*` entries, their names, and FORMAT.md's list of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import gguf_tools
from gguf_tools import errors, keys
from gguf_tools.ltm import MAX_TEXT, ltm_entries
from gguf_tools.reader import read_gguf

from .gguf_bytes import chat_model, string, u32

SOUND = {"ltm.format_version": "1", "ltm.name": "small", "ltm.overlay": "ltm_overlay: {version: 1}"}
HASH = "0123456789abcdef" * 4


def entries(tmp_path: Path, changes: dict[str, str | int | None]) -> dict[str, str]:
    merged = {**SOUND, **changes}
    made = [string(k, v) if isinstance(v, str) else u32(k, v) for k, v in merged.items() if v is not None]
    return dict(ltm_entries(read_gguf(chat_model(made).write(tmp_path / "bundle.gguf"))))


def test_plain_gguf_has_none(tmp_path: Path) -> None:
    assert dict(ltm_entries(read_gguf(chat_model().write(tmp_path / "plain.gguf")))) == {}


def test_sound_entries(tmp_path: Path) -> None:
    more: dict[str, str | int | None] = {
        "ltm.scene_template.tricksters-turn": "имя: да",
        "ltm.base.sha256": HASH,
        "ltm.later": "kept",
    }
    assert entries(tmp_path, more) == {**SOUND, **more}


WRONG: dict[str, tuple[dict[str, str | int | None], type[errors.GgufError], str]] = {
    "newer version": ({"ltm.format_version": "2"}, errors.NewerFormat, "version 2, versions up to 1"),
    "no version": ({"ltm.format_version": None}, errors.BadLtmValue, "no 'ltm.format_version'"),
    "version that is a number": ({"ltm.format_version": 1}, errors.BadLtmValue, "is a UINT32, it must be a STRING"),
    "version 0": ({"ltm.format_version": "0"}, errors.BadLtmValue, "'0', not a whole number"),
    "version of words": ({"ltm.format_version": "1\x1b"}, errors.BadLtmValue, r"'1\x1b'"),
    "endless version": ({"ltm.format_version": "9" * 5000}, errors.BadLtmValue, "not a whole number"),
    "no name": ({"ltm.name": None}, errors.BadLtmValue, "no 'ltm.name'"),
    "empty name": ({"ltm.name": ""}, errors.BadLtmValue, "no 'ltm.name'"),
    "no overlay": ({"ltm.overlay": None}, errors.BadLtmValue, "no 'ltm.overlay'"),
    "hash too short": ({"ltm.base.sha256": HASH[1:]}, errors.BadLtmValue, "not 64 hexadecimal digits"),
    "hash in capitals": ({"ltm.sidecar.sha256": HASH.upper()}, errors.BadLtmValue, "not 64 hexadecimal digits"),
    "template that leaves its folder": ({"ltm.scene_template.../x": "a"}, errors.BadLtmValue, "kebab-case"),
    "template in capitals": ({"ltm.scene_template.Mirror": "a"}, errors.BadLtmValue, "kebab-case"),
    "text too long": ({"ltm.overlay": "x" * (MAX_TEXT + 1)}, errors.BadLtmValue, "1048577 bytes, 1048576 allowed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_entries(name: str, tmp_path: Path) -> None:
    changes, expected, words = WRONG[name]
    with pytest.raises(errors.GgufError) as caught:
        entries(tmp_path, changes)
    assert type(caught.value) is expected and words in str(caught.value)
    assert str(caught.value).isprintable()


def test_keys_are_built_and_checked_alike() -> None:
    assert keys.scene_template_key("tricksters-turn") == "ltm.scene_template.tricksters-turn"
    assert keys.pvq_key("a-request") == "ltm.pvq.a-request" and keys.is_known_ltm_key("ltm.pvq.a-request")
    assert keys.is_known_ltm_key("ltm.scene_template.mirror") and not keys.is_known_ltm_key("ltm.scene_template.")
    for name in ("", "A", "a--b", "-a", "a_b", "имя", "a" * 65, "a/b", ".."):
        with pytest.raises(ValueError, match="scene template name"):
            keys.scene_template_key(name)


def test_format_document_names_every_key_and_no_other() -> None:
    document = (Path(gguf_tools.__file__).parent / "FORMAT.md").read_text("utf-8")
    named = (keys.LTM_SCENE_TEMPLATE_PREFIX + "<name>", keys.LTM_PVQ_PREFIX + "<name>")
    for key in (*keys.LTM_FIXED, *named):
        assert f"| `{key}` |" in document, key
    rows = [line.split("`")[1] for line in document.splitlines() if line.startswith("| `ltm.")]
    assert len(rows) == len(set(rows)) == len(keys.LTM_FIXED) + len(named)
