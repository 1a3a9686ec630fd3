"""The Python interface as programs embed it: documentation, quietness, threads, processes, several bundles."""

from __future__ import annotations

import ast
import asyncio
import doctest
import functools
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ltm_edge
from ltm_edge import AsyncSession, Bundle, Session
from ltm_edge.errors import SessionBusy
from ltm_edge.loop.idle import IdleWork
from tests.overlays import PLAIN, overlay_folder
from tools import api_docs

ROOT = Path(__file__).parents[2]
ASK = "I don't know whether I should keep building AGI."


def test_the_reference_is_that_of_the_docstrings():
    stale = "run: python tools/api_docs.py > docs/api.md"
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == api_docs.text(), stale


def test_every_public_name_is_documented():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in ltm_edge.__all__:
        value = getattr(ltm_edge, name)
        assert name == "__version__" or f"\n## {name}\n" in text or f"- `{name}`" in text, name
        for member, function in vars(value).items() if isinstance(value, type) else ():
            if not member.startswith("_") and callable(function):
                assert (function.__doc__ or "").strip(), f"{name}.{member}"


def examples() -> list[tuple[str, str]]:
    found = []
    for file in ("api.md", "embedding.md"):
        text = (ROOT / "docs" / file).read_text(encoding="utf-8")
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)):
            if file == "embedding.md" or code.startswith(">>>"):
                found.append((f"{file}-{number}", code))
    return found


@pytest.mark.needs_model
@pytest.mark.parametrize(("name", "code"), examples(), ids=[name for name, _ in examples()])
def test_examples_run(name: str, code: str, plain_overlay: Path, monkeypatch: pytest.MonkeyPatch):
    """The first of a file as it stands; the others, which show more of the interface, where answers are shorter."""
    if not name.endswith("-0"):
        monkeypatch.setattr(Bundle, "open", functools.partial(Bundle.open, overlay=plain_overlay))
    if code.startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(code, {"__name__": "example"}, name, name, 0)
        said: list[str] = []
        doctest.DocTestRunner().run(test, out=said.append)
        assert not said, "".join(said)
    else:
        exec(compile(code, name, "exec"), {"__name__": "example"})


def test_the_library_prints_nothing_and_leaves_signals_and_logging_alone():
    """Read from the syntax trees; only the command line may do these things."""
    forbidden = {"print", "signal.signal", "logging.basicConfig", "os.chdir", "locale.setlocale", "os.dup2"}
    for path in (ROOT / "ltm_edge").rglob("*.py"):
        if "cli" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in forbidden, f"{path.name}:{node.lineno}"


QUIET = """
import logging, os, signal, sys, threading
before = dict(os.environ), os.getcwd(), {n: signal.getsignal(n) for n in signal.valid_signals() if n not in (9, 19)}
from ltm_edge import Bundle
with Bundle.open(ctx=1024, threads=1) as bundle, bundle.open_memory(sys.argv[1]) as memory:
    with bundle.session(memory=memory) as session:
        assert session.send("My garden keeps dying.", seed=1, max_tokens=90).document
        try:
            session.send("")
        except Exception:
            pass
after = dict(os.environ), os.getcwd(), {n: signal.getsignal(n) for n in signal.valid_signals() if n not in (9, 19)}
assert before == after, [one for one in zip(before, after) if one[0] != one[1]]
assert not logging.getLogger().handlers and not logging.getLogger().filters
assert [type(h).__name__ for h in logging.getLogger("ltm_edge").handlers] == ["NullHandler"]
assert threading.active_count() == 1, threading.enumerate()
"""


@pytest.mark.needs_model
def test_a_program_that_embeds_it_hears_nothing(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", QUIET, str(tmp_path / "memory")],
        capture_output=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.needs_model
def test_what_llama_cpp_says_goes_to_logging(demo_path: Path):
    """In a program of its own: llama_cpp.Llama, which other tests use, takes llama.cpp's log for itself."""
    script = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format='%(name)s')\n"
        "from ltm_edge import Bundle\n"
        "Bundle.open(sys.argv[1], ctx=512, threads=1).close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(demo_path)], capture_output=True, cwd=ROOT)
    assert done.returncode == 0 and b"ltm_edge.llama" in done.stdout.split()


@pytest.mark.needs_model
def test_two_bundles_in_one_process_don_t_touch_each_other(demo_bundle: Bundle, demo_path: Path, tmp_path: Path):
    options = {"seed": 5, "max_tokens": 60, "template": "mirror"}

    def alone(bundle: Bundle) -> list[str]:
        with bundle.session() as session:
            return [answer(session, text) for text in (ASK, "And then?")]

    def answer(session: Session, text: str) -> str:
        document = session.send(text, **options).document
        session.settle()  # what is computed between two turns, or not yet, changes how numbers are rounded
        return document

    overlay = overlay_folder(tmp_path / "overlay", PLAIN | {"name": "other", "few_shot": 1})
    with Bundle.open(demo_path, ctx=1024, threads=1, overlay=overlay) as other:
        expected = alone(demo_bundle), alone(other)
        assert expected[0] != expected[1] and other.name == "other"
        with demo_bundle.session() as a, other.session() as b:
            mixed: tuple[list[str], list[str]] = ([], [])
            for text in (ASK, "And then?"):
                mixed[0].append(answer(a, text))
                mixed[1].append(answer(b, text))
        assert mixed == expected
        with ThreadPoolExecutor(2) as pool:
            assert tuple(pool.map(alone, (demo_bundle, other))) == expected
    assert demo_bundle.model is not None


@pytest.mark.needs_model
def test_in_a_thread_pool_a_session_is_used_by_one_thread_at_a_time(demo_bundle: Bundle):
    with demo_bundle.session() as session, ThreadPoolExecutor(4) as pool:
        for n in range(4):  # by another thread each time
            assert pool.submit(session.send, f"Request {n}.", seed=n, max_tokens=60).result().document
        entered, go_on = threading.Event(), threading.Event()

        def hold(piece: str) -> None:
            entered.set()
            go_on.wait(300)

        running = pool.submit(session.send, ASK, on_token=hold, max_tokens=60)
        assert entered.wait(300)
        try:
            with pytest.raises(SessionBusy):
                session.send("Me too.")
        finally:
            go_on.set()
        assert running.result().document
        assert len(session.history) == 5


@pytest.mark.needs_model
def test_what_a_session_calls_can_t_wait_for_it(demo_bundle: Bundle):
    with demo_bundle.session() as session:
        for closes in (session.close, demo_bundle.close):
            with pytest.raises(SessionBusy, match="afterwards"):
                session.send(ASK, on_token=lambda _, closes=closes: closes(), seed=1, max_tokens=60)
        assert [turn.partial for turn in session.history] == [True, True]
        cancelled = session.send(ASK, on_token=lambda _: session.cancel(), seed=1, max_tokens=60)
        assert cancelled.stop == "cancelled"
        assert session.send(ASK, seed=1, max_tokens=60).document


def test_work_between_two_turns_that_fails_is_logged_and_nothing_is_printed(caplog, capfd):
    idle = IdleWork()
    idle.start(lambda: {}["nothing"])
    idle.wait()
    assert capfd.readouterr() == ("", "") and "KeyError" in caplog.text


@pytest.mark.needs_model
def test_inside_a_running_loop_the_blocking_calls_work_in_a_thread(demo_bundle: Bundle):
    async def main() -> tuple[str, str]:
        session = await asyncio.to_thread(demo_bundle.session)
        blocking = await asyncio.to_thread(session.send, ASK, seed=1, max_tokens=60)
        await asyncio.to_thread(session.close)
        async with AsyncSession(demo_bundle.session()) as wrapped:
            return blocking.document, (await wrapped.send(ASK, seed=1, max_tokens=60)).document

    first, second = asyncio.run(main())
    assert first == second


FORK = """
import os, sys, tempfile
from ltm_edge import Bundle
from ltm_edge.errors import LtmError
def child(work):
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    try:
        work()
    except LtmError as error:
        print(type(error).__name__, error, flush=True)
        os._exit(7)
    except BaseException as error:
        print("unexpected", repr(error), flush=True)
        os._exit(9)
    os._exit(0)
def answer():
    with Bundle.open(ctx=1024, threads=2) as bundle, bundle.session() as session:
        session.send("Hello.", max_tokens=60)
assert child(answer) == 0  # nothing was opened before: all is well
with tempfile.TemporaryDirectory() as folder, Bundle.open(ctx=1024, threads=2) as bundle:
    with bundle.open_memory(folder) as memory, bundle.session() as session, bundle.session(memory=memory) as other:
        session.send("Hello.", max_tokens=60)
        for work in (lambda: session.send("Hello?", max_tokens=60), lambda: bundle.session().send("Hello?"), answer,
                     lambda: memory.recall("Hello?"), lambda: other.send("Hello?")):
            assert child(work) == 7
        assert session.send("Still there?", max_tokens=60).document
"""


@pytest.mark.needs_model
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_says_what_to_do_instead_of_hanging():
    env = {key: value for key, value in os.environ.items() if key != "OMP_THREAD_LIMIT"}  # it is about threads
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 5 and all("fork" in line for line in said), said
    assert said[0].startswith("EngineError") and "spawn" in said[0] and said[3].startswith("MemoryStoreError")


def _in_child(path: str) -> str:
    with Bundle.open(path, ctx=1024, threads=1) as bundle, bundle.session() as session:
        return session.send(ASK, seed=1, max_tokens=60).document


@pytest.mark.needs_model
def test_a_spawned_process_opens_the_same_bundle(demo_path: Path):
    expected = _in_child(str(demo_path))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_in_child, (str(demo_path),)) == expected
