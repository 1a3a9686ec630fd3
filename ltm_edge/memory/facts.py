"""What a person states about themselves and theirs, so far as one can tell without a model.

A fact is (subject, attribute, value). Only attributes that have one value at a time are looked for (where someone
lives or works, a name, an age, a number, a favourite, when something takes place), in sentences of a few fixed shapes
in English and Russian. Two facts contradict each other if subject and attribute are the same and the values share no
word, or if one denies what the other says.

That misses most contradictions on purpose: "I bought apples" and "I bought pears" are
both true, and a scene that wrongly gave way is a worse fault than two that stand side by side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ltm_edge.scene.words import content_stems, is_question, stems

__all__ = ["Fact", "contradicts", "facts_of", "related_words"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement.

    Attributes:
        subject: stems of whom or what it is about; ``("i",)`` for the speaker.
        attribute: what is stated of it.
        value: stems of the value.
        denied: the sentence says that it is not (or no longer) so.
    """

    subject: tuple[str, ...]
    attribute: str
    value: frozenset[str]
    denied: bool = False


# "His name" is another one's in every conversation, so pronouns of the third person are nobody.
_WHO = r"(?P<who>(?:i|we|my(?: \w+){1,3}?|our(?: \w+){1,2}?|(?-i:(?!(?:He|She|They|It|You|This|That)\b)[A-Z])\w+))"
_THING = r"(?P<who>(?:my|our|the)(?: [\w-]+){1,3}?)"
_NOW = r"(?: (?:now|currently|recently|just|finally|still|also|actually|have|has|had|'ve))*"
_NOT = r"(?P<not> (?:no longer|never|do not|don't|does not|doesn't|am not|is not|isn't))?"
_VALUE = r"(?P<value>[^,;:()\n]{1,60}?)(?= (?:now|anymore|any more|since|because|and|but|so|instead)\b|[,;:()\n]|$)"
_KTO = r"(?P<who>я|мы|мо[йяи] \w+|наш\w? \w+|(?-i:(?!(?:Он|Она|Они|Оно|Ты|Вы|Это)\b)[А-ЯЁ])\w+)"
_UZHE = r"(?: (?:теперь|сейчас|недавно|уже|снова|всё ещё|все еще))*"
_NE = r"(?P<not> (?:больше не|уже не|не))?"
_ZNACH = r"(?P<value>[^,;:()\n]{1,60}?)(?= (?:теперь|сейчас|потому|и|а|но|с)\b|[,;:()\n]|$)"
_ESTJ = r"(?: теперь(?: [—–-])?| это| ?[—–-](?: теперь| это)?)"
_MONTHS = (
    "january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|wednesday|"
    "thursday|friday|saturday|sunday|noon|midnight|tomorrow|tonight|today"
)
_DNI = (
    r"январ\w|феврал\w|марта?|апрел\w|ма[йя]|июн\w|июл\w|август\w?|сентябр\w|октябр\w|ноябр\w|декабр\w|понедельник\w?|"
    r"вторник\w?|сред[уаы]|четверг\w?|пятниц\w|суббот\w|воскресень\w|полдень|полночь|завтра|сегодня"
)
_ONE_VALUED = (
    "name|birthday|age|phone number|number|phone|email|e-mail|address|password|code|pin|surname|nickname|job|"
    "profession|boss|wife|husband|hometown|blood type|shoe size|size|weight|height|salary|rent|deadline"
)
_ODNO = (
    "имя|день рождения|возраст|телефон|номер|почта|адрес|пароль|код|фамилия|прозвище|работа|профессия|начальник|жена|"
    "муж|размер|вес|рост|зарплата|срок"
)

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (attribute, re.compile(pattern, re.IGNORECASE))
    for attribute, pattern in (
        (
            "lives",
            rf"\b{_WHO}{_NOW}{_NOT}{_NOW} (?:live|lives|living|moved|relocated|move) (?:in|to|at|back to) {_VALUE}",
        ),
        ("works", rf"\b{_WHO}{_NOW}{_NOT}{_NOW} (?:work|works|working) (?:at|for) {_VALUE}"),
        ("works", rf"\b{_WHO}{_NOW} (?:got|took|started|found) (?:a|my|the)(?: new)? job (?:at|with) {_VALUE}"),
        ("name", r"\b(?P<who>my name) is (?P<value>[\w' -]{1,40}?)(?=[,.;:!\n]|$)"),
        ("name", rf"\b{_THING} (?:is|was) (?:called|named) {_VALUE}"),
        ("name", rf"\b{_THING}'s name is(?P<not> not)? {_VALUE}"),
        ("age", rf"\b{_WHO}(?:'m|'s| am| is| turned){_NOW} (?P<value>\d{{1,3}})(?: years old)?(?=[,.;:!\n]|$)"),
        ("favourite", r"\bmy favou?rite (?P<who>\w+(?: \w+)?) (?:is|are)(?P<not> no longer| not)?" rf"{_NOW} {_VALUE}"),
        (
            "is",
            rf"\b(?P<who>(?:my|our)(?: \w+){{0,2}}? (?:{_ONE_VALUED})) is"
            rf"(?P<not> no longer| not)?{_NOW} {_VALUE}",
        ),
        (
            "when",
            rf"\b{_THING} (?:is|was|starts|leaves|begins|takes place|has been|will be|got)"
            r"(?: now)?(?: moved| scheduled| rescheduled| shifted| postponed)?(?: to| at| on| for)?"
            rf" (?P<value>[^,;()\n]*?(?:\d|\b(?:{_MONTHS})\b)[^,;()\n]{{0,20}})",
        ),
        ("when", rf"\b{_THING} (?:moved|shifted) to (?P<value>[^,;()\n]*?(?:\d|\b(?:{_MONTHS})\b)[^,;()\n]{{0,20}})"),
        ("lives", rf"\b{_KTO}{_UZHE}{_NE}{_UZHE} (?:жив[уёе]\w*|переехал\w*|перебрал\w*) (?:в|на|во) {_ZNACH}"),
        ("works", rf"\b{_KTO}{_UZHE}{_NE}{_UZHE} (?:работа[юе]\w*|устроил\w*(?: работать)?) (?:в|на|во) {_ZNACH}"),
        ("name", rf"\b(?P<who>меня|мо(?:ю|его|их) \w+|наш(?:у|его) \w+) зовут {_ZNACH}"),
        (
            "age",
            r"\b(?P<who>мне|мо(?:ей|ему) \w+)(?: уже| теперь| исполнилось)* "
            r"(?P<value>\d{1,3})(?: лет| год\w*)?(?=[,.;:!\n]|$)",
        ),
        ("favourite", rf"\bмо[йёеяи] любим\w+ (?P<who>\w+){_ESTJ} {_ZNACH}"),
        ("is", rf"\b(?P<who>мо[йёея](?: \w+)? (?:{_ODNO}|{_ODNO} \w+)){_ESTJ} {_ZNACH}"),
        (
            "when",
            r"\b(?P<who>(?:моя |мой |наша |наш )?(?:встреча|поезд|рейс|самол[её]т|экзамен|срок|свадьба|при[её]м|"
            r"урок|концерт|созвон|операция|собеседование))(?: у \w+)?(?: теперь| будет| перенес\w+| перенес[её]н\w*)* "
            rf"(?:в|на|во)? ?(?P<value>[^,;()\n]*?(?:\d|\b(?:{_DNI})\b)[^,;()\n]{{0,20}})",
        ),
    )
)

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")
_LEAVING = re.compile(r"\b(?:anymore|any more|no longer|больше не|уже не)\b", re.IGNORECASE)
_SPEAKER = {"i", "we", "my name", "я", "мы", "меня", "мне"}
_POSSESSIVES = frozenset({"my", "our", "the", "мой", "моя", "мои", "мое", "наш", "наша"})
_ARTICLES = frozenset({"a", "an", "the", "now", "just"})
_VALUE_WORDS = 6
MAX_SENTENCES = 40


def _subject(who: str) -> tuple[str, ...]:
    who = " ".join(who.casefold().replace("ё", "е").replace("colour", "color").split())
    if who in _SPEAKER:
        return ("i",)
    own = [word for word in who.split() if word not in _POSSESSIVES and not word.startswith(("мо", "наш"))]
    return tuple(stems(" ".join(own))) or ("i",)


def facts_of(text: str) -> list[Fact]:
    """The facts that a text states; questions state none."""
    found: list[Fact] = []
    for sentence in _SENTENCE.split(text)[:MAX_SENTENCES]:
        plain = " ".join(sentence.replace("’", "'").split())
        if not plain or len(plain) > 400 or is_question(plain):
            continue
        plain = plain.rstrip(".!… ")
        for attribute, pattern in _PATTERNS:
            match = pattern.search(plain)
            if match is None:
                continue
            value = [word for word in content_stems(match["value"]) if word not in _ARTICLES][:_VALUE_WORDS]
            if not value:
                continue
            denied = bool(match.groupdict().get("not")) or bool(_LEAVING.search(plain))
            found.append(Fact(_subject(match["who"]), attribute, frozenset(value), denied))
    return found


_RELATED = {
    "lives": "live lives living moved relocated живу живет живем переехал перебрался",
    "works": "work works working job работаю работает работа устроился",
    "name": "name called named зовут имя",
    "age": "years old turned am лет год исполнилось мне",
    "favourite": "favourite favorite любимый любимая",
    "is": "",
    "when": "",
}


def related_words(facts: list[Fact]) -> str:
    """Words by which older statements of the same attributes and subjects are found."""
    return " ".join(f"{_RELATED[fact.attribute]} {' '.join(fact.subject)}" for fact in facts)


def contradicts(new: Fact, old: Fact) -> bool:
    """Whether both can't hold at once. A denial alone contradicts what it denies, and nothing else."""
    if (new.subject, new.attribute) != (old.subject, old.attribute) or old.denied:
        return False
    shared = new.value & old.value
    if new.denied:
        return bool(shared)
    if _numbers(new.value) and _numbers(
        old.value
    ):  # "Friday at 5" and "Friday at 6"; but "at 9" and "Monday at 9" agree
        return not (new.value <= old.value or old.value <= new.value)
    return not shared


def _numbers(words: frozenset[str]) -> bool:
    return any(word.isdigit() for word in words)
