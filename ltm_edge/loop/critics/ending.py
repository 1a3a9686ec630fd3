"""Whether a response comes to its end or breaks off."""

from __future__ import annotations

import re
from itertools import pairwise

from ltm_edge.loop.critics.lexicon import Lexicon, says
from ltm_edge.loop.critics.reading import MOST_CHARS, read
from ltm_edge.scene.words import stems

__all__ = ["finished"]

# A closing mark, perhaps with quotation marks and brackets behind it; or an emoji, which many end with.
_ENDED = re.compile(r"[.!?…。！？]['\"»”’)\]*_]*\Z|[\U0001F000-\U0001FAFF\u2600-\u27BF\uFE0F]\Z")
_BARE_MARKER = re.compile(r"\d+[.)]|[-*•]")
_CODE_INDENT = "  "
_OPEN_CODE = re.compile(
    r"(?:[-+*/=<>,.(\[{&|\\]|\b(?:await|return|and|or|not|in|import|from|new|def|const|let|var|if))\Z"
)
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))

# What is left of 1 for a response that ...
_CUT = 0.0  # breaks off inside a sentence, a list mark or a quotation
_CODE_OPEN = 0.1  # ends inside code
_ANNOUNCED = 0.2  # ends by announcing what then does not come
_UNCLOSED = 0.4  # has a quotation or a bracket that is not closed
_FEW = 0.4  # announces so many things and has fewer
_LIST = 0.7  # is all lines without full stops, as lists are


def finished(text: str, words: Lexicon) -> float:
    """How surely a response is at its end, from 0 to 1: the smallest that holds of what stands beside it.

    0: it ends without a mark that ends sentences (with a colon, a comma, a word), with the bare mark of a list's next
    point, or inside code in which the last line is open (0.1). 0.2: its last sentence only announces ("there are two
    ways out"). 0.4: a quotation or a bracket is open, or it announces three things and fewer follow. 0.7: no line has
    an end mark, as in lists. 1: none of these, or it closes as letters do.
    """
    lines = [line.rstrip() for line in text[-MOST_CHARS:].split("\n") if line.strip()]
    if not lines:
        return 0.0
    last = lines[-1]
    if last.startswith(_CODE_INDENT):
        return _code(lines)
    prose = [line for line in lines if not line.startswith(_CODE_INDENT)]
    if _BARE_MARKER.fullmatch(last.strip()) or not _ENDED.search(last):
        if says(tuple(stems(last)), words.closing):
            return 1.0
        listed = len(prose) > 1 and not any(_ENDED.search(line) for line in prose) and last[-1].isalnum()
        return _LIST if listed else _CUT
    value = 1.0
    whole = "\n".join(prose)
    if whole.count('"') % 2 or whole.count("«") != whole.count("»") or whole.count("“") != whole.count("”"):
        value = min(value, _UNCLOSED)
    reading = read(text)
    if reading.sentences and not reading.code:
        if says(reading.stems[-1], words.announcing):
            value = min(value, _ANNOUNCED)
        elif _fewer_than_announced(reading.stems, words):
            value = min(value, _FEW)
    return value


def _code(lines: list[str]) -> float:
    block = [line for line in lines if line.startswith(_CODE_INDENT)]
    code = "\n".join(block)
    is_open = any(code.count(left) > code.count(right) for left, right in _PAIRS) or _OPEN_CODE.search(block[-1])
    return _CODE_OPEN if is_open else 1.0


def _fewer_than_announced(sentences: tuple[tuple[str, ...], ...], words: Lexicon) -> bool:
    for place, sentence in enumerate(sentences):
        for number, what in pairwise(sentence):
            if number in words.counts and what in words.countable:
                return len(sentences) - place - 1 < words.counts[number]
    return False
