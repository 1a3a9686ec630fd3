"""SceneMemory: the scenes of the past, kept durably and found again when they matter.

Threads: one object may be shared between threads; its calls wait for each other. Processes: any number may open one
folder; reads don't wait, writes wait for each other (up to ten seconds, then MemoryStoreError). A memory doesn't
survive a fork: open it again in the child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from ltm_edge.errors import InputError, MemoryStoreError
from ltm_edge.memory import consolidate as levels
from ltm_edge.memory import folders, forgetting
from ltm_edge.memory.adding import NewScene, SceneWriter
from ltm_edge.memory.chains import Chain, chain_of
from ltm_edge.memory.counting import ArchetypeCount, ChainCount, Counters
from ltm_edge.memory.exchange import Imported, export_scenes, import_scenes
from ltm_edge.memory.exclusive import exclusive
from ltm_edge.memory.finding import find_scene, list_scenes, recall_scenes
from ltm_edge.memory.integration_log import IntegrationLog, logged
from ltm_edge.memory.integrator import Integrator
from ltm_edge.memory.log_entries import LogEntry
from ltm_edge.memory.protocols import CountTokens, Embedder, Floats, Notice, Progress, Summarise
from ltm_edge.memory.recall import Recaller
from ltm_edge.memory.records import Added, Forgotten, Link, Policy, Recall, Stats, StoredScene, microseconds
from ltm_edge.memory.sources import foreign_scenes
from ltm_edge.memory.store import STORE_NAME, SceneStore
from ltm_edge.memory.vectors import BATCH, MakesEmbedder, Vectors
from ltm_edge.paths import memory_folder
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene

__all__ = ["Chain", "SceneMemory", "memory_folder"]

Moment = datetime | float | int | None


class SceneMemory:
    """The scene memory (резонансная память, фрактальная сцепка сцен) of one folder.

    >>> import tempfile
    >>> from ltm_edge import Scene, SceneMemory
    >>> roses = Scene(
    ...     actors=(("you", "gardener"),),
    ...     tension="care vs fatigue",
    ...     archetype=("gardener",),
    ...     resonance_center="the roses by the wall",
    ...     response="The roses by the wall want less water.",
    ... )
    >>> with tempfile.TemporaryDirectory() as folder, SceneMemory.open(folder) as memory:
    ...     added = memory.add(roses, text="What do the roses want?")
    ...     hits = memory.recall("yellow leaves on the roses")
    ...     gone = memory.forget(added.id)
    >>> added.status, hits[0].scene.scene == roses, len(gone.all)
    ('added', True, 1)

    Attributes:
        folder: where it lies: the store of record, the index files (a cache), meta.json, integration_log.json.
        policy: the numbers it works by.
    """

    def __init__(
        self,
        folder: Path,
        store: SceneStore,
        embedders: Sequence[MakesEmbedder],
        policy: Policy,
        archetype_ids: Mapping[str, str],
        notice: Notice,
        progress: Progress | None,
        fill: bool,
    ) -> None:
        """Use :meth:`open`."""
        self.folder = folder
        self.policy = policy
        self._store = store
        self._notice = notice
        self._progress = progress
        self._vectors = Vectors(store, folder, embedders, policy, notice, progress, fill)
        folded = {name.casefold(): key for name, key in archetype_ids.items()}
        self._recaller = Recaller(store, policy, folded)
        self._counters = Counters(store, folded)
        self._integrator = Integrator(store, policy, self._counters)
        self._writer = SceneWriter(store, policy, self._vectors, self._integrator)
        self._log = IntegrationLog(folder)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._closed = False

    @staticmethod
    def open(
        path: str | os.PathLike[str] | None = None,
        embedder: MakesEmbedder | None = None,
        *,
        fallback: MakesEmbedder | None = None,
        policy: Policy | None = None,
        archetype_ids: Mapping[str, str] | None = None,
        notice: Notice | None = None,
        progress: Progress | None = None,
        timeout: float = 10.0,
        fill: bool = True,
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
            fill: embed scenes that have no vectors when the embedder is first needed; else only :meth:`fill` does.

        Raises:
            MemoryStoreError: can't be read, damaged, of a newer version, or in use for too long.
        """
        folder = Path(path).expanduser() if path is not None else memory_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MemoryStoreError(f"{folder}: can't be made: {error.strerror}; name another folder") from None
        lost = folders.lost(folder, folder / STORE_NAME)
        store = SceneStore(folder / STORE_NAME, timeout=timeout)

        embedders = [_demo_embedder if embedder is None else embedder]
        if fallback is not None:
            embedders.append(fallback)
        say = notice or (lambda message: None)
        if lost:
            say(lost)
        return SceneMemory(folder, store, embedders, policy or Policy(), archetype_ids or {}, say, progress, fill)

    @property
    def writable(self) -> bool:
        """False where the folder can't be written; then recalling is all that works."""
        return self._store.writable

    # Adding.

    @exclusive
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
        shown: Sequence[int] = (),
        replaces: int | None = None,
        at: Moment = None,
        keys: Sequence[str] = (),
        pinned: bool = False,
        score: float | None = None,
    ) -> Added:
        """Store one turn, whole or not at all; it is on disk when this returns.

        What was recalled for the turn is not stored as new: a response that repeats it is kept as part of the turn but
        never found by it, and a turn in which nothing is new only strengthens the scene it repeats. A turn that says
        the same as an older one strengthens that. One that contradicts an older one supersedes it, which stays
        readable. Recalled scenes whose words the response took up grow stronger. The turn counts for the archetypes
        and the chain of the scene that holds it, unless it is lore or was imported.

        Args:
            scene: the accepted scene.
            text: what the person said.
            session, template, phase, provenance: where it comes from.
            predecessor: id of the scene before it; None: the last one of the session.
            recalled: ids of the scenes that were recalled for this turn.
            shown: ids of scenes that stood in the prompt from before; what repeats them isn't new either.
            replaces: id of a scene that is forgotten in the same transaction, such as the answer before this one.
            at: when it was told; None: now, a number is seconds since 1970.
            keys: further words it is found by.
            pinned: always a candidate, never decays.
            score: the critics' mean score of the scene, from 0 to 1; None: it wasn't judged.

        Raises:
            MemoryStoreError: read-only, disk full, damaged, or in use by another process for too long.
            InputError, SchemaError: the scene, the text or the score isn't one.
        """
        new = NewScene.checked(
            scene,
            text,
            session=session,
            template=template,
            phase=phase,
            provenance=provenance,
            predecessor=predecessor,
            at=microseconds(at),
            keys=tuple(keys),
            pinned=pinned,
            score=score,
        )
        return self._writer.add(new, recalled, shown, replaces)

    @exclusive
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
        new = self._writer.edit(self._get(number), scene, text, keys, microseconds(at))
        return Added(new, "added", (number,))

    @exclusive
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

    @exclusive
    def strengthen(self, numbers: Iterable[int], *, by: str = "use", at: Moment = None) -> None:
        """Strengthen scenes that proved useful; `by` says how and stands in the integration log."""
        with self._store.transaction():
            self._integrator.strengthen(numbers, by=by, at=microseconds(at))

    @exclusive
    def weaken(self, numbers: Iterable[int], *, by: str = "use", at: Moment = None) -> None:
        """Halve the strength of scenes that misled."""
        with self._store.transaction():
            self._integrator.weaken(numbers, by=by, at=microseconds(at))

    # Finding.

    @exclusive
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
        least: float = 0.0,
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
            least: only scenes whose meaning is at least so like the request's, and what hangs on them; scenes that no
                vectors could be compared with need half of the request's telling words. 0: the best there are.
            at: the moment from which ages count; None: now.

        Returns:
            Hits by score, then the scenes along their chains, all within the budget. Empty for an empty query.
        """
        return recall_scenes(
            self._recaller,
            self._vectors,
            self.policy,
            query,
            k,
            at=microseconds(at),
            will=will,
            chain_depth=chain_depth,
            budget_tokens=budget_tokens,
            count_tokens=count_tokens,
            session=session,
            exclude=exclude,
            history=history,
            least=least,
        )

    @exclusive
    def meanings(self, numbers: Sequence[int]) -> dict[int, Floats]:
        """Vectors of the scenes' meaning by id, float32 [dim]; scenes that have none are left out."""
        return self._vectors.meanings(numbers)

    @exclusive
    def get(self, reference: int | str) -> StoredScene | None:
        """A scene by its id, its uid or the beginning of its uid (six digits at least); None where there is none.

        Raises:
            InputError: several scenes' uids begin so.
        """
        return find_scene(self._store, reference)

    @exclusive
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
        return list_scenes(self._store, session, level, pinned, history, limit)

    @exclusive
    def links(self, number: int | None = None) -> list[Link]:
        """Links from and to a scene, or all."""
        return self._store.links(number)

    @exclusive
    def chain(self, number: int) -> Chain:
        """The chain that a scene stands in: all before and after it, and the summaries above.

        Raises:
            InputError: no such scene.
        """
        return chain_of(self._store, self._recaller, self._get(number))

    def _get(self, number: int) -> StoredScene:
        found = self._store.get(number)
        if found is None:
            raise InputError(f"no scene {number} in {self.folder}; `ltm-edge memory list` shows them")
        return found

    @exclusive
    def archetypes(self) -> list[ArchetypeCount]:
        """How often each archetype was accepted, when last and how well judged; the most accepted first."""
        return self._counters.archetypes()

    @exclusive
    def chains(self) -> list[ChainCount]:
        """How many turns of each chain were accepted, when last and how well judged; the latest first."""
        return self._counters.chains()

    @exclusive
    def log(self) -> list[LogEntry]:
        """What was accepted, strengthened, weakened, superseded, consolidated and forgotten; oldest first."""
        return logged(self._store, self._counters)

    # Forgetting.

    @exclusive
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
        least = None if before is None else microseconds(before)
        going = forgetting.chosen(self._store, [self._get(number) for number in numbers], query, least, session)
        if dry_run or not going.all:
            return going
        return forgetting.forget_scenes(self._store, going, microseconds(at))

    # Levels.

    @exclusive
    def consolidate(
        self,
        *,
        session: str | None = None,
        summarise: Summarise | None = None,
        embed: bool = True,
        at: Moment = None,
    ) -> list[StoredScene]:
        """Write arcs of runs of linked, similar scenes, and sagas of arcs; returns the new ones.

        Running it again without new scenes does nothing. Nothing that is summarised changes.

        Args:
            session: arcs of this session only (sagas are always of all).
            summarise: writes a summary scene from its members, oldest first (a model under the arc template); None:
                summaries are put together from the members' own words.
            embed: give summaries their vectors now; else the next :meth:`fill` does, and a later run makes the sagas.
            at: now.

        Raises:
            MemoryStoreError: can't be written.
        """
        made = levels.consolidate(
            self._store,
            self._vectors,
            self.policy,
            microseconds(at),
            session=session,
            summarise=summarise,
            embed=embed,
        )
        self._log.follow(self._store)
        return self._store.get_many(made)

    # The folder as a whole.

    @exclusive
    def compact(self) -> None:
        """Rewrite all files without what was deleted, and drop vectors of embedders that aren't used any more.

        Raises:
            MemoryStoreError: another process is using the memory, or there is no room for a second copy.
        """
        self._log.rewrite(self._store)
        folders.compact(self._store, self._vectors, self.folder)

    @exclusive
    def verify(self) -> list[str]:
        """What is wrong with the memory; nothing where all is well."""
        return folders.problems(self._store, self._vectors)

    @exclusive
    def stats(self) -> Stats:
        """Figures of the memory."""
        return folders.figures(self._store, self.folder)

    @exclusive
    def export(self, file: IO[str]) -> int:
        """Write every scene and link as JSON Lines; returns the number of scenes. An import of it loses nothing."""
        return export_scenes(self._store, file)

    @exclusive
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

    @exclusive
    def export_file(self, path: str | os.PathLike[str]) -> int:
        """Write an export to a file, which it replaces as a whole; returns the number of scenes.

        Raises:
            MemoryStoreError: it can't be written.
        """
        return folders.export_file(self._store, Path(path))

    @exclusive
    def export_faiss(self, folder: str | os.PathLike[str]) -> int:
        """Write the scenes that the first embedder covers as a FAISS folder; returns how many.

        Raises:
            InputError: faiss isn't installed, or the folder holds such files already.
        """
        return folders.export_faiss(self._store, self._vectors, Path(folder))

    def import_path(
        self, path: str | os.PathLike[str], *, skip_bad: bool = False, progress: Progress | None = None
    ) -> Imported:
        """Take in a file or folder: an export, a character card or lorebook (as pinned scenes), a FAISS folder.

        Raises:
            InputError: none of these, or a part of it can't be taken.
        """
        source = Path(path)
        foreign = foreign_scenes(source)
        if foreign is not None:
            new = [self.add(scene, **known).status == "added" for scene, known in foreign]
            return Imported(scenes=sum(new), known=len(new) - sum(new))
        try:
            with source.open("rb") as file:
                return self.import_(file, name=str(source), skip_bad=skip_bad, progress=progress)
        except OSError as error:
            raise InputError(f"{source}: can't be read: {error.strerror}") from None

    def fill(self, progress: Progress | None = None) -> int:
        """Embed the scenes that the present embedders haven't seen; returns how many that was.

        Every batch is kept, so that an interrupted run goes on where it was, and other threads have their turn between
        two of them. What ``progress`` raises ends it.
        """
        with self._lock:
            self._check()
            todo = self._vectors.missing()
        tell = progress or self._progress or (lambda done, todo: None)
        for start in range(0, len(todo), BATCH):
            with self._lock:
                self._check()
                if not self._vectors.embed_missing(todo[start : start + BATCH]):
                    return start
            tell(min(start + BATCH, len(todo)), len(todo))
        return len(todo)

    @exclusive
    def pack(self, folder: str | os.PathLike[str]) -> int:
        """Write a clean copy of this memory into a folder that has none, such as a bundle's ``memory``.

        Returns:
            The number of scenes in it.

        Raises:
            MemoryStoreError: the folder holds a memory already, or can't be written.
        """
        return folders.pack(self._store, Path(folder))

    @exclusive
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
                    self._vectors.close()
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


def _demo_embedder() -> Embedder:
    from ltm_edge.embedders import demo_embedder

    return demo_embedder()
