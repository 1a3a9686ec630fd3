"""What keeps junk out of a memory: the provenance firewall, near-duplicates, contradictions."""

from __future__ import annotations

from collections.abc import Sequence

from ltm_edge.memory.facts import contradicts, facts_of
from ltm_edge.memory.records import Policy, StoredScene
from ltm_edge.scene.words import content_stems, is_question, jaccard, shingles, stems

__all__ = ["contradicted", "echo_share", "says_the_same", "used"]

_MAX_WORDS = 4000  # of one text; what follows changes no verdict and costs time


def echo_share(text: str, recalled: Sequence[StoredScene]) -> float:
    """Share of a text's three-word sequences that stand in recalled scenes, from 0 to 1; 0 for an empty text.

    A text of which one recalled scene has every telling word counts as whole.
    """
    own = shingles(stems(text)[:_MAX_WORDS])
    if not own or not recalled:
        return 0.0
    # A short text is one run of its own; it is looked for at its own length.
    size = min(3, len(next(iter(own))))
    known: set[tuple[str, ...]] = set()
    for scene in recalled:
        for part in (scene.text, scene.scene.response, scene.scene.resonance_center):
            words = stems(part)[:_MAX_WORDS]
            if len(words) >= size:
                known |= shingles(words, size)
    return max(len(own & known) / len(own), _covered(text, recalled))


def _covered(text: str, recalled: Sequence[StoredScene]) -> float:
    """1 if every telling word of a text (three at least) stands in one recalled scene, in another order perhaps."""
    own = set(content_stems(text)[:_MAX_WORDS])
    if len(own) < 3:
        return 0.0
    return max(float(own <= set(content_stems(f"{one.text} {one.scene.response}")[:_MAX_WORDS])) for one in recalled)


def used(text: str, response: str, scene: StoredScene) -> bool:
    """Whether a response has words from a recalled scene that the request didn't have."""
    brought = set(content_stems(response)) - set(content_stems(text))
    return bool(brought & set(content_stems(f"{scene.text} {scene.scene.response}")))


def says_the_same(text: str, response: str, old: StoredScene, policy: Policy) -> bool:
    """Whether an old scene says what a new one says, word for word but for order and common words.

    A statement is the same whatever was answered; a question is the same only with the same answer.
    """
    said, told = content_stems(text), content_stems(old.text)
    if bool(said) != bool(told):
        return False
    if said:
        if jaccard(said, told) < policy.duplicate_words:
            return False
        if not is_question(text) and not is_question(old.text):
            return True
    return jaccard(content_stems(response), content_stems(old.scene.response)) >= policy.duplicate_words


def contradicted(text: str, older: Sequence[StoredScene]) -> list[StoredScene]:
    """Those of the older scenes in which the person said something that can't hold beside what is said now."""
    new = facts_of(text)
    if not new:
        return []
    found = []
    for scene in older:
        if scene.superseded_by is None and any(contradicts(a, b) for b in facts_of(scene.text) for a in new):
            found.append(scene)
    return found
