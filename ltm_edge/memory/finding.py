"""Finding scenes: by resonance with a request, by their names, by where they come from."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from ltm_edge.errors import InputError, LtmError
from ltm_edge.memory.protocols import CountTokens
from ltm_edge.memory.recall import Query, Recaller, estimate_tokens
from ltm_edge.memory.records import Policy, Recall, StoredScene
from ltm_edge.memory.store import SceneStore
from ltm_edge.memory.vectors import Vectors
from ltm_edge.scene.clean import clean_request
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.words import content_stems

__all__ = ["find_scene", "list_scenes", "recall_scenes"]


def recall_scenes(
    recaller: Recaller,
    vectors: Vectors,
    policy: Policy,
    query: Pvq | str,
    k: int | None,
    *,
    at: int,
    will: str | None = None,
    chain_depth: int | None = None,
    budget_tokens: int | None = None,
    count_tokens: CountTokens | None = None,
    session: str | None = None,
    exclude: Iterable[int] = (),
    history: bool = False,
    least: float = 0.0,
) -> list[Recall]:
    """Ask the recaller, with the policy's numbers where none are given; see ``SceneMemory.recall``."""
    pvq = query if isinstance(query, Pvq) else Pvq(query)
    text, _ = clean_request(pvq.text)
    if not text.strip():
        return []
    if will is not None and not isinstance(will, str):
        raise InputError(f"will: expected text, found a {type(will).__name__}")
    tension = pvq.scene.get("tension")
    ask = Query(
        text=text,
        tension=tension if isinstance(tension, str) else "",
        will=(will if will is not None else pvq.goal) or "",
        archetypes=pvq.archetype,
        at=at,
        session=session,
        exclude=frozenset(exclude),
        history=history,
    )
    budget = policy.budget_tokens if budget_tokens is None else budget_tokens
    spaces = vectors.open()
    call = functools.partial(
        recaller.recall,
        query=ask,
        k=policy.recall if k is None else k,
        chain_depth=policy.chain_depth if chain_depth is None else chain_depth,
        budget_tokens=budget if budget > 0 and least <= 0 else None,
        count_tokens=count_tokens or estimate_tokens,
    )
    try:
        found = call(spaces)
    except LtmError as error:
        if spaces is None:
            raise
        vectors.degrade(error, "this recall goes by words only")
        found = call(None)
    return _within(_telling(found, text, least), budget) if least > 0 else found


def _telling(found: Sequence[Recall], text: str, least: float) -> list[Recall]:
    """Hits that mean what was asked or stand among scenes that do, and what hangs on them.

    The score can't tell: its word part is relative to the best candidate, and a scene of yesterday has its recency
    whatever it is about. Where no vectors were compared, half of the telling words have to stand in the scene.
    """
    asked = set(content_stems(text))

    def tells(hit: Recall) -> bool:
        if hit.parts.get("meaning", 0.0) > 0:
            return max(hit.parts["meaning"], hit.parts.get("context", 0.0)) >= least
        scene = hit.scene
        there = set(content_stems(f"{scene.text} {scene.scene.response} {' '.join(scene.keys)}"))
        return bool(asked) and 2 * len(asked & there) >= len(asked)

    good = {hit.scene.id for hit in found if hit.parts and tells(hit)}
    return [hit for hit in found if (hit.scene.id if hit.parts else hit.of) in good]


def _within(found: Sequence[Recall], budget: int) -> list[Recall]:
    kept, left = [], budget
    for hit in found:
        if budget <= 0 or hit.tokens <= left:
            kept.append(hit)
            left -= hit.tokens
    return kept


def find_scene(store: SceneStore, reference: int | str) -> StoredScene | None:
    """A scene by its id, its uid or the beginning of its uid (six digits at least).

    Raises:
        InputError: several scenes' uids begin so, or it is neither number nor text.
    """
    if not isinstance(reference, (int, str)):
        raise InputError(f"a scene is named by its id or uid, found a {type(reference).__name__}")
    if isinstance(reference, int) or reference.isdecimal():
        found = store.get(int(reference)) if abs(int(reference)) < 2**63 else None
        if found is not None or isinstance(reference, int) or len(reference) < 6:
            return found
    matches = store.by_uid(str(reference)) if len(reference) >= 6 else []
    if len(matches) > 1:
        raise InputError(f"{reference!r}: several scenes' uids begin so; give more digits")
    return matches[0] if matches else None


def list_scenes(
    store: SceneStore, session: str | None, level: int | None, pinned: bool, history: bool, limit: int | None
) -> list[StoredScene]:
    """Scenes, newest first, that fulfil what is given."""
    clauses: list[str] = ["1"]
    values: list[object] = []
    if session is not None:
        clauses.append("session = ?")
        values.append(session)
    if level is not None:
        clauses.append("level = ?")
        values.append(level)
    if pinned:
        clauses.append("pinned = 1")
    if not history:
        clauses.append("superseded_by IS NULL")
    return store.select(
        " AND ".join(clauses), values, order="created DESC, id DESC", limit=-1 if limit is None else limit
    )
