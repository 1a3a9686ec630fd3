"""Which language a request is in: by script first, by statistics only where scripts leave a choice."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["detect_language"]

# Scripts of the languages whose script says something; every other language counts as Latin.
_SCRIPT_OF = {
    "ru": "cyrillic", "uk": "cyrillic", "be": "cyrillic", "bg": "cyrillic", "sr": "cyrillic", "mk": "cyrillic",
    "kk": "cyrillic", "ky": "cyrillic", "tg": "cyrillic", "mn": "cyrillic",
    "el": "greek", "he": "hebrew", "yi": "hebrew", "ar": "arabic", "fa": "arabic", "ur": "arabic",
    "hi": "devanagari", "mr": "devanagari", "ne": "devanagari", "th": "thai", "ka": "georgian", "hy": "armenian",
    "zh": "han", "ja": "han", "ko": "hangul",
}  # fmt: skip

_SCRIPTS = (
    ("latin", 0x41, 0x24F), ("greek", 0x370, 0x3FF), ("cyrillic", 0x400, 0x52F), ("armenian", 0x530, 0x58F),
    ("hebrew", 0x590, 0x5FF), ("arabic", 0x600, 0x77F), ("devanagari", 0x900, 0x97F), ("thai", 0xE00, 0xE7F),
    ("georgian", 0x10A0, 0x10FF), ("latin", 0x1E00, 0x1EFF), ("kana", 0x3040, 0x30FF), ("han", 0x3400, 0x9FFF),
    ("hangul", 0xAC00, 0xD7AF),
)  # fmt: skip

# Code, addresses and paths are Latin in every language; they say nothing about the writer's.
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\S+@\S+|\S*[/\\_]\S*|\b\w+\(\S*", re.DOTALL)

_SAMPLE_CHARS = 4000


def _letters(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for char in text:
        if not char.isalpha():
            continue
        code = ord(char)
        for script, low, high in _SCRIPTS:
            if low <= code <= high:
                counts[script] = counts.get(script, 0) + 1
                break
    return counts


def _by_statistics(text: str, candidates: list[str]) -> str | None:
    # Loading the classifier's model takes a while; a request in a script of its own never needs it.
    try:
        from py3langid import rank
    except (ImportError, OSError):
        return None
    for lang, _ in rank(text):
        if lang in candidates:
            return str(lang)
    return None


def detect_language(text: str, available: Sequence[str], default: str = "en") -> str:
    """The language of `text` among those `available`.

    Args:
        text: a request, in any language.
        available: language codes to choose from, such as ``("en", "ru")``.
        default: the answer where the text says nothing; the first available one if it isn't among them.
    """
    if not available:
        return default
    fallback = default if default in available else available[0]
    sample = text[:_SAMPLE_CHARS]
    counts = _letters(_NOT_PROSE.sub(" ", sample)) or _letters(sample)
    if not counts:
        return fallback
    if "kana" in counts:
        counts["han"] = counts.get("han", 0) + counts["kana"]
        if "ja" in available:
            return "ja"
    # A Latin name inside a Russian sentence is usual, the reverse is not: Latin letters weigh half.
    weights = {script: count * (0.5 if script == "latin" else 1.0) for script, count in counts.items()}
    for script, _ in sorted(weights.items(), key=lambda item: -item[1]):
        candidates = [lang for lang in available if _SCRIPT_OF.get(lang.split("-")[0], "latin") == script]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            best = _by_statistics(sample, candidates)
            return best or (fallback if fallback in candidates else candidates[0])
    return fallback
