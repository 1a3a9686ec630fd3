"""The two ways of talking: at a prompt, and over a pipe."""

from __future__ import annotations

import contextlib
import functools
import json

from ltm_edge.cli import console
from ltm_edge.cli.answering import answer, exit_code, held
from ltm_edge.cli.chat_commands import Leave, complete, dispatch, is_command
from ltm_edge.cli.chat_input import MAX_LINE, PromptReader, piped_lines
from ltm_edge.cli.chat_loop import Chat
from ltm_edge.cli.session_api import ChatReply, OnEvent, OnToken
from ltm_edge.errors import LtmError
from ltm_edge.paths import data_dir

__all__ = ["talk", "talk_piped"]


def talk(chat: Chat) -> int:
    """Prompt, answer, repeat, until the user leaves. Errors are said and the chat goes on."""
    reader = PromptReader(
        lambda text: complete(chat, text),
        None if chat.private else data_dir() / "chat_history",
        private=lambda: chat.private,
    )
    chat.confirm = reader.confirm
    _greet(chat)
    while (text := reader.read()) is not None:
        if not text.strip():
            continue
        try:
            if is_command(text):
                dispatch(chat, text)
            else:
                chat.ask(text)
        except Leave:
            break
        except LtmError as error:
            console.error(str(error))
    return 0


def _greet(chat: Chat) -> None:
    count = len(chat.session.history)
    if count:
        where = f"session {chat.file.name}" if chat.file is not None else "the session"
        console.notice(f"going on with {where}: {count} turn{'' if count == 1 else 's'}")
    if chat.private:
        console.notice("private: nothing of this chat is saved")
    console.notice("/? lists the commands; Ctrl-D leaves")


def talk_piped(chat: Chat, form: str) -> int:
    """One request per line of stdin, one line of stdout for each; 1 if any of them failed."""
    failed = False
    documents = 0
    for number, text in enumerate(piped_lines(), start=1):
        result = ""
        stopped_by: int | None = None
        if text is None:
            console.error(f"line {number}: longer than {MAX_LINE} bytes")
            failed = True
        elif text.strip():
            try:
                with held():
                    outcome = answer(chat.session, functools.partial(_send, chat, text), _quiet)
                    chat.save()
                result, stopped_by = _flat(outcome.reply, form), outcome.stopped_by
                for line in (*(outcome.reply.trace.get("notices") or ()), *chat.memory.notices()):
                    console.notice(f"line {number}: {line}")
            except LtmError as error:
                console.error(f"line {number}: {error}")
                failed = True
        if form == "yaml" and result:
            console.write_out(("---\n" if documents else "") + result)
            documents += 1
        elif form != "yaml":
            if stopped_by is not None:
                with contextlib.suppress(OSError):
                    console.write_out(result + "\n")
            else:
                console.write_out(result + "\n")
        if stopped_by is not None:
            return exit_code(stopped_by)
    return 1 if failed else 0


def _send(chat: Chat, text: str, on_token: OnToken, on_event: OnEvent) -> ChatReply:
    return chat.session.send(text, on_token=on_token, on_event=on_event)


def _quiet(piece: str) -> None:
    """Answers over a pipe are written when they are whole."""


def _flat(reply: ChatReply, form: str) -> str:
    """The answer as one line; YAML stays a document of several."""
    text = reply.text.strip("\n")
    if form == "yaml":
        return text + "\n"
    if reply.form == "json":
        with contextlib.suppress(ValueError):
            return json.dumps(json.loads(text), ensure_ascii=False)
    return " ".join(part.strip() for part in text.splitlines() if part.strip())
