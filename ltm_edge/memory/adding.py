"""Adding: what becomes of a turn that is given to the memory, decided and stored in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltm_edge.errors import InputError
from ltm_edge.memory.counting import move_turns
from ltm_edge.memory.facts import facts_of, related_words
from ltm_edge.memory.forgetting import forget_scenes, with_dependants
from ltm_edge.memory.hygiene import contradicted, echo_share, says_the_same, used
from ltm_edge.memory.integrator import Integrator
from ltm_edge.memory.records import LORE, SCENE, Added, Link, Policy, StoredScene
from ltm_edge.memory.store import SceneStore
from ltm_edge.memory.vectors import Vectors
from ltm_edge.memory.words import match_query
from ltm_edge.scene.clean import clean_request
from ltm_edge.scene.record import Scene

__all__ = ["NewScene", "SceneWriter"]

_NEAR = 8  # scenes that a new one is compared with
_STATING = 64  # older statements that a new one is compared with
_NAME_CHARS = 200
_NOT_TURNS = (*LORE, "imported")


@dataclass(frozen=True, slots=True)
class NewScene:
    """A turn that is given to the memory; the fields are those of ``SceneMemory.add``, times in microseconds."""

    scene: Scene
    text: str
    session: str
    template: str
    phase: str | None
    provenance: str
    predecessor: int | None
    at: int
    keys: tuple[str, ...]
    pinned: bool
    score: float | None = None

    @staticmethod
    def checked(scene: Scene, text: str, **rest: object) -> NewScene:
        """The record after a look at everything that comes from outside.

        Raises:
            InputError, SchemaError: the scene, the text, the score or a name isn't one.
        """
        if not isinstance(scene, Scene):
            raise InputError(f"expected a Scene, found a {type(scene).__name__}")
        new = NewScene(Scene.from_dict(scene.to_dict()), clean_request(text)[0], **rest)  # type: ignore[arg-type]
        for name in ("session", "template", "phase", "provenance"):
            _check_name(name, getattr(new, name) or "")
        if new.score is not None and not (isinstance(new.score, (int, float)) and 0 <= new.score <= 1):
            raise InputError(f"score {new.score!r}: expected a number from 0 to 1")
        return new

    @property
    def accepted(self) -> bool:
        """Whether it is the turn of a conversation; lore and what another memory held is none."""
        return self.provenance not in _NOT_TURNS


class SceneWriter:
    """Writes scenes: the provenance firewall, repetitions, contradictions, links, strengths."""

    def __init__(self, store: SceneStore, policy: Policy, vectors: Vectors, integrator: Integrator) -> None:
        self._store = store
        self._policy = policy
        self._vectors = vectors
        self._integrator = integrator

    def add(
        self, new: NewScene, recalled: Sequence[int], shown: Sequence[int] = (), replaces: int | None = None
    ) -> Added:
        """Store one turn, whole or not at all; see ``SceneMemory.add``."""
        store, policy = self._store, self._policy
        old = store.get(replaces) if replaces is not None else None
        going = with_dependants(store, [old] if old is not None else [])
        gone = {one.id for one in going.all}
        before = store.get_many(number for number in recalled if number not in gone)
        seen = [*before, *store.get_many(number for number in shown if number not in {*recalled, *gone})]
        echo = bool(seen) and echo_share(new.scene.response, seen) >= policy.echo_overlap
        if echo and (not new.text or echo_share(new.text, seen) >= policy.echo_overlap):
            with store.transaction():
                forget_scenes(store, going, new.at)
                return self._repeated(new, seen)
        if echo:  # what it repeats is found in its place
            before = [one for one in seen if one in before or echo_share(new.scene.response, [one]) > 0]
        vectors = self._vectors.embed(new.scene, new.text, echo)
        near = self._vectors.near(vectors, _NEAR)
        with store.transaction():
            forget_scenes(store, going, new.at)
            same = self._same(new, near)
            if same is not None:
                self._again(new, same)
                return Added(same.id, "strengthened")
            older = self._contradicted(new.text, near)
            predecessor = new.predecessor
            if predecessor is not None and store.get(predecessor) is None:
                predecessor = None
            if predecessor is None and new.session:
                predecessor = store.last_of_session(new.session)
            number = store.insert(
                new.scene,
                text=new.text,
                session=new.session,
                template=new.template,
                phase=new.phase,
                provenance=new.provenance,
                created=new.at,
                strength=policy.strength,
                keys=new.keys,
                pinned=new.pinned,
                echo=echo,
            )
            self._vectors.insert(number, vectors)
            if predecessor is not None:
                store.link(Link(number, predecessor, "predecessor"))
            for one in before:
                store.link(Link(number, one.id, "recalled"))
            for one in older:
                store.supersede(one.id, number, new.at)
                store.event("superseded", one.id, new.at, by=number)
            store.event("added", number, new.at, **({} if new.score is None else {"score": round(new.score, 6)}))
            if new.accepted:
                self._integrator.accept(number, by="use", at=new.at, score=new.score)
            taken = [one.id for one in before if one not in older and used(new.text, new.scene.response, one)]
            self._integrator.strengthen(taken, by="use", at=new.at, of=number)
        return Added(number, "added", tuple(one.id for one in older), tuple(taken))

    def edit(self, old: StoredScene, scene: Scene | None, text: str | None, keys: Sequence[str] | None, at: int) -> int:
        """Put a new version in a scene's place, with its links; returns the new id.

        Raises:
            InputError: nothing to change, or there is a newer version.
        """
        if old.superseded_by is not None:
            raise InputError(f"scene {old.id}: was superseded by scene {old.superseded_by}; edit that one")
        record = Scene.from_dict(scene.to_dict()) if scene is not None else old.scene
        said = clean_request(text)[0] if text is not None else old.text
        words = tuple(keys) if keys is not None else old.keys
        if (record, said, words) == (old.scene, old.text, old.keys):
            raise InputError(f"scene {old.id}: nothing was changed")
        vectors = self._vectors.embed(record, said, False)
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
            self._vectors.insert(new, vectors)
            for link in store.links(old.id):
                if link.source == old.id and link.kind in ("predecessor", "recalled", "part_of"):
                    store.link(replace(link, source=new))
                elif link.target == old.id and link.kind == "part_of":
                    store.link(replace(link, target=new))
            store.supersede(old.id, new, at)
            move_turns(store, old.id, store.get_many([new])[0])
            store.event("edited", new, at, old=old.id)
        return new

    def _repeated(self, new: NewScene, before: Sequence[StoredScene]) -> Added:
        said = f"{new.text}\n{new.scene.response}"
        original = max(before, key=lambda one: (echo_share(said, [one]), -one.id))
        self._again(new, original)
        return Added(original.id, "echo")

    def _again(self, new: NewScene, known: StoredScene) -> None:
        if new.accepted and known.level == SCENE:
            self._integrator.accept(known.id, by="repetition", at=new.at, score=new.score)
        self._integrator.strengthen([known.id], by="repetition", at=new.at)

    def _same(self, new: NewScene, near: Sequence[tuple[int, float]]) -> StoredScene | None:
        alike = self._store.alike(new.text, new.scene.response, _NEAR)
        alike += self._store.get_many(number for number, cosine in near if cosine >= self._policy.duplicate_cosine)
        for one in alike:
            comparable = one.superseded_by is None and one.level == SCENE and one.pinned == new.pinned
            if comparable and says_the_same(new.text, new.scene.response, one, self._policy):
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


def _check_name(what: str, value: str) -> None:
    if len(value) > _NAME_CHARS or any(ord(char) < 0x20 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise InputError(f"{what} {value[:40]!r}: at most {_NAME_CHARS} characters, none of them control characters")
