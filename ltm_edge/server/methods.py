"""What each method does. `open` and `inspect` have a lane of their own; the rest is carried out in its session's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ltm_edge.errors import Cancelled, InputError, ModelError
from ltm_edge.loop.events import TurnEvent
from ltm_edge.memory.records import LEVELS, Link, StoredScene, read_iso
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.schemas import stdio
from ltm_edge.server.conversations import Conversation

__all__ = ["MEMORY_METHODS", "Piece", "inspect", "send"]

Piece = Callable[[str], bool]
Event = Callable[[TurnEvent], bool]


def send(conversation: Conversation, params: stdio.SendParams, piece: Piece, event: Event) -> stdio.SendResult:
    """Answer a request; ``piece`` gets the first draft as it is written, ``event`` the turn's parts.

    Both say whether anybody still reads it.

    Raises:
        LtmError: as `Session.send` raises it.
    """
    session = conversation.session

    def on_token(text: str) -> None:
        if not piece(text):
            raise Cancelled("nobody reads the answer any more")

    def on_event(part: TurnEvent) -> None:
        if not event(part):
            raise Cancelled("nobody reads the answer any more")

    reply = session.send(
        params.text if params.pvq is None else Pvq.from_dict(dict(params.pvq), "pvq"),  # type: ignore[arg-type]
        on_token=on_token if params.stream else None,
        on_event=on_event if params.stream else None,
        template=params.template,
        form=params.form,
        lang=params.lang,
        seed=params.seed,
        max_tokens=params.max_tokens,
        channels=params.channels,
        council=params.council,
        budget=params.budget,
    )
    return stdio.SendResult(
        text=reply.text,
        form=reply.form,
        document=reply.document,
        scene=None if reply.scene is None else reply.scene.to_dict(),
        partial=reply.partial,
        stop=reply.stop,
        notices=tuple(str(line) for line in reply.trace.get("notices") or ()),
        remark=reply.remark,
        trace=reply.trace if params.trace else None,
    )


def inspect(params: stdio.InspectParams) -> stdio.InspectResult:
    """What a GGUF file holds.

    Raises:
        ModelError: it isn't there, or isn't one.
    """
    from gguf_tools.errors import GgufError
    from gguf_tools.summary import inspect_file
    from ltm_edge.hashes import file_sha256
    from ltm_edge.models import existing_file

    try:
        summary, _ = inspect_file(existing_file(params.file), hasher=file_sha256)
        return stdio.InspectResult(summary.to_dict())
    except GgufError as error:
        raise ModelError(str(error)) from error


def _recall(conversation: Conversation, params: stdio.RecallParams) -> stdio.RecallResult:
    found = conversation.memory.recall(
        params.text, params.k, chain_depth=params.chain_depth, history=params.history, budget_tokens=0
    )
    return stdio.RecallResult(tuple(stdio.Recalled(**hit.to_dict(), scene=_stored(hit.scene)) for hit in found))


def _list(conversation: Conversation, params: stdio.ListParams) -> stdio.ScenesResult:
    level = None if params.level is None else LEVELS.index(params.level)
    found = conversation.memory.scenes(session=params.name, level=level, pinned=params.pinned, limit=params.limit)
    return stdio.ScenesResult(tuple(_stored(scene) for scene in found))


def _get(conversation: Conversation, params: stdio.SceneParams) -> stdio.GetResult:
    scene = _one(conversation, params.id)
    return stdio.GetResult(_stored(scene), tuple(_link(link) for link in conversation.memory.links(scene.id)))


def _chain(conversation: Conversation, params: stdio.SceneParams) -> stdio.ChainResult:
    found = conversation.memory.chain(_one(conversation, params.id).id)
    return stdio.ChainResult(
        tuple(_stored(scene) for scene in found.scenes), tuple(_stored(scene) for scene in found.summaries)
    )


def _add(conversation: Conversation, params: stdio.MemoryAddParams) -> stdio.AddResult:
    scene = Scene.from_dict(dict(params.scene), "scene")
    done = conversation.memory.add(
        scene, text=params.text, session=params.name, provenance="given", pinned=params.pinned
    )
    return stdio.AddResult(done.id, done.status, tuple(done.superseded))


def _edit(conversation: Conversation, params: stdio.EditParams) -> stdio.AddResult:
    scene = None if params.scene is None else Scene.from_dict(dict(params.scene), "scene")
    done = conversation.memory.edit(_one(conversation, params.id).id, scene, text=params.text)
    return stdio.AddResult(done.id, done.status, tuple(done.superseded))


def _pin(conversation: Conversation, params: stdio.PinParams) -> None:
    conversation.memory.pin(_one(conversation, params.id).id, params.pinned)


def _forget(conversation: Conversation, params: stdio.ForgetParams) -> stdio.ForgetResult:
    numbers = [_one(conversation, reference).id for reference in params.ids]
    gone = conversation.memory.forget(
        *numbers, query=params.query, before=_moment(params.before), session=params.name, dry_run=params.dry_run
    )
    return stdio.ForgetResult(tuple(scene.id for scene in gone.all))


def _consolidate(conversation: Conversation, params: stdio.ConsolidateParams) -> stdio.ScenesResult:
    made = conversation.memory.consolidate(session=params.name)
    return stdio.ScenesResult(tuple(_stored(scene) for scene in made))


def _stats(conversation: Conversation, params: stdio.SessionParams) -> stdio.StatsResult:
    memory = conversation.memory
    return stdio.StatsResult(folder=str(memory.folder), **asdict(memory.stats()))


def _verify(conversation: Conversation, params: stdio.SessionParams) -> stdio.VerifyResult:
    return stdio.VerifyResult(tuple(conversation.memory.verify()))


def _compact(conversation: Conversation, params: stdio.SessionParams) -> None:
    conversation.memory.compact()


def _export(conversation: Conversation, params: stdio.FileParams) -> stdio.ExportResult:
    return stdio.ExportResult(conversation.memory.export_file(_path(params.file)))


def _import(conversation: Conversation, params: stdio.ImportParams) -> stdio.ImportResult:
    source = _path(params.file)
    if source.exists() and not (source.is_file() or source.is_dir()):  # a pipe or a device may never end
        raise InputError(f"{source}: is no regular file; name an export, a card or a folder")
    done = conversation.memory.import_path(source, skip_bad=params.skip_bad)
    return stdio.ImportResult(done.scenes, done.known)


MEMORY_METHODS: dict[str, Callable[[Conversation, Any], Any]] = {
    "recall": _recall,
    "memory.list": _list,
    "memory.get": _get,
    "memory.chain": _chain,
    "memory.add": _add,
    "memory.edit": _edit,
    "memory.pin": _pin,
    "memory.forget": _forget,
    "memory.consolidate": _consolidate,
    "memory.stats": _stats,
    "memory.verify": _verify,
    "memory.compact": _compact,
    "memory.export": _export,
    "memory.import": _import,
}


def _one(conversation: Conversation, reference: int | str) -> StoredScene:
    found = conversation.memory.get(reference)
    if found is None:
        raise InputError(f"no scene {reference!r} in {conversation.memory.folder}; memory.list gives them")
    return found


def _path(name: str) -> Path:
    if not name or "\0" in name:
        raise InputError(f"file: {name!r} can't be the name of a file; name one")
    return Path(name)


def _stored(scene: StoredScene) -> stdio.Stored:
    return stdio.Stored(**scene.to_dict())


def _link(link: Link) -> stdio.Link:
    return stdio.Link(link.source, link.target, link.kind, link.weight)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = read_iso(text)
        if moment.tzinfo is not None:
            return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # the latter: before the year 1 in UTC
        pass
    raise InputError(f"before: {text!r} is no time with its zone, such as 2026-01-31T09:30:00+00:00")
