"""Words of a text as they are compared and indexed: folded, lightly stemmed, without the commonest ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["content_stems", "is_question", "jaccard", "shingles", "stems"]

_WORD = re.compile(r"[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_VOWEL = re.compile("[aeiouy]")

# After Harman, "How effective is suffixing?" (1991), with -ing and -ed; enough to join "moved", "moving" and "moves".
_EN_ENDINGS = ("ings", "ing", "edly", "ed", "ies", "es", "s")
# The commonest inflections of Russian, longest first; a stem keeps three letters.
_RU_ENDINGS = """
иями ями ами ыми ими его ого ему ому ешь ете ишь ите ете уют ают яют еют ует ает яет ут ют ат ят ал ял ил ел
ала яла ила ела али яли или ели ало ило ет ит ать ять ить еть уть ой ей ий ый ая яя ое ее ие ые ую юю ых их ым
им ов ев ом ем ам ям ах ях ию ью ия ья ьи ье а я о е и ы у ю ь й
"""
_RU = tuple(sorted(_RU_ENDINGS.split(), key=len, reverse=True))

_COMMON = """
a an the and or but if then so than that this these those of to in on at by for with from as into about over
is am are was were be been being do does did doing have has had having will would can could should shall may
might must i me my mine you your yours he him his she her hers it its we us our ours they them their theirs s
t m re ve ll d what which who whom whose when where why how not no nor too very just also there here up down
out off again some any all both each more most other such only own same because while during before after
и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее мне было вот от меня
еще нет о из ему теперь когда даже ну вдруг ли если уже или ни быть был него до вас нибудь опять уж вам ведь
там потом себя ничего ей может они тут где есть надо ней для мы тебя их чем была сам чтоб без будто чего раз
тоже себе под будет ж тогда кто этот того потому этого какой совсем ним здесь этом один почти мой моя мое мои
твой твоя тем чтобы нее были куда зачем всех никогда можно при наконец два об другой хоть после над больше тот
через эти нас про всего них какая много разве три эту свою этой перед иногда лучше чуть том нельзя такой им
более всегда конечно всю между это эта как
"""
_STOP = frozenset(_COMMON.split())


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")


def _stem(word: str) -> str:
    if word.isascii():
        if len(word) < 4 or not word.isalpha():
            return word
        for ending in _EN_ENDINGS:
            if word.endswith(ending):
                rest = word[: -len(ending)]
                if len(rest) < 3 or not _VOWEL.search(rest) or (ending == "s" and rest.endswith(("s", "u", "i"))):
                    continue
                word = rest + "y" if ending == "ies" else rest
                break
        return word[:-1] if len(word) > 3 and word.endswith("e") else word
    if _CYRILLIC.match(word) and len(word) > 3:
        if len(word) > 5 and word.endswith(("ся", "сь")):
            word = word[:-2]
        for ending in _RU:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                return word[: -len(ending)]
    return word


def _words(text: str) -> list[str]:
    out: list[str] = []
    for word in _WORD.findall(_fold(text)):
        if _CJK.search(word):  # no blanks between words: pairs of characters stand for them
            out.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            out.append(word)
    return out


def stems(text: str) -> list[str]:
    """Stems of all words, in order."""
    return [_stem(word) for word in _words(text)]


def content_stems(text: str) -> list[str]:
    """Stems of the words that say something, in order; all stems where every word is a common one."""
    words = _words(text)
    telling = [word for word in words if word not in _STOP]
    return [_stem(word) for word in telling or words]


def shingles(words: Sequence[str], size: int = 3) -> set[tuple[str, ...]]:
    """All runs of ``size`` words; a shorter text is one run."""
    if len(words) <= size:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def jaccard(first: Iterable[str], second: Iterable[str]) -> float:
    """Share of common members in two sets, from 0 to 1."""
    a, b = set(first), set(second)
    return len(a & b) / len(a | b) if a or b else 1.0


_ASKING = re.compile(
    r"\s*(?:what|who|whom|whose|which|when|where|why|how|do|does|did|is|are|was|were|can|could|will|would|should|"
    r"что|кто|кого|кому|чей|какой|какая|какое|какие|когда|где|куда|откуда|почему|зачем|как|сколько|разве|помнишь)\b",
    re.IGNORECASE,
)


def is_question(text: str) -> bool:
    """Whether a text asks rather than states: it ends with a question mark, or begins as questions do."""
    stripped = text.rstrip(" \t\n\"'»”)")
    return stripped.endswith(("?", "？", "؟")) or (not stripped.endswith((".", "!")) and bool(_ASKING.match(text)))
