"""Vocabularies of many kinds: the demo model's, and those in the source distribution of llama-cpp-python."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from ltm_edge.bundle import OverlaySet, load_overlay
from ltm_edge.grammar import Grammar, Vocab
from ltm_edge.models import find_demo_model

# `make test` fetches them (tools/fetch_vocabularies.py): byte-pair and SentencePiece vocabularies, 32k to 262k tokens.
FOLDER = Path(os.environ.get("LTM_VOCABULARIES", Path(__file__).parents[2] / "build" / "vocabularies"))
NAMES = (
    "smollm2",
    "llama-bpe",
    "qwen2",
    "gemma-4",
    "gpt-2",
    "falcon",
    "deepseek-llm",
    "phi-3",
    "command-r",
    "llama-spm",
)


@cache
def vocabulary_path(name: str) -> Path:
    if name == "smollm2":
        return find_demo_model().path
    path = FOLDER / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.fail(f"{path} is missing: run `make vocabularies`")
    return path


@cache
def vocabulary(name: str) -> Vocab:
    return Vocab.from_gguf(vocabulary_path(name), cache=False)


@cache
def overlay() -> OverlaySet:
    return load_overlay()


@cache
def template_grammar(template: str, lang: str = "en") -> Grammar:
    loaded = overlay()
    return Grammar.from_template(loaded.templates[template], loaded.archetype_names()[lang])


def examples(template: str, lang: str) -> list[str]:
    """The template's own example scenes, written as a model would write them."""
    loaded = overlay().templates[template]
    return [item.scene.to_yaml(tuple(loaded.fields)) for item in loaded.examples[lang]]


def effort(small: int) -> int:
    """How much to try: `small` in the ordinary suite, more under `make soak`."""
    return small * int(os.environ.get("LTM_SOAK", "1"))
