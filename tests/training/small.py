"""A vocabulary of bytes, a tiny random model and a few short stories: all that a training run needs, in little."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ltm_edge.overlay_set import load_overlay
from ltm_edge.training.course import Course, Words

OVERLAY = load_overlay()
WORDS = Words(
    OVERLAY.prompts,
    OVERLAY.templates,
    OVERLAY.archetype_names(),
    {name: zone.directive for name, zone in OVERLAY.field.channels.items()},
    0,
)
SPECIALS = ("<|im_start|>", "<|im_end|>")
FORMAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


WORDS_OF_ONE = {" yes": 258, " no": 259}


class Bytes:
    """Token ids are bytes; 256 and 257 are the special tokens, and two words alone are a token each."""

    chat_template: str | None = FORMAT
    bos, eos = SPECIALS
    special_texts = SPECIALS

    def tokenize(self, text: str | bytes, *, special: bool = False) -> np.ndarray:
        if isinstance(text, str) and text in WORDS_OF_ONE:
            return np.array([WORDS_OF_ONE[text]], np.int32)
        raw = text if isinstance(text, bytes) else text.encode()
        found: list[int] = []
        while raw:
            number = next((i for i, one in enumerate(SPECIALS) if special and raw.startswith(one.encode())), None)
            found.append(raw[0] if number is None else 256 + number)
            raw = raw[1:] if number is None else raw[len(SPECIALS[number]) :]
        return np.array(found, np.int32)

    def tokenize_segments(self, segments: Iterable[tuple[str, bool]]) -> np.ndarray:
        return np.concatenate([self.tokenize(text, special=special) for text, special in segments])

    def apply_builtin_template(self, messages: Iterable[tuple[str, str]]) -> str | None:
        return None

    def text(self, tokens: Iterable[int]) -> str:
        whole = [*SPECIALS, *WORDS_OF_ONE]
        return b"".join(bytes([t]) if t < 256 else whole[t - 256].encode() for t in tokens).decode()


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
    - {phase: myth, epochs: 2.0, learning_rate: 0.01, chat: 0.5}
    - {phase: drama, epochs: 2.0, learning_rate: 0.01, overlap: 0.5, replay: 0.5}
    - {phase: logic, epochs: 2.0, learning_rate: 0.01, judgements: 1.0}
    - {phase: irony, epochs: 2.0, learning_rate: 0.01, tasks: {restore: 0.0, create: 0.0, hold: 1.0}}
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
            f'          response: "Do the first thing of {name}. Then rest. Ask about {matter} again in {number} days."',
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
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, attn_implementation="eager"))
    model.requires_grad_(False)
    return model.eval()
