"""The chat's slash commands; those of the memory stand in chat_memory_commands.py."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm_edge.cli import console
from ltm_edge.cli.chat_registry import COMMANDS, command, complete, dispatch, is_command, print_lines, say
from ltm_edge.cli.chat_view import card_lines
from ltm_edge.cli.options import FORMS
from ltm_edge.cli.picture import picture
from ltm_edge.errors import InputError, SessionError
from ltm_edge.scene.record import Scene
from ltm_edge.turn import Turn

if TYPE_CHECKING:
    from ltm_edge.cli.chat_loop import Chat

__all__ = ["COMMANDS", "Leave", "complete", "dispatch", "is_command"]

SHOWN = ("settings", "history", "templates", "model", "system", "sessions")


class Leave(Exception):
    """The user wants to leave the chat."""


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {value}".rstrip() for name, value in rows]


@command("?", "help", about="list the commands")
def _help(chat: Chat, rest: str) -> None:
    rows = []
    for one in dict.fromkeys(COMMANDS.values()):
        usage = f"/{one.names[0]} {one.usage}".rstrip()
        others = f" (also {', '.join('/' + name for name in one.names[1:])})" if len(one.names) > 1 else ""
        rows.append((usage, one.about + others))
    print_lines(_table(rows))
    print_lines(
        [
            "",
            '  """ begins and ends a request of several lines; \\ at the end of a line goes on with the next.',
            "  Ctrl-C stops an answer and keeps what there is; Ctrl-D leaves.",
        ]
    )


@command(
    "set",
    usage="KEY VALUE",
    about="change a setting, such as temperature, seed, lang or form; none resets",
    words=lambda chat: chat.session.settings,
)
def _set(chat: Chat, rest: str) -> None:
    rest = rest.removeprefix("parameter ").strip()
    if not rest:
        _show(chat, "settings")
        return
    key, _, text = rest.replace("=", " ", 1).partition(" ")
    if key == "system":
        _system(chat, text)
        return
    if not text.strip():
        raise InputError(f"/set {key}: give a value, as in /set {key} VALUE; /show settings lists the present ones")
    chat.set(key, text.strip())
    say(f"{key} = {_setting(chat.session.settings.get(key))}")


@command("show", usage="|".join(SHOWN), about="show what is set, said or there", words=lambda chat: SHOWN)
def _show(chat: Chat, rest: str) -> None:
    what = rest or "settings"
    if what == "settings":
        print_lines(_table([(key, _setting(value)) for key, value in chat.session.settings.items()]))
    elif what == "history":
        _history(chat)
    elif what == "templates":
        print_lines(_table([(name, str(getattr(form, "about", ""))) for name, form in chat.bundle.templates.items()]))
    elif what == "model":
        print_lines(chat.bundle.describe())
        print_lines(_table([(str(key), _setting(value)) for key, value in chat.bundle.model_info.items()]))
    elif what == "system":
        _system(chat, "")
    elif what == "sessions":
        _sessions(chat)
    else:
        near = difflib.get_close_matches(what, SHOWN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(SHOWN)}"
        raise InputError(f"/show {what}: {hint}")


def _setting(value: Any) -> str:
    return "none" if value is None else console.one_line(str(value))


def _history(chat: Chat) -> None:
    turns = chat.session.history
    if not turns:
        say("nothing has been said yet")
    for turn in turns:
        first, *more = turn.request.split("\n")
        print_lines([f">>> {first}", *(f"... {line}" for line in more), turn.reply_text.rstrip("\n")])
        print_lines([*(["(partial)"] if turn.partial else []), ""])


@command("system", usage="[TEXT|none]", about="show your own system prompt, or give another one")
def _system(chat: Chat, rest: str) -> None:
    if not rest:
        print_lines([chat.system] if chat.system else ["no system prompt of your own"])
        return
    text = rest.strip().strip('"').strip()
    chat.set_system(None if text.lower() in ("", "none") else text)
    say("the system prompt holds from the next request on")


@command(
    "scene",
    usage="[on|off]",
    about="show the last scene, or say whether scenes stand above answers",
    words=lambda chat: ("on", "off"),
)
def _scene(chat: Chat, rest: str) -> None:
    if rest in ("on", "off"):
        chat.show_card = rest == "on"
        say(f"scenes are {'shown above' if chat.show_card else 'hidden from'} answers")
        return
    if rest:
        raise InputError(f"/scene {rest}: use /scene, /scene on or /scene off")
    from ltm_edge.scene.stream import SceneStream

    stream = SceneStream()
    stream.feed(_last_turn(chat).document)
    stream.close()
    print_lines(card_lines(stream.partial()))


@command("image", usage="[FILE]", about="draw the last scene here, or write it to a file as SVG")
def _image(chat: Chat, rest: str) -> None:
    turn = _last_turn(chat)
    if turn.partial:
        raise InputError("the last answer was stopped before its scene was complete")
    drawn = picture(turn.document) if not rest else None
    if not rest and drawn is None:
        raise InputError("this terminal can't show a picture; /image FILE writes it as SVG")
    if drawn is not None:
        console.write_out(drawn)
        return
    from ltm_edge.cli.outputs import write_file
    from ltm_edge.scene.render import render_form

    path = Path(rest).expanduser()
    write_file(path, render_form(Scene.from_yaml(turn.document), "image", turn.lang))
    say(f"written to {path}")


def _last_turn(chat: Chat) -> Turn:
    if not chat.session.history:
        raise InputError("there is no scene yet; say something first")
    return chat.session.history[-1]


@command("form", usage="|".join(FORMS), about="show or choose the form of the answers", words=lambda chat: FORMS)
def _form(chat: Chat, rest: str) -> None:
    if not rest:
        say(f"form = {chat.session.settings.get('form') or 'auto'}")
        return
    chat.set("form", rest)
    say(f"form = {rest}")


@command(
    "template",
    usage="[NAME|auto]",
    about="show the scene templates, or choose one",
    words=lambda chat: ("auto", *chat.bundle.templates),
)
def _template(chat: Chat, rest: str) -> None:
    if not rest:
        _show(chat, "templates")
        say(f"template = {chat.session.settings.get('template') or 'auto'}")
        return
    chat.set("template", rest)
    say(f"template = {rest}")


@command("regen", about="answer the last request again")
def _regen(chat: Chat, rest: str) -> None:
    if not chat.session.history:
        raise InputError("there is nothing to answer again; say something first")
    chat.regenerate()


@command("undo", about="take the last request and its answer back")
def _undo(chat: Chat, rest: str) -> None:
    turn = chat.undo()
    if turn is None:
        raise InputError("there is nothing to take back")
    say(f"taken back: {turn.request}")


@command("clear", about="begin a new conversation; the saved one stays saved")
def _clear(chat: Chat, rest: str) -> None:
    before = chat.file.name if chat.file is not None and chat.session.history else None
    chat.clear()
    say("a new conversation" + (f"; the last one is saved as {before}" if before else ""))


@command("save", usage="[NAME]", about="save the conversation under a name and go on under it")
def _save(chat: Chat, rest: str) -> None:
    replace = rest.endswith("--force")
    name = rest.removesuffix("--force").strip()
    if not name:
        if chat.file is None:
            raise SessionError("this chat isn't saved; give a name to save it under, as in /save NAME")
        name = chat.file.name
    file = chat.save_as(name, replace=replace)
    say(f"saved as {file.name} in {file.path}")


@command("load", usage="[NAME]", about="go on with a saved conversation", words=lambda chat: chat.store.names())
def _load(chat: Chat, rest: str) -> None:
    if not rest:
        _sessions(chat)
        return
    chat.load(rest)
    count = len(chat.session.history)
    say(f"going on with {rest}: {count} turn{'' if count == 1 else 's'}")


def _sessions(chat: Chat) -> None:
    names = chat.store.names()
    present = chat.file.name if chat.file is not None else None
    print_lines([f"{'*' if name == present else ' '} {name}" for name in names] or ["no sessions have been saved"])


@command("stats", about="token counts and speeds of the last answer")
def _stats(chat: Chat, rest: str) -> None:
    from ltm_edge.explain import statistics

    print_lines(statistics(_last_trace(chat)))


@command("why", about="why the last answer came out as it did")
def _why(chat: Chat, rest: str) -> None:
    from ltm_edge.explain import explain

    print_lines(explain(_last_trace(chat)))


@command(
    "council",
    usage="[TEXT]",
    about="ask with several channels drafting at once, or show the drafts of the last answer",
)
def _council(chat: Chat, rest: str) -> None:
    if rest:
        chat.ask(rest, council="on")
    from ltm_edge.explain_thinking import council_lines

    lines = council_lines(_last_trace(chat))
    if not lines and rest:  # why there is none stands among the answer's notices
        return
    if not lines:
        raise InputError("the last answer had one draft; /council TEXT asks with several, /set council on always does")
    print_lines(["", *lines] if rest else lines)


@command(
    "channel",
    usage="[NAME=X,...|auto]",
    about="show how the last answer was routed, or choose the channels, as in poet=0.7,ironist=0.3",
    words=lambda chat: ("auto", *chat.bundle.channels),
)
def _channel(chat: Chat, rest: str) -> None:
    if rest:
        chat.set("channels", rest)
    present = chat.session.settings.get("channels")
    listed = ",".join(f"{name}={weight:g}" for name, weight in present.items()) if present else "auto"
    say(f"channels = {listed}; there are: {', '.join(chat.bundle.channels)}")
    if not rest and chat.session.history:
        from ltm_edge.explain_thinking import routed_lines

        print_lines(routed_lines(_last_trace(chat)))


def _last_trace(chat: Chat) -> Any:
    if not chat.session.history:
        raise InputError("nothing has been answered yet")
    return chat.session.history[-1].trace


from ltm_edge.cli import chat_memory_commands  # noqa: E402, F401  (here, so that /? lists them before /bye)


@command("bye", "exit", "quit", about="leave")
def _bye(chat: Chat, rest: str) -> None:
    raise Leave
