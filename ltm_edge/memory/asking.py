"""What a question is after besides its subject: how things stand now, a cause, a feeling; told from its words alone.

A question names its subject, and the scene that is most like it is often the one in which the subject was introduced.
The kind of question says in which direction from there the answer lies. It is read from function words and tenses of
English and Russian; where nothing is recognised a recall goes by resonance alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ltm_edge.scene.words import is_question

__all__ = ["Asking", "asking"]


@dataclass(frozen=True, slots=True)
class Asking:
    """What a text asks for; nothing where it isn't a question.

    Attributes:
        now: how things stand at present, so that the newer of two like scenes is meant.
        cause: why something was so, so that the scene that restates the question isn't the answer yet.
        feeling: what somebody felt, so that tensions tell more than contents.
    """

    now: bool = False
    cause: bool = False
    feeling: bool = False


_NOW = re.compile(
    r"\b(?:now|nowadays|these days|at the moment|at present|currently|presently|still|any ?more|today|finally|lately|"
    r"in the end|eventually|again|by now|so far|"
    r"теперь|сейчас|нынче|ныне|по-прежнему|всё ещё|все еще|ещё|сегодня|в итоге|наконец|в последнее время|снова|"
    r"опять)\b",
    re.IGNORECASE,
)
_PRESENT = re.compile(r"\s*(?:who|what|where|which|how|when|is|are|am|does|do|will|has|have)\b", re.IGNORECASE)
_PAST = re.compile(
    r"\b(?:did|was|were|had|made|could|would|got|came|went|said|took|gave|left|told|found|felt|kept|knew|thought|"
    r"\w*[a-z]{2}(?<!e)ed)\b",
    re.IGNORECASE,
)
_CAUSE = re.compile(
    r"\b(?:why|how come|how did|how could|reasons?|cause[sd]?|behind|what made|what makes|what led|what happened|"
    r"what changed|really about|thanks to what|почему|зачем|отчего|из-за (?:чего|кого)|с чего|причин\w*|"
    r"как (?:вышло|получилось|случилось))\b",
    re.IGNORECASE,
)
_WHY = re.compile(r"\s*(?:why|how come|почему|зачем|отчего)\b", re.IGNORECASE)
_FEELING = re.compile(
    r"\b(?:feel|feels|feeling|felt|happy|happiest|glad|furious|angry|anger|rage|ashamed|shame|despair\w*|upset|proud|"
    r"pride|frighten\w*|afraid|fear\w*|scared|terrified|cry|cried|weep|wept|tears|sad|lonely|touch(?:ed|ing)|"
    r"hurt\w*|moved|shook|shaken|comfort\w*|reliev\w*|relief|reproach\w*|guilt\w*|awful|calm|numb|worr(?:y|ied|ies)|"
    r"joy\w*|love[ds]?|hate[ds]?|regret\w*|feel bad|surprised|jealous|grateful|disappoint\w*|embarrass\w*|humiliat\w*|"
    r"чувств\w*|счастлив\w*|рад\w{0,2}|зл(?:юсь|ился|илась|ость\w*)|стыд\w*|вин[аы]|гор(?:дость\w*|жусь|дил\w*)|"
    r"страшно|страх\w*|боя\w*|испуг\w*|плак\w*|сл[её]з\w*|груст\w*|тоск\w*|одинок\w*|обид\w*|прост(?:ил|ила|или)|"
    r"растрога\w*|тронул\w*|радост\w*|люб(?:лю|ил|ила|овь)|ненави\w*|жале\w*|сожале\w*|тревог\w*|облегчен\w*)\b",
    re.IGNORECASE,
)


def asking(text: str) -> Asking:
    """What a text asks for."""
    if not is_question(text):
        return Asking()
    present = bool(_PRESENT.match(text)) and not _PAST.search(text)
    return Asking(
        now=(present or bool(_NOW.search(text))) and not _WHY.match(text),
        cause=bool(_CAUSE.search(text)),
        feeling=bool(_FEELING.search(text)),
    )
