"""One chat: the session that is talked to, the file it is saved in, and what happens between two prompts."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ltm_edge.cli import console
from ltm_edge.cli.answering import answer, exit_code, held, leave_if_hung_up
from ltm_edge.cli.chat_memory import ChatMemory, clock
from ltm_edge.cli.chat_view import AnswerView
from ltm_edge.cli.options import MemoryOptions
from ltm_edge.cli.session_api import ChatBundle, ChatReply, ChatSession, OnEvent, OnToken
from ltm_edge.errors import Cancelled, LtmError, SessionBusy, SessionError
from ltm_edge.store import SessionFile, SessionStore, check_name
from ltm_edge.turn import Turn

__all__ = ["Chat", "ChatStart"]


@dataclass(frozen=True, slots=True)
class ChatStart:
    """What a chat begins with.

    Attributes:
        name: session to open or make; None for a new one.
        resume: go on with the session saved last.
        save: whether turns are saved without being asked.
        system: the user's own system prompt; None keeps what a resumed session has.
        memory: which scene memory is used.
    """

    name: str | None = None
    resume: bool = False
    save: bool = True
    system: str | None = None
    template: str | None = None
    lang: str | None = None
    form: str = "auto"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    memory: MemoryOptions = field(default_factory=MemoryOptions)


class Chat:
    """A conversation with its file. Use as a context manager: leaving it closes the session and its file.

    Attributes:
        bundle: the model that answers.
        session: the present session; another one after ``/load`` and ``/system``.
        store: where sessions are saved.
        file: the present session's file; None while nothing is saved.
        show_card: whether scenes stand above answers.
        memory: the scene memory, or that there is none.
        private: nothing that is said is saved, nor stored in memory.
        confirm: asks the person whether something is to be done.

    Raises:
        SessionBusy: the session is open in another chat.
        SessionError: the session that was asked for can't be read.
    """

    def __init__(self, bundle: ChatBundle, start: ChatStart, store: SessionStore | None = None) -> None:
        self.bundle = bundle
        self.store = store if store is not None else SessionStore()
        self.file: SessionFile | None = None
        self.show_card = True
        self.private = not start.save
        self.confirm: Callable[[str], bool] = lambda question: False
        self.last: ChatReply | None = None
        self._start = start
        self._changes: dict[str, Any] = {}
        self._save_failed = False
        turns = self._open_file(start)
        self.system = start.system if start.system is not None else (self.file.system if self.file else None)
        self.memory = ChatMemory(bundle, start.memory, private=self.private)
        try:
            self.session = self._new_session(turns)
            self._keep_system()
        except BaseException:
            self.memory.close()
            self._close_file()
            raise

    # -- talking ---------------------------------------------------------------------------------------------

    def ask(self, text: str, *, council: str | None = None) -> None:
        """Send a request and show the answer; what was written is saved even if the answer was stopped.

        Args:
            text: the request.
            council: ``on``: several channels draft at once; None: as it is set.

        Raises:
            LtmError: the request can't be answered; the conversation stands as before.
            OSError: stdout is gone.
            SystemExit: SIGTERM or SIGHUP came meanwhile.
        """
        self._answer(
            lambda on_token, on_event: self.session.send(text, on_token=on_token, on_event=on_event, council=council)
        )

    def regenerate(self) -> None:
        """Answer the last request again; raises as :meth:`ask`."""
        self._answer(lambda on_token, on_event: self.session.regenerate(on_token=on_token, on_event=on_event))

    def _answer(self, call: Callable[[OnToken, OnEvent], ChatReply]) -> None:
        form = str(self.session.settings.get("form") or "auto")
        view = AnswerView(form, card=self.show_card)
        view.start()
        try:
            with held():
                try:
                    outcome = answer(self.session, call, view.feed, view.note)
                finally:
                    self.save()
        except Cancelled:
            view.end_line()
            console.notice("(stopped before anything was written)")
            return
        except BaseException:
            with contextlib.suppress(OSError):
                view.end_line()
            raise
        self.last = outcome.reply
        failure = outcome.failure
        if failure is None:
            try:
                view.finish(outcome.reply)
            except OSError as error:
                failure = error
        if outcome.stopped_by is not None and outcome.stopped_by != signal.SIGINT:
            raise SystemExit(exit_code(outcome.stopped_by))
        if failure is not None:
            leave_if_hung_up(failure)
            raise failure
        for line in (*(outcome.reply.trace.get("notices") or ()), *self.memory.notices()):
            console.notice(str(line))

    # -- the session and its file ----------------------------------------------------------------------------

    def save(self) -> None:
        """Bring the file up to the session's history. A failure is said once and costs no turn."""
        if self.file is None:
            return
        turns, saved = list(self.session.history), self.file.load()
        try:
            if turns[: len(saved)] == saved:
                for turn in turns[len(saved) :]:
                    self.file.append(turn)
            else:
                self.file.rewrite(turns)
        except SessionError as error:
            if not self._save_failed:
                console.notice(f"{error}; the chat goes on unsaved, and the next turn tries again")
            self._save_failed = True
            return
        if self._save_failed:
            console.notice(f"session {self.file.name!r} is saved again")
        self._save_failed = False

    def save_as(self, name: str, *, replace: bool = False) -> SessionFile:
        """Save the conversation under another name and go on under it; a private chat is private no longer.

        Raises:
            SessionError: the name is taken (unless ``replace``), or the file can't be written.
        """
        name = check_name(name)
        if self.file is not None and self.file.name == name:
            self.file.rewrite(self.session.history)
            return self.file
        if self.store.exists(name) and not replace:
            raise SessionError(f"session {name!r} exists; choose another name, or replace it with /save {name} --force")
        file = self.store.open(name)
        try:
            file.set_system(self.system)
            file.rewrite(self.session.history)
        except BaseException:
            file.close()
            raise
        self._close_file()
        self.file = file
        self.session.name = name
        if self.private:
            self.go_private(False)
        return file

    def load(self, name: str) -> None:
        """Go on with another saved session.

        Raises:
            SessionError: there is none of this name, it can't be read, or it is in use.
        """
        name = check_name(name)
        if self.file is not None and self.file.name == name:
            return
        if not self.store.exists(name):
            raise SessionError(f"no session {name!r}; /load lists those that are saved")
        if self.private:  # it is read and left as it is
            self._swap(self.store.read(name), None)
            return
        file = self.store.open(name)
        try:
            self._swap(file.load(), file.system)
        except BaseException:
            file.close()
            raise
        self._close_file()
        self.file = file
        self._tell_repairs()

    def clear(self) -> None:
        """Begin a new conversation; a saved one stays saved under its name."""
        self.session.clear()
        self.last = None
        if self.file is None:
            return
        if self.file.load():
            self._close_file()
            self._new_file()
            self.session.name = self.file.name if self.file is not None else None
            self._keep_system()

    def undo(self) -> Turn | None:
        """Take back the last turn, from the file as well."""
        turn = self.session.undo()
        self.last = None
        self.save()
        return turn

    def set(self, key: str, value: Any) -> None:
        """Change a setting of the session, and of those loaded later in this chat.

        Raises:
            LtmError: no such setting, or not such a value.
        """
        self.session.set(key, value)
        self._changes[key] = value

    def use_memory(self, use: str) -> None:
        """Recall and store (``on``), only recall (``recall``), or neither (``off``) from the next turn on.

        Raises:
            LtmError: the memory can't be opened.
        """
        if use != "off":
            self.session.memory = self.memory.open()
        self.set("memory", "recall" if use == "on" and self.private else use)

    def now(self) -> datetime | None:
        """The moment that scenes are stored and looked for with; None: the machine's own."""
        return clock()

    def go_private(self, private: bool) -> None:
        """From here on save nothing and store nothing, or do so again. A file that was left is not gone on with."""
        self.private = private
        if private:
            self._close_file()
            self.session.name = None
        if self.session.memory is not None and self.session.settings.get("memory") != "off":
            self.set("memory", "recall" if private else "on")

    def set_system(self, text: str | None) -> None:
        """Give the session another system prompt of the user's, and keep it with the session's file."""
        self.session.set("system", text)
        self.system = text
        self._keep_system()

    def close(self) -> None:
        """Close the session and release its file; what could not be saved before is tried once more."""
        turns = list(self.session.history)
        self.session.close()
        self.memory.close()
        for line in self.memory.notices():
            console.notice(line)
        if self._save_failed and self.file is not None:
            try:
                self.file.rewrite(turns)
            except SessionError as error:
                console.notice(f"{error}; the last turns are not saved")
        self._close_file()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------------

    def _open_file(self, start: ChatStart) -> list[Turn]:
        name = start.name
        if start.resume and name is None:
            name = self.store.latest()
            if name is None:
                console.notice("no session has been saved yet; this is a new one")
        if name is None:
            if start.save:
                self._new_file()
            return []
        if not start.save:
            return self.store.read(name) if start.resume or self.store.exists(name) else []
        try:
            self.file = self.store.open(name)
        except SessionBusy:
            raise
        except SessionError as error:
            # A session that can be read but not written is still worth talking to.
            turns = self.store.read(name) if self.store.exists(name) else []
            console.notice(f"{error}; the chat goes on unsaved")
            return turns
        self._tell_repairs()
        return self.file.load()

    def _new_file(self) -> None:
        try:
            self.file = self.store.create()
        except SessionError as error:
            console.notice(f"{error}; the chat goes on unsaved")

    def _new_session(self, turns: list[Turn]) -> ChatSession:
        start = self._start
        session = self.bundle.session(
            name=self.file.name if self.file else None,
            history=turns,
            system=self.system,
            template=start.template,
            lang=start.lang,
            form=start.form,
            sampling=start.sampling or None,
            memory=self.memory.opened,
            clock=clock,
        )
        if self.private:
            session.set("memory", "recall")
        for key, value in self._changes.items():
            session.set(key, value)
        return session

    def _swap(self, turns: list[Turn], system: str | None) -> None:
        """Replace the session; the old one is closed first, since both would hold the model's cache."""
        old_turns, old_system = list(self.session.history), self.system
        self.session.close()
        self.system = system
        try:
            self.session = self._new_session(turns)
        except LtmError:
            self.system = old_system
            self.session = self._new_session(old_turns)
            raise
        self.last = None

    def _keep_system(self) -> None:
        if self.file is None:
            return
        try:
            self.file.set_system(self.system)
        except SessionError as error:
            console.notice(str(error))

    def _tell_repairs(self) -> None:
        for line in self.file.notices if self.file is not None else ():
            console.notice(line)

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
