"""SceneMemory: the scenes of the past, kept durably and found again when they matter.

Threads: one object may be shared between threads; its calls wait for each other. Processes: any number may open one
folder; reads don't wait, writes wait for each other (up to ten seconds, then MemoryStoreError). A memory doesn't
survive a fork: open it again in the child.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar, cast

from ltm_edge.errors import InputError, LtmError, MemoryStoreError
from ltm_edge.memory import consolidate as levels
from ltm_edge.memory import folders, forgetting
from ltm_edge.memory.exchange import Imported, export_scenes, import_scenes
from ltm_edge.memory.facts import facts_of, related_words
from ltm_edge.memory.hygiene import contradicted, echo_share, says_the_same, used
from ltm_edge.memory.integration_log import IntegrationLog
from ltm_edge.memory.integrator import Integrator
from ltm_edge.memory.protocols import CountTokens, Embedder, Floats, Notice, Progress, Summarise
from ltm_edge.memory.recall import Query, Recaller, estimate_tokens
from ltm_edge.memory.records import (
    ARC,
    SAGA,
    SCENE,
    Added,
    Forgotten,
    Link,
    Policy,
    Recall,
    Stats,
    StoredScene,
    microseconds,
)
from ltm_edge.memory.spaces import Embedded, Spaces
from ltm_edge.memory.store import STORE_NAME, SceneStore
from ltm_edge.memory.words import match_query
from ltm_edge.paths import data_dir
from ltm_edge.scene.clean import clean_request
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene

__all__ = ["Chain", "SceneMemory", "memory_folder"]

Moment = datetime | float | int | None

_CHAIN = 1000  # scenes of one chain
_NEAR = 8  # scenes that a new one is compared with
_STATING = 64  # older statements that a new one is compared with
_NAME_CHARS = 200

Method = TypeVar("Method", bound=Callable[..., Any])


def memory_folder(name: str = "default") -> Path:
    """The folder of a memory in the user's data folder; it may not exist yet.

    Raises:
        InputError: the name could leave the folder of memories.
    """
    import re

    if not re.fullmatch(r"[^\W_][\w.-]{0,63}", name) or name.endswith(".") or ".." in name:
        raise InputError(
            f"memory name {name!r}: use 1 to 64 letters, digits or . _ -, starting with a letter or a digit"
        )
    return data_dir() / "memory" / name


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain (сцепка) that a scene stands in.

    Attributes:
        scenes: oldest first; of an arc its members.
        summaries: arcs and sagas above them.
    """

    scenes: tuple[StoredScene, ...]
    summaries: tuple[StoredScene, ...]


def _exclusive(method: Method) -> Method:
    @functools.wraps(method)
    def call(self: SceneMemory, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._check()
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


class SceneMemory:
    """The scene memory (резонансная память, фрактальная сцепка сцен) of one folder.

    Attributes:
        folder: where it lies: the store of record, the index files (a cache), meta.json, integration_log.json.
        policy: the numbers it works by.
    """

    def __init__(
        self,
        folder: Path,
        store: SceneStore,
        embedders: Callable[[], Sequence[Embedder]],
        policy: Policy,
        archetype_ids: Mapping[str, str],
        notice: Notice | None,
        progress: Progress | None,
    ) -> None:
        """Use :meth:`open`."""
        self.folder = folder
        self.policy = policy
        self._store: SceneStore = store
        self._embedders = embedders
        self._spaces: Spaces | None = None
        self._notice: Notice = notice or (lambda message: None)
        self._progress = progress
        self._recaller = Recaller(store, policy, {name.casefold(): key for name, key in archetype_ids.items()})
        self._integrator = Integrator(store, policy)
        self._log = IntegrationLog(folder)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._closed = False
        self._failed: set[str] = set()

    @staticmethod
    def open(
        path: str | os.PathLike[str] | None = None,
        embedder: Embedder | Callable[[], Embedder] | None = None,
        *,
        fallback: Embedder | Callable[[], Embedder] | None = None,
        policy: Policy | None = None,
        archetype_ids: Mapping[str, str] | None = None,
        notice: Notice | None = None,
        progress: Progress | None = None,
        timeout: float = 10.0,
    ) -> SceneMemory:
        """Open the memory of a folder; it is made if it isn't there.

        Embedders are asked for when they are first needed. Scenes that the present ones haven't seen (a memory made
        with another embedder) are embedded then.

        Args:
            path: the folder; None: ``memory/default`` in the user's data folder.
            embedder: turns texts into vectors, or what makes it; None: the demo embedder.
            fallback: embeds what the embedder's vocabulary can't represent, in a vector space of its own.
            policy: numbers; None: the defaults, which are the packaged overlay's.
            archetype_ids: archetype id by name, over all languages.
            notice: gets sentences for the user.
            progress: gets (done, all) while scenes are embedded again.
            timeout: seconds to wait for another process that writes.

        Raises:
            MemoryStoreError: can't be read, damaged, of a newer version, or in use for too long.
        """
        folder = Path(path).expanduser() if path is not None else memory_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MemoryStoreError(f"{folder}: can't be made: {error.strerror}; name another folder") from None
        store = SceneStore(folder / STORE_NAME, timeout=timeout)

        def embedders() -> list[Embedder]:
            made = [_made(embedder if embedder is not None else _demo_embedder)]
            return [*made, _made(fallback)] if fallback is not None else made

        return SceneMemory(folder, store, embedders, policy or Policy(), archetype_ids or {}, notice, progress)

    # Adding.

    @_exclusive
    def add(
        self,
        scene: Scene,
        *,
        text: str = "",
        session: str = "",
        template: str = "",
        phase: str | None = None,
        provenance: str = "said",
        predecessor: int | None = None,
        recalled: Sequence[int] = (),
        at: Moment = None,
        keys: Sequence[str] = (),
        pinned: bool = False,
    ) -> Added:
        """Store one turn, whole or not at all; it is on disk when this returns.

        What was recalled for the turn is not stored as new: a response that repeats it is kept as part of the turn but
        never found by it, and a turn in which nothing is new only strengthens the scene it repeats. A turn that says
        the same as an older one strengthens that. One that contradicts an older one supersedes it, which stays
        readable. Recalled scenes whose words the response took up grow stronger.

        Args:
            scene: the accepted scene.
            text: what the person said.
            session, template, phase, provenance: where it comes from.
            predecessor: id of the scene before it; None: the last one of the session.
            recalled: ids of the scenes that were recalled for this turn.
            at: when it was told; None: now, a number is seconds since 1970.
            keys: further words it is found by.
            pinned: always a candidate, never decays.

        Raises:
            MemoryStoreError: read-only, disk full, damaged, or in use by another process for too long.
            InputError, SchemaError: the scene or the text isn't one.
        """
        scene = Scene.from_dict(scene.to_dict())
        text, _ = clean_request(text)
        for name, value in (("session", session), ("template", template), ("phase", phase or ""),
                            ("provenance", provenance)):  # fmt: skip
            _check_name(name, value)
        moment = microseconds(at)
        store, policy = self._store, self.policy
        before = store.get_many(recalled)
        echo = False
        if before:
            echo = echo_share(scene.response, before) >= policy.echo_overlap
            if echo and (not text or echo_share(text, before) >= policy.echo_overlap):
                return self._repeated(scene, text, before, moment)
        vectors = self._embed(scene, text, echo)
        near = self._near(vectors)
        same = self._same(scene, text, near, pinned)
        if same is not None:
            with store.transaction():
                self._integrator.strengthen([same.id], by="repetition", at=moment)
            return Added(same.id, "strengthened")
        older = self._contradicted(text, near)
        with store.transaction():
            if predecessor is None and session:
                predecessor = store.last_of_session(session)
            number = store.insert(
                scene,
                text=text,
                session=session,
                template=template,
                phase=phase,
                provenance=provenance,
                created=moment,
                strength=policy.strength,
                keys=keys,
                pinned=pinned,
                echo=echo,
            )
            self._insert_vectors(number, vectors)
            if predecessor is not None and store.get(predecessor) is not None:
                store.link(Link(number, predecessor, "predecessor"))
            for one in before:
                store.link(Link(number, one.id, "recalled"))
            for one in older:
                store.supersede(one.id, number, moment)
                store.event("superseded", one.id, moment, by=number)
            store.event("added", number, moment)
            taken = [one.id for one in before if used(text, scene.response, one)]
            self._integrator.strengthen(taken, by="use", at=moment)
        return Added(number, "added", tuple(one.id for one in older))

    def _repeated(self, scene: Scene, text: str, before: Sequence[StoredScene], moment: int) -> Added:
        original = max(before, key=lambda one: (echo_share(f"{text}\n{scene.response}", [one]), -one.id))
        with self._store.transaction():
            self._integrator.strengthen([original.id], by="repetition", at=moment)
        return Added(original.id, "echo")

    def _embed(self, scene: Scene, text: str, echo: bool) -> Embedded | bool | None:
        """Vectors; None if no embedder covers the scene; False if the embedder failed, which must not cost the turn."""
        spaces = self._open_spaces()
        if spaces is None:
            return False
        try:
            return spaces.embed_scene(scene, text, echo=echo)
        except LtmError as error:
            self._degrade(f"{error}; scenes are stored without vectors and embedded later")
            return False

    def _insert_vectors(self, number: int, vectors: Embedded | bool | None) -> None:
        if self._spaces is not None and not isinstance(vectors, bool):
            self._spaces.insert(number, vectors)

    def _near(self, vectors: Embedded | bool | None) -> list[tuple[int, float]]:
        """Ids and cosines of the nearest scenes."""
        if self._spaces is None or vectors is None or isinstance(vectors, bool):
            return []
        space = next(one for one in self._spaces.all if one.number == vectors.space)
        return self._spaces.nearest(space, vectors.meaning, _NEAR)

    def _same(self, scene: Scene, text: str, near: Sequence[tuple[int, float]], pinned: bool) -> StoredScene | None:
        alike = self._store.alike(text, scene.response, _NEAR)
        alike += self._store.get_many(number for number, cosine in near if cosine >= self.policy.duplicate_cosine)
        for one in alike:
            comparable = one.superseded_by is None and one.level == SCENE and one.pinned == pinned
            if comparable and says_the_same(text, scene.response, one, self.policy):
                return one
        return None

    def _contradicted(self, text: str, near: Sequence[tuple[int, float]]) -> list[StoredScene]:
        facts = facts_of(text)
        if not facts:
            return []
        found = self._store.match(
            match_query(related_words(facts)), _STATING, where="scenes.level = 0 AND scenes.superseded_by IS NULL"
        )
        numbers = dict.fromkeys([*(number for number, _ in found), *(number for number, _ in near)])
        return [one for one in contradicted(text, self._store.get_many(numbers)) if one.level == SCENE]

    @_exclusive
    def edit(
        self,
        number: int,
        scene: Scene | None = None,
        *,
        text: str | None = None,
        keys: Sequence[str] | None = None,
        at: Moment = None,
    ) -> Added:
        """Replace a scene by a new version; the old one stays readable as history until either is forgotten.

        Raises:
            InputError: no such scene, or nothing to change.
            MemoryStoreError: can't be written.
        """
        old = self._get(number)
        if old.superseded_by is not None:
            raise InputError(f"scene {number}: was superseded by scene {old.superseded_by}; edit that one")
        record = Scene.from_dict(scene.to_dict()) if scene is not None else old.scene
        said = clean_request(text)[0] if text is not None else old.text
        words = tuple(keys) if keys is not None else old.keys
        if (record, said, words) == (old.scene, old.text, old.keys):
            raise InputError(f"scene {number}: nothing was changed")
        vectors = self._embed(record, said, False)
        moment = microseconds(at)
        store = self._store
        with store.transaction():
            new = store.insert(
                record,
                text=said,
                session=old.session,
                template=old.template,
                phase=old.phase,
                provenance="edited",
                created=old.created,
                strength=old.strength,
                strengthened=old.strengthened,
                keys=words,
                level=old.level,
                pinned=old.pinned,
            )
            self._insert_vectors(new, vectors)
            for link in store.links(number):
                if link.source == number and link.kind in ("predecessor", "recalled", "part_of"):
                    store.link(replace(link, source=new))
                elif link.target == number and link.kind == "part_of":
                    store.link(replace(link, target=new))
            store.supersede(number, new, moment)
            store.event("edited", new, moment, old=number)
        return Added(new, "added", (number,))

    @_exclusive
    def pin(self, number: int, pinned: bool = True, *, at: Moment = None) -> None:
        """Pin a scene, so that it is always a candidate and never decays, or unpin it.

        Raises:
            InputError: no such scene.
        """
        self._get(number)
        with self._store.transaction():
            moment = microseconds(at)
            self._store.run(
                "UPDATE scenes SET pinned = ?, strengthened = ? WHERE id = ? AND pinned <> ?",
                (pinned, moment, number, pinned),
            )
            self._store.event("pinned" if pinned else "unpinned", number, moment)

    @_exclusive
    def strengthen(self, numbers: Iterable[int], *, by: str = "use", at: Moment = None) -> None:
        """Strengthen scenes that proved useful; `by` says how and stands in the integration log."""
        with self._store.transaction():
            self._integrator.strengthen(numbers, by=by, at=microseconds(at))

    @_exclusive
    def weaken(self, numbers: Iterable[int], *, by: str = "use", at: Moment = None) -> None:
        """Halve the strength of scenes that misled."""
        with self._store.transaction():
            self._integrator.weaken(numbers, by=by, at=microseconds(at))

    # Finding.

    @_exclusive
    def recall(
        self,
        query: Pvq | str,
        k: int | None = None,
        *,
        will: str | None = None,
        chain_depth: int | None = None,
        budget_tokens: int | None = None,
        count_tokens: CountTokens | None = None,
        session: str | None = None,
        exclude: Iterable[int] = (),
        history: bool = False,
        at: Moment = None,
    ) -> list[Recall]:
        """The scenes that resonate most with a request, followed by what hangs on them in their chains.

        Superseded scenes give way to the newer ones unless ``history`` is asked for.

        Args:
            query: what was said, or a PVQ; its tension, goal and archetypes count if they are given.
            k: hits, at most; None: the policy's.
            will: the goal that scenes' centres are compared with; None: the PVQ's own.
            chain_depth: links followed from a hit; None: the policy's.
            budget_tokens: of all notes together; None: the policy's; 0 or less: without limit.
            count_tokens: of a text; None: an estimate.
            session: only scenes of this session.
            exclude: ids that aren't wanted.
            history: superseded scenes count as well.
            at: the moment from which ages count; None: now.

        Returns:
            Hits by score, then the scenes along their chains, all within the budget. Empty for an empty query.
        """
        pvq = query if isinstance(query, Pvq) else Pvq(query)
        text, _ = clean_request(pvq.text)
        if not text.strip():
            return []
        tension = pvq.scene.get("tension")
        ask = Query(
            text=text,
            tension=tension if isinstance(tension, str) else "",
            will=(will if will is not None else pvq.goal) or "",
            archetypes=pvq.archetype,
            at=microseconds(at),
            session=session,
            exclude=frozenset(exclude),
            history=history,
        )
        budget = self.policy.budget_tokens if budget_tokens is None else budget_tokens
        spaces = self._open_spaces()
        call = functools.partial(
            self._recaller.recall,
            query=ask,
            k=self.policy.recall if k is None else k,
            chain_depth=self.policy.chain_depth if chain_depth is None else chain_depth,
            budget_tokens=budget if budget > 0 else None,
            count_tokens=count_tokens or estimate_tokens,
        )
        try:
            return call(spaces)
        except LtmError as error:
            if spaces is None or not self._store_works():
                raise
            self._degrade(f"{error}; this recall goes by words only")
            return call(None)

    @_exclusive
    def get(self, reference: int | str) -> StoredScene | None:
        """A scene by its id, its uid or the beginning of its uid (six digits at least); None where there is none.

        Raises:
            InputError: several scenes' uids begin so.
        """
        if isinstance(reference, int) or reference.isdecimal():
            found = self._store.get(int(reference)) if abs(int(reference)) < 2**63 else None
            if found is not None or isinstance(reference, int) or len(reference) < 6:
                return found
        matches = self._store.by_uid(str(reference)) if len(reference) >= 6 else []
        if len(matches) > 1:
            raise InputError(f"{reference!r}: several scenes' uids begin so; give more digits")
        return matches[0] if matches else None

    @_exclusive
    def scenes(
        self,
        *,
        session: str | None = None,
        level: int | None = None,
        pinned: bool = False,
        history: bool = True,
        limit: int | None = None,
    ) -> list[StoredScene]:
        """Scenes, newest first."""
        clauses, values = ["1"], []  # type: tuple[list[str], list[Any]]
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
        return self._store.select(
            " AND ".join(clauses), values, order="created DESC, id DESC", limit=-1 if limit is None else limit
        )

    @_exclusive
    def links(self, number: int | None = None) -> list[Link]:
        """Links from and to a scene, or all."""
        return self._store.links(number)

    @_exclusive
    def chain(self, number: int) -> Chain:
        """The chain that a scene stands in: all before and after it, and the summaries above.

        Raises:
            InputError: no such scene.
        """
        scene = self._get(number)
        if scene.level > SCENE:
            members = self._store.get_many(self._store.sources(number, "part_of"))
            members.sort(key=lambda one: (one.created, one.id))
            return Chain(tuple(members), (scene, *self._above([number])))
        depth = _CHAIN
        found = [one for one, via, _ in self._recaller.neighbours(scene, depth) if via != "arc"][:_CHAIN]
        scenes = sorted([scene, *found], key=lambda one: (one.created, one.id))
        return Chain(tuple(scenes), tuple(self._above(one.id for one in scenes)))

    def _above(self, numbers: Iterable[int]) -> list[StoredScene]:
        found: dict[int, None] = {}
        edge = list(numbers)
        while edge:
            edge = [up for one in edge for up in self._store.targets(one, "part_of") if up not in found]
            found.update(dict.fromkeys(edge))
        return self._store.get_many(found)

    def _get(self, number: int) -> StoredScene:
        found = self._store.get(number)
        if found is None:
            raise InputError(f"no scene {number} in {self.folder}; `ltm-edge memory list` shows them")
        return found

    # Forgetting.

    @_exclusive
    def forget(
        self,
        *numbers: int,
        query: str | None = None,
        before: Moment = None,
        session: str | None = None,
        dry_run: bool = False,
        at: Moment = None,
    ) -> Forgotten:
        """Forget scenes for good, with the versions they replaced by edits and the summaries written from them.

        The chain closes over the gap. Deleted words are overwritten in the store; what the database and the index keep
        in passing goes with :meth:`compact`.

        Args:
            numbers: ids.
            query: scenes in which all these words stand.
            before: scenes told before this moment.
            session: scenes of this session. Where several conditions are given all must hold.
            dry_run: only say what would go.
            at: now.

        Raises:
            InputError: no condition at all, or no such scene.
        """
        if not numbers and query is None and before is None and session is None:
            raise InputError("forget: say what: ids, a query, a date or a session")
        chosen = {number: self._get(number) for number in numbers}
        if query is not None or before is not None or session is not None:
            least = None if before is None else microseconds(before)
            matching = {one.id: one for one in forgetting.matching(self._store, query, least, session)}
            chosen = {key: one for key, one in chosen.items() if key in matching} if numbers else matching
        going = forgetting.with_dependants(self._store, list(chosen.values()))
        if dry_run or not going.all:
            return going
        return forgetting.forget_scenes(self._store, going, microseconds(at))

    # Levels.

    @_exclusive
    def consolidate(
        self, *, session: str | None = None, summarise: Summarise | None = None, at: Moment = None
    ) -> list[StoredScene]:
        """Write arcs of runs of linked, similar scenes, and sagas of arcs; returns the new ones.

        Running it again without new scenes does nothing. Nothing that is summarised changes.

        Args:
            session: arcs of this session only (sagas are always of all).
            summarise: writes a summary scene from its members, oldest first (a model under the arc template); None:
                summaries are put together from the members' own words.
            at: now.

        Raises:
            MemoryStoreError: can't be written.
        """
        moment = microseconds(at)

        def keep(level: int, run: Sequence[StoredScene], vectors: Mapping[int, Floats]) -> int:
            scene, how = levels.write_summary(run, vectors, summarise)
            found = self._embed(scene, "", False)
            with self._store.transaction():
                number = levels.insert_summary(self._store, level, scene, how, run, moment)
                self._insert_vectors(number, found)
            return number

        vectors = self._meanings([SCENE, ARC])
        runs = levels.open_runs(self._store, vectors, self.policy, session)
        made = [keep(ARC, run, vectors) for run in runs]
        vectors = self._meanings([ARC, SAGA])
        groups, joins = levels.open_sagas(self._store, vectors, self.policy)
        if joins:
            with self._store.transaction():
                for link in joins:
                    self._store.link(link)
        made += [keep(SAGA, group, vectors) for group in groups]
        self._log.follow(self._store)
        return self._store.get_many(made)

    def _meanings(self, wanted: Sequence[int]) -> dict[int, Floats]:
        spaces = self._open_spaces()
        if spaces is None:
            return {}
        found: dict[int, Floats] = {}
        marks = ",".join("?" * len(wanted))
        numbers = [row[0] for row in self._store.rows(f"SELECT id FROM scenes WHERE level IN ({marks})", wanted)]
        for space in spaces.all:
            for number, (meaning, _, _) in spaces.rows(space, numbers).items():
                found.setdefault(number, meaning)
        return found

    # The folder as a whole.

    @_exclusive
    def compact(self) -> None:
        """Rewrite all files without what was deleted, and drop vectors of embedders that aren't used any more.

        Raises:
            MemoryStoreError: another process is using the memory, or there is no room for a second copy.
        """
        spaces = self._open_spaces()
        self._log.follow(self._store)
        if spaces is not None:
            with self._store.transaction():
                spaces.drop_others()
        self._store.compact()
        for path in self.folder.glob(".*.tmp"):  # left by a process that was killed while it wrote
            with contextlib.suppress(OSError):
                path.unlink()
        if spaces is not None:
            spaces.compact()
        self._store.checkpoint()
        folders.write_meta(self._store, self.folder)

    @_exclusive
    def verify(self) -> list[str]:
        """What is wrong with the memory; nothing where all is well."""
        problems = self._store.integrity()
        if problems:
            return problems
        for number, record in self._store.unreadable():
            problems.append(f"scene {number}: its record can't be read: {record}")
        spaces = self._spaces
        for space in spaces.all if spaces is not None else ():
            index = spaces.follow(space) if spaces is not None else None
            rows = self._store.rows(
                "SELECT count(*) FROM embeddings WHERE space = ? AND length(meaning) > 0", (space.number,)
            )
            if index is not None and len(index) != rows[0][0]:
                problems.append(f"{space.path.name}: {len(index)} vectors, the store has {rows[0][0]}")
        return problems

    @_exclusive
    def stats(self) -> Stats:
        """Figures of the memory."""
        return folders.figures(self._store, self.folder)

    @_exclusive
    def export(self, file: IO[str]) -> int:
        """Write every scene and link as JSON Lines; returns the number of scenes. An import of it loses nothing."""
        return export_scenes(self._store, file)

    @_exclusive
    def import_(
        self, file: IO[bytes], *, name: str = "<import>", skip_bad: bool = False, progress: Progress | None = None
    ) -> Imported:
        """Take in JSON Lines as :meth:`export` writes them. Scenes that are here already are passed over.

        Args:
            file: the lines, as bytes.
            name: what to call it in messages.
            skip_bad: pass over lines that can't be read, and say which; else one such line keeps all out.
            progress: gets (done, all) while scenes are embedded.

        Raises:
            InputError: a line can't be read and ``skip_bad`` isn't set; nothing was imported then.
            MemoryStoreError: can't be written.
        """
        done = import_scenes(self._store, file, name=name, skip_bad=skip_bad)
        self.fill(progress)
        return done

    @_exclusive
    def export_file(self, path: str | os.PathLike[str]) -> int:
        """Write an export to a file, which it replaces as a whole; returns the number of scenes.

        Raises:
            MemoryStoreError: it can't be written.
        """
        return folders.export_file(self._store, Path(path))

    @_exclusive
    def export_faiss(self, folder: str | os.PathLike[str]) -> int:
        """Write the scenes that the first embedder covers as a FAISS folder; returns how many.

        Raises:
            InputError: faiss isn't installed, or the folder holds such files already.
        """
        from ltm_edge.memory.faiss_folder import write_folder

        spaces = self._open_spaces()
        if spaces is None or not spaces.all:
            raise InputError("a FAISS folder holds vectors, and there is no embedder to make them")
        space = spaces.all[0]
        scenes = self._store.select()
        vectors = {number: rows[0] for number, rows in spaces.rows(space, [one.id for one in scenes]).items()}
        return write_folder(Path(folder), scenes, vectors, space.embedder.id, space.embedder.dim)

    def import_path(
        self, path: str | os.PathLike[str], *, skip_bad: bool = False, progress: Progress | None = None
    ) -> Imported:
        """Take in a file or folder: an export, a character card or lorebook (as pinned scenes), a FAISS folder.

        Raises:
            InputError: none of these, or a part of it can't be taken.
        """
        source = Path(path)
        if source.is_dir():
            from ltm_edge.memory.faiss_folder import read_folder

            done = Imported()
            for scene, known in read_folder(source):
                added = self.add(scene, provenance="imported", **known)
                done.scenes += added.status == "added"
                done.known += added.status != "added"
            return done
        if source.suffix.lower() in (".png", ".json"):
            from ltm_edge.memory.cards import read_lore

            done = Imported()
            for lore in read_lore(source):
                added = self.add(lore.scene, keys=lore.keys, provenance=lore.provenance, pinned=True)
                done.scenes += added.status == "added"
                done.known += added.status != "added"
            return done
        try:
            with source.open("rb") as file:
                return self.import_(file, name=str(source), skip_bad=skip_bad, progress=progress)
        except OSError as error:
            raise InputError(f"{source}: can't be read: {error.strerror}") from None

    @_exclusive
    def fill(self, progress: Progress | None = None) -> int:
        """Embed the scenes that the present embedders haven't seen; returns how many that were.

        Every batch is kept, so that an interrupted run goes on where it was.
        """
        spaces = self._open_spaces(fill=False)
        if spaces is None or not self._store.writable:
            return 0
        try:
            return spaces.fill(progress or self._progress)
        except LtmError as error:
            if not self._store_works():
                raise
            self._degrade(f"{error}; scenes stay without vectors for now")
            return 0

    @_exclusive
    def pack(self, folder: str | os.PathLike[str]) -> int:
        """Write a clean copy of this memory into a folder that has none, such as a bundle's ``memory``.

        Returns:
            The number of scenes in it.

        Raises:
            MemoryStoreError: the folder holds a memory already, or can't be written.
        """
        return folders.pack(self._store, Path(folder))

    @_exclusive
    def seed(self, folder: str | os.PathLike[str]) -> int:
        """Take in the memory that a bundle brings, if this one is empty; returns the number of scenes taken.

        Args:
            folder: the bundle's ``memory`` folder; nothing in it is changed.

        Raises:
            MemoryStoreError: it isn't a memory, or of a newer version.
        """
        return folders.seed(self._store, Path(folder))

    def close(self) -> None:
        """Save the index, bring the log up to date and close the files. May be called more than once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if os.getpid() != self._pid:
                return
            try:
                if self._store.writable:
                    if self._spaces is not None:
                        self._spaces.close()
                    self._log.follow(self._store)
                    folders.write_meta(self._store, self.folder)
            except MemoryStoreError as error:
                self._notice(f"{error} (what was stored is safe)")
            finally:
                self._store.close()

    def __enter__(self) -> SceneMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What keeps it together.

    def _check(self) -> None:
        if self._closed:
            raise MemoryStoreError(f"{self.folder}: this memory is closed; open it again")
        if os.getpid() != self._pid:
            raise MemoryStoreError(f"{self.folder}: this memory was opened before a fork; open it again in the child")

    def _store_works(self) -> bool:
        try:
            self._store.rows("SELECT 1 FROM scenes LIMIT 1")
        except MemoryStoreError:
            return False
        return True

    def _open_spaces(self, *, fill: bool = True) -> Spaces | None:
        """The vector spaces; None where no embedder can be had, which is said once."""
        if self._spaces is None:
            try:
                self._spaces = Spaces(self._store, self.folder, self._embedders(), self.policy, self._notice)
            except LtmError as error:
                if not self._store_works():
                    raise
                self._degrade(f"{error}; scenes are found by their words only")
                return None
            if fill and self._store.writable:
                self.fill()
        return self._spaces

    def _degrade(self, message: str) -> None:
        if message not in self._failed:
            self._failed.add(message)
            self._notice(message)


def _made(embedder: Embedder | Callable[[], Embedder]) -> Embedder:
    made = embedder if hasattr(embedder, "embed") and not isinstance(embedder, type) else embedder()
    return cast("Embedder", made)


def _demo_embedder() -> Embedder:
    from ltm_edge.embedders import demo_embedder

    return demo_embedder()


def _check_name(what: str, value: str) -> None:
    if len(value) > _NAME_CHARS or any(ord(char) < 0x20 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise InputError(f"{what} {value[:40]!r}: at most {_NAME_CHARS} characters, none of them control characters")
