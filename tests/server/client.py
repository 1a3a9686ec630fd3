"""A client of `ltm-edge stdio` for the tests. Every message of either side is checked against the published schema."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema

from tests.overlays import PLAIN, overlay_folder

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "stdio.schema.json").read_text(encoding="utf-8"))
SECONDS = 300  # a machine that does other work writes a few tokens a second
SHORT: dict[str, Any] = {"ctx": 2048, "threads": 1, "settings": {"max_tokens": 90, "seed": 1}}


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]})


MESSAGE = validator({"anyOf": SCHEMA["anyOf"]})
PARAMS = {name: validator(method["params"]) for name, method in SCHEMA["methods"].items()}
RESULTS = {name: validator(method["result"]) for name, method in SCHEMA["methods"].items()}


class RpcError(Exception):
    """An error response."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.type: str = error["data"]["type"]
        self.data: dict[str, Any] = error["data"]


class Client:
    """The program, its messages in, its messages out."""

    def __init__(self, home: Path) -> None:
        self._overlay = overlay_folder(home / "plain", PLAIN)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ltm_edge", "stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"LTM_EDGE_HOME": str(home)},
        )
        self.methods: dict[Any, str] = {}
        self.responses: dict[Any, dict[str, Any]] = {}
        self.notifications: list[dict[str, Any]] = []
        self.lines = 0
        self._in: queue.Queue[bytes] = queue.Queue()
        self._ids = itertools.count(1)
        self._gone = False
        self._reading = threading.Event()
        self._reading.set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while self._reading.wait() and not self._gone and (line := self.process.stdout.readline()):
            self._in.put(line)
        if self._gone:
            self.process.stdout.close()
        self._in.put(b"")

    def stop_reading(self) -> None:
        """Leave what comes in the pipe, from the next line but one."""
        self._reading.clear()

    def read_on(self) -> None:
        self._reading.set()

    def hang_up(self) -> None:
        """Close the program's standard output, while it may be writing."""
        self._gone = True  # the reading thread closes it after the next line

    def raw(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def post(self, method: str, /, **params: Any) -> int:
        """Send a request and don't wait; returns its id."""
        id = next(self._ids)
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        MESSAGE.validate(message)
        PARAMS[method].validate(params)
        self.methods[id] = method
        self.raw(json.dumps(message).encode() + b"\n")
        return id

    def message(self) -> Any:
        """The next message, checked; batches of responses are an array."""
        line = self._in.get(timeout=SECONDS)
        assert line, f"the program ended: {self.process.stderr.read().decode()}"  # type: ignore[union-attr]
        assert line.endswith(b"\n")
        self.lines += 1
        message = json.loads(line.decode("utf-8"))
        MESSAGE.validate(message)
        for one in message if isinstance(message, list) else [message]:
            self._keep(one)
        return message

    def _keep(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self.notifications.append(message)
            return
        if "result" in message and message["id"] in self.methods:
            RESULTS[self.methods[message["id"]]].validate(message["result"])
        assert message["id"] is None or message["id"] not in self.responses, "answered twice"
        self.responses[message["id"]] = message

    def wait(self, id: Any) -> Any:
        """The result of a request. Raises RpcError."""
        while id not in self.responses:
            self.message()
        response = self.responses.pop(id)
        if "error" in response:
            raise RpcError(response["error"])
        return response["result"]

    def error(self) -> RpcError:
        """The next response, which must be an error without an id."""
        while None not in self.responses:
            self.message()
        return RpcError(self.responses.pop(None)["error"])

    def call(self, method: str, /, **params: Any) -> Any:
        return self.wait(self.post(method, **params))

    def open(self, **options: Any) -> str:
        """The name of a new session on the demo model, whose turns are one constrained answer each."""
        found = self.call("open", overlay=str(self._overlay), **SHORT, **options)
        return str(found["session"])

    def tokens(self, id: int) -> list[str]:
        """Pieces that have come for a send."""
        found = [n["params"] for n in self.notifications if n["method"] == "token"]
        return [params["text"] for params in found if params["request"] == id]

    def last_document(self, id: int) -> str:
        """The document that a send's notifications add up to: the draft's pieces, or what took its place."""
        found = [n["params"] for n in self.notifications if n["method"] == "event"]
        replaced = [params["document"] for params in found if params["request"] == id and params["document"]]
        return replaced[-1] if replaced else "".join(self.tokens(id))

    def wait_for_tokens(self, id: int, count: int) -> None:
        while len(self.tokens(id)) < count:
            self.message()

    def end(self) -> tuple[int, bytes]:
        """Close stdin and wait; the exit code and what stderr holds."""
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.close()
        while self._in.get(timeout=SECONDS):
            pass
        return self.process.wait(SECONDS), self.process.stderr.read()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
