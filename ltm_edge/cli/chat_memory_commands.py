"""The chat's slash commands for the scene memory: /memory, /recall, /forget, /pin, /private."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ltm_edge.cli import console
from ltm_edge.cli.chat_registry import command, print_lines, say
from ltm_edge.errors import InputError

if TYPE_CHECKING:
    from ltm_edge.cli.chat_loop import Chat
    from ltm_edge.memory.records import StoredScene
    from ltm_edge.scene_memory import SceneMemory

_SHOWN = 8  # scenes that are listed before a question
_USES = {
    "on": "scenes are recalled and stored",
    "recall": "scenes are recalled, none is stored",
    "off": "scenes are neither recalled nor stored",
}


@command(
    "memory",
    usage="[on|recall|off]",
    about="state and figures of the scene memory, or say what it does from here on",
    words=lambda chat: tuple(_USES),
)
def _memory(chat: Chat, rest: str) -> None:
    if rest in _USES:
        chat.use_memory(rest)
        say(_state(chat))
        return
    if rest:
        raise InputError(f"/memory {rest}: use /memory, /memory on, /memory recall or /memory off")
    say(_state(chat))
    opened = chat.session.memory
    if opened is None:
        return
    figures = opened.stats()
    parts = [_count(figures.scenes, "scene"), _count(figures.arcs, "arc"), _count(figures.sagas, "saga")]
    parts += [f"{figures.pinned} pinned", f"{figures.superseded} superseded", _count(figures.links, "link")]
    print_lines([f"  {opened.folder}", f"  {', '.join(parts)}, {figures.bytes / 1024:.0f} KiB"])
    if figures.unembedded:
        print_lines([f"  {figures.unembedded} found by their words only"])


def _state(chat: Chat) -> str:
    if chat.session.memory is None:
        return "memory is off: scenes are neither recalled nor stored"
    use = str(chat.session.settings.get("memory"))
    return f"memory is {'on' if use == 'recall' else use}: {_USES.get(use, use)}" + (
        "; this chat is private" if chat.private and use == "recall" else ""
    )


@command("recall", usage="TEXT", about="what the memory would bring up for a text")
def _recall(chat: Chat, rest: str) -> None:
    if not rest:
        raise InputError("/recall: give a text, as in /recall my dog")
    opened = _opened(chat)
    hits = opened.recall(rest, budget_tokens=0, least=0.0, at=chat.now())
    for hit in hits:
        print_lines([_line(hit.scene)])
        if hit.parts:
            parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.parts.items())
            like = max(hit.parts.get("meaning", 1.0), hit.parts.get("context", 0.0))
            weak = "" if like >= opened.policy.least_meaning else "; too weak for a turn"
            print_lines([f"        {hit.score:.2f}: {parts}{weak}"])
        else:
            print_lines([f"        {hit.via} of {hit.of}"])
    if not hits:
        say("nothing found")


@command("forget", usage="[ID|TEXT]", about="forget a scene (the last turn's), or all that have these words")
def _forget(chat: Chat, rest: str) -> None:
    opened = _opened(chat)
    if not rest or rest.isdecimal():
        number = _scene(chat, opened, rest).id
        going = opened.forget(number, dry_run=True)
    else:
        going = opened.forget(query=rest, dry_run=True)
    if not going.all:
        say(f"no scene has all the words of {rest!r}; /recall finds what only means it")
        return
    print_lines([_line(one) for one in going.all[:_SHOWN]])
    if len(going.all) > _SHOWN:
        say(f"  and {len(going.all) - _SHOWN} more")
    if not chat.confirm(f"forget {'this scene' if len(going.all) == 1 else f'these {len(going.all)} scenes'}? [y/N] "):
        say("nothing was forgotten")
        return
    done = opened.forget(*(one.id for one in going.scenes), at=chat.now())
    left = " (this conversation and saved sessions still have the words)" if chat.session.history else ""
    say(f"forgot {_count(len(done.all), 'scene')}{left}")


@command("pin", usage="[ID]", about="keep a scene from fading; without an ID the last turn's")
def _pin(chat: Chat, rest: str) -> None:
    opened = _opened(chat)
    scene = _scene(chat, opened, rest)
    opened.pin(scene.id, at=chat.now())
    say(f"scene {scene.id} is pinned")


@command(
    "private",
    usage="[on|off]",
    about="from here on save nothing: neither the session nor scenes",
    words=lambda chat: ("on", "off"),
)
def _private(chat: Chat, rest: str) -> None:
    if rest not in ("", "on", "off"):
        raise InputError(f"/private {rest}: use /private, /private on or /private off")
    before = chat.file.name if chat.file is not None else None
    chat.go_private(rest != "off")
    if rest == "off":
        say("no longer private: scenes are stored again; /save NAME saves the conversation")
    else:
        kept = f"; what was said until here is saved as {before}" if before and chat.session.history else ""
        say(f"private: nothing of what is said from here on is saved{kept}")


def _opened(chat: Chat) -> SceneMemory:
    if chat.session.memory is None:
        raise InputError("there is no memory in this chat; /memory on opens it")
    return chat.session.memory


def _scene(chat: Chat, opened: SceneMemory, reference: str) -> StoredScene:
    """The scene of this id, or that of the last turn."""
    if not reference:
        part = chat.session.history[-1].trace.get("memory") if chat.session.history else None
        stored: Any = part.get("stored") if isinstance(part, Mapping) else None
        if not isinstance(stored, Mapping):
            raise InputError("the last turn is not in memory; give a scene's number, as /recall shows it")
        reference = str(stored.get("id"))
    found = opened.get(reference)
    if found is None:
        raise InputError(f"no scene {reference}; /recall TEXT shows numbers")
    return found


def _line(scene: StoredScene) -> str:
    what = console.one_line(scene.text or scene.scene.response)
    kind = ("", " [arc]", " [saga]")[scene.level] + (" (pinned)" if scene.pinned else "")
    return f"{scene.id:>6}  {scene.created_at.astimezone():%Y-%m-%d %H:%M}{kind}  {what[:100]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
