"""`ltm-edge stdio` on the demo model: what a program in another language relies on."""

from __future__ import annotations

import array
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO, FileIO
from pathlib import Path
from typing import IO

import jsonschema
import pytest
import yaml

from ltm_edge import Bundle, errors
from ltm_edge.schemas.stdio import METHODS
from ltm_edge.server import connection, conversations
from ltm_edge.server.codes import CODES, error_object
from ltm_edge.server.framing import MAX_MESSAGE
from ltm_edge.server.lane import MAX_WAITING
from tools.stdio_schema import text

from .client import ROOT, SCHEMA, SECONDS, SHORT, Client, RpcError

pytestmark = pytest.mark.needs_model

ASK = "I don't know whether I should keep building AGI."
SCENE = {
    "actors": [{"you": "gardener"}],
    "tension": "care vs fatigue",
    "archetype": "gardener",
    "resonance_center": "the roses by the wall",
    "response": "The roses by the wall want less water.",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "cache").symlink_to(shared_cache, target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Client]:
    """One program for all tests: each leaves it as it found it, whatever it sends."""
    with Client(home) as client:
        client.open()  # keeps the model loaded for all
        yield client
        code, said = client.end()
        assert code == 0 and said == b""


@pytest.fixture
def session(client: Client) -> Iterator[str]:
    opened = client.open()
    yield opened
    client.call("close", session=opened)


def test_the_published_schema_is_that_of_the_records():
    assert (ROOT / "docs" / "stdio.schema.json").read_text(encoding="utf-8") == text()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["version"] == 1 and set(SCHEMA["methods"]) == set(METHODS)


def test_every_class_of_error_has_a_code_of_its_own():
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LtmError)]
    assert {kind.__name__ for kind in classes} <= set(CODES)
    assert len(set(CODES.values())) == len(CODES)

    class NewKind(errors.ModelError):
        pass

    assert error_object(NewKind("x"))["code"] == CODES["ModelError"]
    assert error_object(KeyError("x"))["code"] == CODES["InternalError"]
    assert error_object(ImportError("pip install it"))["message"] == "pip install it"


def test_an_answer_streams_and_is_the_document(client: Client):
    """Under the packaged overlay, which may put another document in the place of the one that was streamed."""
    session = client.call("open", **SHORT)["session"]
    id = client.post("send", session=session, text=ASK, trace=True, max_tokens=320)
    reply = client.wait(id)
    pieces = client.tokens(id)
    assert len(pieces) > 10 and client.last_document(id) == reply["document"]
    assert yaml.safe_load(reply["document"])["scene"]["tension"] == reply["scene"]["tension"]
    assert not reply["partial"] and reply["trace"]["settings"]["seed"] == 1
    silent = client.post("send", session=session, text="And then?", stream=False, form="yaml")
    assert client.wait(silent)["form"] == "yaml" and not client.tokens(silent)
    asked = client.call("send", session=session, pvq={"text": ASK, "phase": "drama"}, stream=False, trace=True)
    assert asked["trace"]["request"]["phase"] == "drama"
    client.call("close", session=session)


def test_russian_comes_through_whole(client: Client, session: str):
    id = client.post("send", session=session, text="Я не знаю, стоит ли продолжать — 🌱?", lang="ru")
    reply = client.wait(id)
    assert client.last_document(id) == reply["document"]
    assert any("а" <= char <= "я" for char in reply["document"])


def test_two_sessions_write_at_once(client: Client, session: str):
    other = client.open()
    a = client.post("send", session=session, text=ASK, max_tokens=200)
    b = client.post("send", session=other, text="My garden keeps dying.", max_tokens=200)
    client.wait(a), client.wait(b)
    order = [n["params"]["request"] for n in client.notifications if n["method"] == "token"]
    first_b, last_a = order.index(b), len(order) - 1 - order[::-1].index(a)
    assert first_b < last_a, "the second answer waited for the first"
    client.call("close", session=other)
    with pytest.raises(RpcError) as raised:
        client.call("send", session=other, text="Hello?")
    assert raised.value.type == "SessionError" and raised.value.code == 1700


def test_cancel_stops_what_runs_and_drops_what_waits(client: Client, session: str):
    running = client.post("send", session=session, text=ASK, max_tokens=600)
    waiting = client.post("send", session=session, text="Wait.")
    client.wait_for_tokens(running, 3)
    assert client.call("cancel", session=session) == {"cancelled": 2}
    reply = client.wait(running)
    assert reply["partial"] and reply["stop"] == "cancelled"
    assert "".join(client.tokens(running)) == reply["document"]
    with pytest.raises(RpcError) as raised:
        client.wait(waiting)
    assert raised.value.type == "Cancelled"
    assert client.call("cancel", session=session) == {"cancelled": 0}
    assert not client.call("send", session=session, text=ASK, max_tokens=320)["partial"]


def test_cancel_of_one_request_leaves_the_others(client: Client, session: str):
    running = client.post("send", session=session, text=ASK, max_tokens=320)
    dropped = client.post("send", session=session, text="Never.")
    kept = client.post("send", session=session, text="Go on.", max_tokens=320)
    assert client.call("cancel", session=session, request=dropped) == {"cancelled": 1}
    assert client.call("cancel", session=session, request=987654) == {"cancelled": 0}
    assert not client.wait(running)["partial"] and not client.wait(kept)["partial"]
    with pytest.raises(RpcError):
        client.wait(dropped)


def test_a_cancel_that_comes_at_once_is_not_lost(client: Client, session: str):
    for _ in range(5):
        id = client.post("send", session=session, text=ASK * 3, max_tokens=600)
        client.post("cancel", session=session)
        try:
            assert client.wait(id)["partial"]
        except RpcError as error:
            assert error.type == "Cancelled"


def test_closing_cancels(client: Client):
    opened = client.open()
    running = client.post("send", session=opened, text=ASK, max_tokens=600)
    waiting = client.post("send", session=opened, text="Wait.")
    client.wait_for_tokens(running, 2)
    assert client.call("close", session=opened) is None
    assert client.wait(running)["partial"]
    with pytest.raises(RpcError) as raised:
        client.wait(waiting)
    assert raised.value.type == "Cancelled"


def test_memory(client: Client, home: Path, tmp_path: Path):
    opened = client.open(memory="garden", name="first")
    added = client.call("memory.add", session=opened, scene=SCENE, text="What do the roses want?", name="first")
    assert added["status"] == "added"
    (hit,) = client.call("recall", session=opened, text="the roses by the wall", k=1)["scenes"]
    assert hit["id"] == added["id"] and hit["scene"]["scene"] == SCENE and 0 < hit["score"] <= 1
    client.call("send", session=opened, text="The roses by the wall are yellow.", max_tokens=320)
    listed = client.call("memory.list", session=opened, name="first")["scenes"]
    assert len(listed) == 2 and listed[0]["text"] == "The roses by the wall are yellow."
    client.call("memory.pin", session=opened, id=added["id"])
    assert [s["id"] for s in client.call("memory.list", session=opened, pinned=True)["scenes"]] == [added["id"]]
    assert client.call("memory.get", session=opened, id=hit["uid"])["scene"]["pinned"]
    assert client.call("memory.chain", session=opened, id=listed[0]["id"])["scenes"]
    edited = client.call("memory.edit", session=opened, id=added["id"], text="What do roses want?")
    assert edited["id"] != added["id"]
    stats = client.call("memory.stats", session=opened)
    assert stats["scenes"] == 3 and stats["folder"] == str(home / "memory" / "garden")
    assert client.call("memory.verify", session=opened) == {"problems": []}
    assert client.call("memory.consolidate", session=opened)["scenes"] == []
    file = str(tmp_path / "out.jsonl")
    written = client.call("memory.export", session=opened, file=file)["scenes"]
    other = client.open(memory_folder=str(tmp_path / "other"))
    assert client.call("memory.import", session=other, file=file) == {"scenes": written, "known": 0}
    assert client.call("memory.import", session=other, file=file) == {"scenes": 0, "known": written}
    would = client.call("memory.forget", session=opened, query="yellow", dry_run=True)["forgotten"]
    assert would and client.call("memory.forget", session=opened, query="yellow")["forgotten"] == would
    assert not client.call("memory.forget", session=opened, before="2000-01-01T00:00:00Z")["forgotten"]
    client.call("memory.compact", session=opened)
    for method, params in (
        ("memory.forget", {"before": "yesterday"}),
        ("memory.forget", {"before": "0001-01-01T00:00:00+14:00"}),
        ("memory.export", {"file": ""}),
        ("memory.import", {"file": "a\0b"}),
        ("memory.import", {"file": os.devnull}),
        ("memory.get", {"id": 2**80}),
    ):
        with pytest.raises(RpcError) as raised:
            client.call(method, session=opened, **params)
        assert raised.value.code == CODES["InputError"]
    client.call("close", session=other)
    client.call("close", session=opened)


def test_inspect(client: Client, demo_path: Path, tmp_path: Path):
    assert client.call("inspect", file=str(demo_path))["file"]["architecture"] == "llama"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(demo_path.read_bytes()[:1000])
    for file in (str(broken), str(tmp_path / "none.gguf"), str(tmp_path)):
        with pytest.raises(RpcError) as raised:
            client.call("inspect", file=file)
        assert raised.value.code in (CODES["ModelError"], CODES["BundleError"])


def request(method: str, params: object, id: object = 0) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def nested(depth: int) -> object:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe{}", -32700),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"inspect"}', -32700),
        (b"[" * 200_000, -32700),
        (b"9" * 50_000, -32700),
        (b"\0", -32700),
        (b'"text"', -32600),
        (b"null", -32600),
        (b"[]", -32600),
        (b"[1]", -32600),
        (b"[" + b",".join([b"{}"] * 300) + b"]", -32600),
        (b'{"jsonrpc":"1.0","id":0,"method":"shutdown"}', -32600),
        (b'{"jsonrpc":"2.0","id":{"a":1},"method":"shutdown"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"shutdown"}', -32600),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 200 + b'","method":"shutdown"}', -32600),
        (b'{"jsonrpc":"2.0","id":0,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":0,"result":7}', -32600),
        (b'{"jsonrpc":"2.0","id":0,"id":1,"method":"shutdown"}', -32600),
        (b'{"jsonrpc":"2.0","id":0,"method":"shutdown","params":{"a":{"b":1,"b":2}}}', -32600),
        (b'{"jsonrpc":"2.0","id":1e400,"method":"shutdown"}', -32600),
        (request("shutdwon", {}), -32601),
        (request("x" * 1_000_000, {}), -32601),
        (request("send", [1, 2]), -32602),
        (request("send", {}), -32602),
        (request("send", {"session": 7, "text": "x"}), -32602),
        (request("send", {"session": "s1"}), -32602),
        (request("send", {"session": "s1", "text": "x", "pvq": {"text": "x"}}), -32602),
        (request("send", {"session": "s1", "text": "x", "temprature": 1}), -32602),
        (request("send", {str(n): n for n in range(200_000)}), -32602),
        (request("send", {"session": "s1", "pvq": {str(n): n for n in range(300_000)}}), -32602),
        (request("send", {"session": "s1", "pvq": nested(490)}), -32602),
        (request("send", {"session": "s1", "pvq": nested(40)}), -32602),
        (b'{"jsonrpc":"2.0","id":0,"method":"send","params":{"session":"s1","text":"x","budget":1e400}}', -32602),
        (request("memory.forget", {"session": "s1", "ids": [None] * 400_000}), -32602),
        (request("memory.forget", {"session": "s1", "ids": [[]] * 240}), -32602),
        (request("send", {"session": "s1", "text": "x", "seed": 2**70}), CODES["InputError"]),
        (request("send", {"session": "s1", "text": " "}), CODES["InputError"]),
        (request("send", {"session": "s1", "text": "\u202e\u200b\0"}), CODES["InputError"]),
        (request("send", {"session": "s1", "text": "word " * 190_000}), CODES["ContextFull"]),
        (request("send", {"session": "s1", "text": "x" * 2_000_000}), CODES["InputError"]),
        (request("send", {"session": "s1", "pvq": {"txt": "x"}}), CODES["SchemaError"]),
        (request("send", {"session": "s1", "text": "x", "template": "no"}), CODES["InputError"]),
        (request("send", {"session": "s99", "text": "x"}), CODES["SessionError"]),
        (request("recall", {"session": "s1", "text": "x"}), CODES["InputError"]),
        (request("open", {"protocol": 2}), CODES["InputError"]),
        (request("open", {"bundle": "none.gguf"}), CODES["ModelError"]),
        (request("open", {"bundle": "a\0b"}), CODES["ModelError"]),
        (request("open", {"memory": "../x"}), CODES["InputError"]),
        (request("open", {"memory_folder": ""}), CODES["InputError"]),
        (request("open", {"overlay": str(ROOT / "tools")}), CODES["BundleError"]),
        (request("open", {"settings": {"temperature": "hot"}}), CODES["InputError"]),
        (request("open", {"settings": {"temperature": 1e400}}), -32700),
    ],
    ids=lambda value: value[:40].decode("utf-8", "replace") if isinstance(value, bytes) else str(value),
)
def test_bad_messages_are_answered_and_change_nothing(client: Client, line: bytes, code: int):
    client.raw(line + b"\n")
    while not {None, 0} & set(client.responses):
        client.message()
    response = client.responses.pop(None, None) or client.responses.pop(0)
    assert response["error"]["code"] == code, response["error"]["message"]
    assert len(response["error"]["message"]) < 5000 and "\n" not in response["error"]["message"]
    assert "defect" not in response["error"]["message"]
    assert client.call("cancel", session="s1") == {"cancelled": 0}


def test_what_is_wrong_is_said(client: Client):
    with pytest.raises(RpcError) as raised:
        client.wait(_post(client, "send", {"session": "s1", "text": "x", "sede": 1, "form": "poem"}))
    paths = {problem["path"] for problem in raised.value.data["problems"]}
    assert paths == {"sede", "form"} and "did you mean 'seed'" in str(raised.value)
    with pytest.raises(RpcError) as raised:
        client.call("send", session="s1", text="word " * 150_000)
    assert raised.value.data["needed"] > raised.value.data["limit"] > 0


def _post(client: Client, method: str, params: object) -> int:
    client.raw(request(method, params, 4711) + b"\n")
    return 4711


def test_huge_lines_are_passed_over_without_being_held(client: Client):
    before = _peak(client)
    for _ in range(64):
        client.raw(b"x" * MAX_MESSAGE)
    client.raw(b"\n")
    error = client.error()
    assert error.code == -32600 and str(MAX_MESSAGE) in str(error)
    assert client.call("cancel", session="s1") == {"cancelled": 0}
    assert _peak(client) - before < 64 << 20


def _peak(client: Client) -> int:
    """Peak of the program's memory in bytes; 0 where the system doesn't say."""
    status = Path(f"/proc/{client.process.pid}/status")
    if not status.exists():
        return 0
    return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) << 10


def test_batches_notifications_and_blank_lines(client: Client):
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "cancel", "params": {"session": "s1"}},
        {"jsonrpc": "2.0", "method": "cancel", "params": {"session": "s1"}},
        {"jsonrpc": "2.0", "id": "b", "method": "nothing"},
        7,
    ]
    client.raw(b"\r\n  \n" + json.dumps(batch).encode() + b"\r\n")
    answers = client.message()
    assert isinstance(answers, list) and [answer["id"] for answer in answers] == ["a", "b", None]
    client.responses.clear()
    client.raw(b'{"jsonrpc":"2.0","method":"nothing"}\n{"jsonrpc":"2.0","method":"send","params":{}}\n')
    lines = client.lines
    client.call("cancel", session="s1")
    # JSON-RPC answers no notification; one that can't be read at all has no id either, and is answered with null.
    assert client.lines - lines == 1


def test_a_byte_order_mark_is_no_part_of_the_message(client: Client):
    client.raw(b"\xef\xbb\xbf" + request("cancel", {"session": "s1"}, "bom") + b"\n")
    assert client.wait("bom") == {"cancelled": 0}


def test_an_id_in_use_is_refused(client: Client, session: str):
    id = client.post("send", session=session, text=ASK, max_tokens=320)
    client.wait_for_tokens(id, 1)
    client.raw(request("cancel", {"session": session}, id) + b"\n")
    while id not in client.responses:
        client.message()
    assert client.responses.pop(id)["error"]["code"] == -32600
    assert not client.wait(id)["partial"]


def test_too_many_waiting_requests_are_refused(client: Client, session: str):
    first = client.post("send", session=session, text=ASK, max_tokens=600)
    client.wait_for_tokens(first, 1)
    ids = [client.post("send", session=session, text="Wait.") for _ in range(MAX_WAITING + 3)]
    for id in ids[MAX_WAITING:]:
        with pytest.raises(RpcError) as raised:
            client.wait(id)
        assert raised.value.type == "ServerBusy" and raised.value.code == -32000
    assert client.call("cancel", session=session) == {"cancelled": MAX_WAITING + 1}
    assert client.wait(first)["partial"]
    for id in ids[:MAX_WAITING]:
        with pytest.raises(RpcError):
            client.wait(id)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_client_that_does_not_read_holds_the_answer_back_and_can_cancel_it(home: Path):
    import fcntl

    with Client(home) as client:
        session = client.open()
        pipe = client.process.stdout
        assert pipe is not None
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        client.stop_reading()
        # With an id of 128 characters each token takes over 200 bytes: the pipe is full long before the answers end.
        for n in range(8):
            client.raw(request("send", {"session": session, "text": ASK, "max_tokens": 300}, f"{n:0128}") + b"\n")
        samples: list[int] = []
        while _unread(pipe) < 3000 or len(set(samples[-4:])) > 1 or len(samples) < 4:
            time.sleep(0.5)
            samples.append(_cpu(client))
        client.post("cancel", session=session)
        client.read_on()
        replies = {f"{n:0128}" for n in range(8)}
        while not replies <= set(client.responses):
            client.message()
        answers = [client.responses[id] for id in replies]
        kinds = [one["result"]["stop"] if "result" in one else one["error"]["data"]["type"] for one in answers]
        assert kinds.count("cancelled") == 1 and kinds.count("Cancelled") > 0, kinds


def _unread(pipe: IO[bytes]) -> int:
    """Bytes that stand in the pipe."""
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _cpu(client: Client) -> int:
    """Processor time that the program has used, in ticks."""
    fields = Path(f"/proc/{client.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.skipif(sys.platform == "win32", reason="O_NONBLOCK")
def test_an_input_that_does_not_wait_is_made_to():
    read, write = os.pipe()
    os.set_blocking(read, False)
    command = [sys.executable, "-m", "ltm_edge", "stdio"]
    with (
        FileIO(write, "wb") as given,
        subprocess.Popen(command, stdin=read, stdout=subprocess.PIPE, cwd=ROOT) as program,
    ):
        os.close(read)
        assert program.stdout is not None
        for _ in range(2):
            given.write(b"7\n")
            assert json.loads(program.stdout.readline())["error"]["code"] == -32600
            time.sleep(0.3)  # there is nothing to read meanwhile
        given.close()
        assert program.wait(SECONDS) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes the stream")
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_without_its_streams_it_says_so(closed: str):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m ltm_edge stdio {closed}', sys.executable], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and done.stderr.startswith("error: stdin or stdout is closed")


def test_the_end_of_input_still_answers_what_was_asked(home: Path):
    with Client(home) as client:
        session = client.open()
        id = client.post("send", session=session, text=ASK)
        assert client.process.stdin is not None
        client.process.stdin.close()
        assert client.wait(id)["document"]
        assert client.process.wait(SECONDS) == 0


def test_shutdown_stops_answers_and_is_answered_last(home: Path):
    with Client(home) as client:
        session = client.open(memory="garden")
        id = client.post("send", session=session, text=ASK, max_tokens=600)
        client.wait_for_tokens(id, 2)
        shutdown = client.post("shutdown")
        assert client.wait(shutdown) is None
        assert client.wait(id)["partial"]
        assert client.end() == (0, b"")


def test_every_shutdown_of_a_batch_is_answered(home: Path):
    with Client(home) as client:
        batch = [{"jsonrpc": "2.0", "id": id, "method": "shutdown"} for id in ("a", "b")]
        client.raw(json.dumps(batch).encode() + b"\n")
        assert [answer["id"] for answer in client.message()] == ["a", "b"]
        assert client.end() == (0, b"")


def test_a_shutdown_waits_for_what_cannot_be_stopped(monkeypatch: pytest.MonkeyPatch):
    """Loading a model takes as long as its disk does."""
    monkeypatch.setattr(connection, "_END_SECONDS", 0.1)
    began, ended = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> Bundle:
        began.set()
        time.sleep(1.0)
        ended.set()
        raise errors.ModelError("slow.gguf: is no GGUF file")

    class Source(BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            assert self.tell() == 0 or began.wait(60)
            return super().readline(size)

    monkeypatch.setattr(conversations.Bundle, "open", slow)
    read, write = os.pipe()
    with FileIO(write, "wb") as sink, FileIO(read, "rb") as answered:
        connection.serve(Source(request("open", {}, 1) + b"\n" + request("shutdown", {}, 2) + b"\n"), sink)
        assert ended.is_set()
        answers = [json.loads(line) for line in answered.read(1 << 16).splitlines()]
    assert [(answer["id"], "error" in answer) for answer in answers] == [(1, True), (2, False)]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_it_in_order(home: Path, number: signal.Signals, code: int):
    with Client(home) as client:
        session = client.open()
        client.wait_for_tokens(client.post("send", session=session, text=ASK, max_tokens=600), 2)
        os.kill(client.process.pid, number)
        exit_code, said = client.end()
        assert exit_code == code and b"Traceback" not in said


def test_a_reader_that_goes_away_ends_it(home: Path):
    with Client(home) as client:
        session = client.open()
        client.wait_for_tokens(client.post("send", session=session, text=ASK, max_tokens=600), 2)
        client.hang_up()
        assert client.process.stdin is not None and client.process.stderr is not None
        client.process.stdin.close()
        assert client.process.wait(SECONDS) == 141
        assert b"Traceback" not in client.process.stderr.read()
