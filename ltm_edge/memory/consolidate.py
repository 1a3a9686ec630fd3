"""Levels of memory: arcs of linked, similar scenes, and sagas of arcs (фрактальная сцепка).

Both are scenes themselves, written from their members and linked to them; nothing that is summarised changes. A run
looks only at what no summary covers yet, so that a second run does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ltm_edge.memory.protocols import Floats, Summarise
from ltm_edge.memory.records import ARC, LORE, SAGA, SCENE, Link, Policy, StoredScene
from ltm_edge.memory.store import SceneStore
from ltm_edge.memory.vectors import Unembedded, Vectors
from ltm_edge.scene.record import Scene

__all__ = ["cluster_arcs", "consolidate", "extract", "insert_summary", "open_runs", "open_sagas", "write_summary"]

_SENTENCE_CHARS = 160
_SUMMARY_LINES = 12


def consolidate(
    store: SceneStore,
    vectors: Vectors,
    policy: Policy,
    at: int,
    *,
    session: str | None = None,
    summarise: Summarise | None = None,
    embed: bool = True,
) -> list[int]:
    """Write arcs of what is in none yet, and sagas of arcs; returns the ids of the new ones.

    Every summary is stored for itself, so that a run that is stopped has done what it has done.

    Args:
        store, vectors, policy: of the memory.
        at: now, microseconds since 1970.
        session: arcs of this session only (sagas are always of all).
        summarise: writes a summary; None: from the members' own words.
        embed: give summaries their vectors now; else whoever fills the memory next does.
    """

    def keep(level: int, run: Sequence[StoredScene], meanings: Mapping[int, Floats]) -> int:
        scene, how = write_summary(run, meanings, summarise)
        found = vectors.embed(scene, "", False) if embed else Unembedded()
        with store.transaction():
            number = insert_summary(store, level, scene, how, run, at)
            vectors.insert(number, found)
        return number

    meanings = vectors.meanings(one.id for one in _free(store, session))
    made = [keep(ARC, run, meanings) for run in open_runs(store, meanings, policy, session)]
    meanings = vectors.meanings(row[0] for row in store.rows("SELECT id FROM scenes WHERE level > ?", (SCENE,)))
    groups, joins = open_sagas(store, meanings, policy)
    if joins:
        with store.transaction():
            for link in joins:
                store.link(link)
    return made + [keep(SAGA, group, meanings) for group in groups]


def _free(store: SceneStore, session: str | None) -> list[StoredScene]:
    """Scenes that belong to no arc yet, in the order of their sessions."""
    where = (
        "level = ? AND superseded_by IS NULL AND session <> '' AND NOT EXISTS "
        "(SELECT 1 FROM links WHERE source = scenes.id AND kind = 'part_of')"
    )
    values: list[object] = [SCENE]
    if session is not None:
        where += " AND session = ?"
        values.append(session)
    return store.select(where, values, order="session, created, id")


def open_runs(
    store: SceneStore, vectors: Mapping[int, Floats], policy: Policy, session: str | None = None
) -> list[list[StoredScene]]:
    """Runs of scenes that follow each other in one session, are alike, and belong to no arc yet.

    Args:
        store: where the scenes are.
        vectors: meaning by id, float32 [dim]; neighbours without one count as alike.
        policy: how alike (cosine of neighbours), how few and how many.
        session: only this one; None: all.
    """
    runs: list[list[StoredScene]] = []
    for scene in _free(store, session):
        if scene.provenance in LORE:  # nobody's story
            continue
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and last.session == scene.session
            and len(runs[-1]) < policy.arc_max
            and _alike(last.id, scene.id, vectors, policy.arc_cosine)
        ):
            runs[-1].append(scene)
        else:
            runs.append([scene])
    return [run for run in runs if len(run) >= policy.arc_min]


def _alike(first: int, second: int, vectors: Mapping[int, Floats], least: float) -> bool:
    a, b = vectors.get(first), vectors.get(second)
    return a is None or b is None or len(a) != len(b) or float(a @ b) >= least


def open_sagas(
    store: SceneStore, vectors: Mapping[int, Floats], policy: Policy
) -> tuple[list[list[StoredScene]], list[Link]]:
    """Groups of arcs that belong to no saga yet, and links of such arcs to sagas that there are.

    Arcs belong together if their meanings are alike, or if a scene of one was recalled for a scene of the other.
    """
    arcs = store.select(
        "level = ? AND NOT EXISTS (SELECT 1 FROM links WHERE source = scenes.id AND kind = 'part_of')", (ARC,)
    )
    joins: list[Link] = []
    free: list[StoredScene] = []
    sagas = store.select("level = ?", (SAGA,))
    for arc in arcs:
        near = [(_cosine(vectors.get(arc.id), vectors.get(saga.id)), saga.id) for saga in sagas]
        best = max(near, default=(0.0, 0))
        if best[0] >= policy.saga_cosine:
            joins.append(Link(arc.id, best[1], "part_of", round(best[0], 4)))
        else:
            free.append(arc)
    return [group for group in cluster_arcs(store, free, vectors, policy.saga_cosine) if len(group) > 1], joins


def cluster_arcs(
    store: SceneStore, arcs: Sequence[StoredScene], vectors: Mapping[int, Floats], least: float
) -> list[list[StoredScene]]:
    """Arcs in groups by average linkage: two groups join while their mean likeness is at least ``least``."""
    n = len(arcs)
    likeness = _likeness([vectors.get(arc.id) for arc in arcs])
    member_of = {member: i for i, arc in enumerate(arcs) for member in store.sources(arc.id, "part_of")}
    for member, i in member_of.items():
        for target in store.targets(member, "recalled"):
            other = member_of.get(target, i)
            if other != i:
                likeness[i, other] = likeness[other, i] = 1.0
    np.fill_diagonal(likeness, -np.inf)
    groups: list[list[int]] = [[i] for i in range(n)]
    while n > 1:
        i, j = sorted(divmod(int(likeness.argmax()), n))
        if not likeness[i, j] >= least:
            break
        # The mean over all pairs of two groups, from the means of those that were joined (Lance and Williams 1967).
        a, b = len(groups[i]), len(groups[j])
        row = (a * likeness[i] + b * likeness[j]) / (a + b)
        likeness[i, :], likeness[:, i] = row, row
        likeness[i, i] = likeness[j, :] = likeness[:, j] = -np.inf
        groups[i] += groups[j]
        groups[j] = []
    return [[arcs[i] for i in sorted(group)] for group in groups if group]


def _likeness(vectors: Sequence[Floats | None]) -> npt.NDArray[np.float64]:
    """Cosines of all pairs, float64 [n, n]; 0 where one has no vector, or they are of different spaces."""
    likeness = np.zeros((len(vectors), len(vectors)))
    for dim in {len(one) for one in vectors if one is not None}:
        places = np.array([i for i, one in enumerate(vectors) if one is not None and len(one) == dim])
        table = np.stack([one for one in vectors if one is not None and len(one) == dim])
        likeness[np.ix_(places, places)] = np.minimum(table @ table.T, 1.0)
    return likeness


def _cosine(first: Floats | None, second: Floats | None) -> float:
    if first is None or second is None or len(first) != len(second):
        return 0.0
    return min(1.0, float(first @ second))  # stored as float16, a vector may be a little longer than 1


def extract(members: Sequence[StoredScene], vectors: Mapping[int, Floats]) -> Scene:
    """A summary without a model, from the members' own words.

    The commonest actors and archetypes, tension and centre of the most central member, and of each member, oldest
    first, the first sentence that was said or answered.
    """
    central = _central(members, vectors)
    actors = Counter(actor for one in members for actor in one.scene.actors)
    archetypes = Counter(name for one in members for name in one.scene.archetype)
    shown = members if len(members) <= _SUMMARY_LINES else _spread(members)
    lines = [_first_sentence(one.text or one.scene.response) for one in shown]
    return Scene(
        actors=tuple(actor for actor, _ in actors.most_common(4)),
        tension=central.scene.tension,
        archetype=tuple(name for name, _ in archetypes.most_common(2)),
        resonance_center=central.scene.resonance_center,
        response="\n".join(dict.fromkeys(line for line in lines if line)) or central.scene.response,
    )


def _spread(members: Sequence[StoredScene]) -> list[StoredScene]:
    places = np.linspace(0, len(members) - 1, _SUMMARY_LINES).round().astype(int)
    return [members[int(i)] for i in places]


def _central(members: Sequence[StoredScene], vectors: Mapping[int, Floats]) -> StoredScene:
    known = [one for one in members if one.id in vectors]
    if not known or len({len(vectors[one.id]) for one in known}) != 1:
        return members[len(members) // 2]
    table = np.stack([vectors[one.id] for one in known])
    return known[int((table @ table.mean(axis=0)).argmax())]


def _first_sentence(text: str) -> str:
    plain = " ".join(text.split())
    for i, char in enumerate(plain):
        if char in ".!?…" and (i + 1 == len(plain) or plain[i + 1] == " ") and i >= 8:
            plain = plain[: i + 1]
            break
    return plain if len(plain) <= _SENTENCE_CHARS else plain[: _SENTENCE_CHARS - 1].rstrip() + "…"


def write_summary(
    members: Sequence[StoredScene], vectors: Mapping[int, Floats], summarise: Summarise | None
) -> tuple[Scene, str]:
    """The summary scene of some members, and how it was written: ``model`` or ``extract``."""
    if summarise is not None:
        return Scene.from_dict(summarise(members).to_dict(), "<summary>"), "model"
    return extract(members, vectors), "extract"


def insert_summary(
    store: SceneStore, level: int, scene: Scene, how: str, members: Sequence[StoredScene], at: int
) -> int:
    """Store a summary and link its members to it, inside a transaction; returns its id."""
    session = members[0].session if len({one.session for one in members}) == 1 else ""
    number = store.insert(
        scene,
        text="",
        session=session,
        template="arc",
        phase=members[-1].phase,
        provenance="summary",
        created=members[-1].created,
        strength=max(one.strength for one in members),
        strengthened=members[-1].strengthened,
        level=level,
    )
    for one in members:
        store.link(Link(one.id, number, "part_of"))
    store.event("consolidated", number, at, by=how, members=len(members))
    return number
