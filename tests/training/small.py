"""A vocabulary of words, a tiny random model and a few short stories: all that a training run needs, in little."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ltm_edge.overlay_set import load_overlay
from ltm_edge.training.course import Course, Words

OVERLAY = load_overlay()
WORDS = replace(Words.of(OVERLAY), few_shot=0)
SPECIALS = ("<|im_start|>", "<|im_end|>")
FORMAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Pieces:
    """Token ids are words with the blank before them, and single blanks and line breaks, numbered as they come."""

    chat_template: str | None = FORMAT
    bos, eos = SPECIALS
    special_texts = SPECIALS
    size = 4096
    _known: ClassVar[list[str]] = [*SPECIALS]  # common to all of a test

    def tokenize(self, text: str | bytes, *, special: bool = False) -> np.ndarray:
        whole = text if isinstance(text, str) else text.decode()
        parts = re.split(r"(<\|im_start\|>|<\|im_end\|>)", whole) if special else [whole]
        found: list[int] = []
        for part in parts:
            pieces = [part] if special and part in SPECIALS else re.findall(r" ?[^\s<]+| ?<|\s", part)
            for piece in pieces:
                if piece not in self._known:
                    self._known.append(piece)
                found.append(self._known.index(piece))
        assert len(self._known) <= self.size
        return np.array(found, np.int32)

    def tokenize_segments(self, segments: Iterable[tuple[str, bool]]) -> np.ndarray:
        return np.concatenate([self.tokenize(text, special=special) for text, special in segments])

    def apply_builtin_template(self, messages: Iterable[tuple[str, str]]) -> str | None:
        return None

    def text(self, tokens: Iterable[int]) -> str:
        return "".join(self._known[token] for token in tokens)


# Template, phase and archetype of the scenes of each story; 0 to 3 are trained on, see `part_of`.
PLOTS = (
    (("hearth", "myth", "host"), ("workbench", "logic", "artisan")),
    (("initiation", "drama", "pilgrim"), ("trickster", "irony", "trickster"), ("hearth", "myth", "keeper")),
    (("workbench", "logic", "guide"),),
    (("threshold", "drama", "explorer"), ("reversal", "irony", "child")),
)
CURRICULUM = """curriculum:
  version: 1
  seed: 3
  batch: 2
  lora: {rank: 4, alpha: 8}
  phases:
    - {phase: myth, epochs: 8.0, learning_rate: 0.02, chat: 0.5}
    - {phase: drama, epochs: 8.0, learning_rate: 0.02, overlap: 0.5, replay: 0.5}
    - {phase: logic, epochs: 8.0, learning_rate: 0.02, judgements: 1.0}
    - {phase: irony, epochs: 8.0, learning_rate: 0.02, tasks: {restore: 0.0, create: 0.0, hold: 1.0}}
  data: [data/stories/*.yaml]
  chat: [data/chat/*.yaml]
"""


def write_folder(folder: Path, curriculum: str = CURRICULUM) -> Path:
    """A bundle folder with the stories, an exchange and a curriculum."""
    stories = folder / "data" / "stories"
    chats = folder / "data" / "chat"
    stories.mkdir(parents=True)
    chats.mkdir()
    lines = ["lang: en", "stories:"]
    for number, (name, plot) in enumerate(zip(names("train", len(PLOTS)), PLOTS, strict=True)):
        lines += _story(name, f"matter-{number}", plot)
    for number, name in enumerate(names("validation", 2)):
        lines += _story(name, f"other-{number}", PLOTS[number])
    (stories / "some.yaml").write_text("\n".join(lines) + "\n")
    talks = [f'  - chat: {name}\n    turns: [{{ask: "Hi {name}", answer: "Hello."}}]' for name in names("train", 2)]
    (chats / "some.yaml").write_text("chats:\n" + "\n".join(talks) + "\n")
    (folder / "curriculum.yaml").write_text(curriculum)
    return folder


def names(part: str, count: int) -> list[str]:
    """The first names that fall into a part."""
    from ltm_edge.training.stories import part_of

    return [name for name in (f"tale-{i}" for i in range(200)) if part_of(name) == part][:count]


def _story(name: str, matter: str, plot: Iterable[tuple[str, str, str]]) -> list[str]:
    lines = [f"  - story: {name}", f"    matter: {matter}", "    scenes:"]
    for number, (template, phase, archetype) in enumerate(plot):
        lines += [
            f'      - text: "{name} asks for the {number}. time. It is about {matter}."',
            f"        template: {template}",
            f"        phase: {phase}",
            "        scene:",
            '          actors: [{you: "one"}, {other: "two"}]',
            f'          tension: "more {matter} vs less"',
            f'          archetype: "{archetype}"',
            f'          resonance_center: "{matter}"',
            f'          response: "Do the first thing of {name}. Then rest. Ask about {matter} in {number} days."',
        ]
    return lines


def course(folder: Path, curriculum: str = CURRICULUM) -> Course:
    """The course of a new folder."""
    return Course.read(write_folder(folder, curriculum), WORDS)


def tiny_model(seed: int = 0, **changes: int):
    """A Llama of two layers with random weights, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": Pieces.size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, attn_implementation="eager"))
    model.model.embed_tokens.weight.data *= 10  # so that what a LoRA inside the layers changes has a say
    model.requires_grad_(False)
    return model.eval()
