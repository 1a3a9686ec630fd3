"""How well and how fast a model runs on this machine, by llama.cpp itself (needs the package llama-cpp-python).

All of it is done in a process of its own: llama.cpp ends the process over some broken models, its log belongs to the
whole process, and what is computed there ends with Ctrl-C.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_tools.errors import GgufError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["TEXT", "Measured", "Passage", "measure", "perplexity"]

# Some sentences of several kinds: talk, instructions, facts, a story, code. Written for this.
TEXT = """\
The library on Harbour Street opens at nine, but the woman who keeps the keys arrives an hour earlier. She waters the
plants, puts the newspapers in order and unlocks the small door for the fishermen, who read the weather before anyone
else does. "If the wind turns," one of them told me, "you will see us back before noon." That morning it did turn.

To make a simple bread, mix five hundred grams of flour with ten grams of salt, a spoon of dry yeast and about three
hundred and fifty millilitres of warm water. Knead the dough for ten minutes, cover it, and let it rest until it has
doubled in size. Bake it in a hot oven for forty minutes. It is done when it sounds hollow.

A planet moves faster when it is closer to its star. Kepler found this in the observations of Mars; Newton later showed
that it follows from gravity, a force that falls with the square of the distance. The same rule tells us how long a
satellite needs for one turn around the Earth, and why the Moon needs about a month.

I have been thinking about what you said yesterday. You are right that the plan is late, and you are also right that
nobody asked the people who would have to carry it out. Could we start again, with a smaller list? I would rather do
three things well than ten things badly. Let me know which three you would choose, and why.

def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
"""
_BATCH = 512
_LONGEST = 1024  # tokens of a passage; of a longer one the beginning is left out
_DECODED = 24
_ROUNDS_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A text whose end a model is to write, as ids of its own vocabulary.

    Attributes:
        tokens: the whole text.
        read: how many of them are given, at least 1; the perplexity is that of the others.
    """

    tokens: tuple[int, ...]
    read: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one file.

    Attributes:
        perplexity: on `TEXT`.
        own: on the passages that were given, all of them together; None where there were none, or it was too slow.
        prefill: tokens per second of a prompt; None where it was too slow.
        decode: tokens per second one at a time; None likewise.
    """

    perplexity: float
    own: float | None
    prefill: float | None
    decode: float | None

    @property
    def turn_seconds(self) -> float | None:
        """What a usual turn takes, 300 tokens of prompt and 100 of answer; None where it wasn't measured."""
        if self.prefill is None or self.decode is None:
            return None
        return 300 / self.prefill + 100 / self.decode


def measure(
    path: Path,
    *,
    passages: Sequence[Passage] = (),
    threads: int | None = None,
    patience: float = math.inf,
    rounds: int = 3,
) -> Measured:
    """Load a model and measure it.

    Args:
        path: the GGUF file.
        passages: texts of its own, beside `TEXT`.
        threads: CPU threads; None: llama.cpp's choice.
        patience: seconds that the perplexity on `TEXT` may take; a machine that needs more is too slow or too busy for
            the rest.
        rounds: repetitions of which the best counts, since whatever else the machine does only adds.

    Raises:
        GgufError: llama-cpp-python isn't installed, llama.cpp refuses the file, or this is a packed app.
    """
    given = [asdict(one) for one in passages]
    found = _asked(path, {"passages": given, "threads": threads, "patience": patience, "rounds": rounds})
    return Measured(**found)


def perplexity(path: Path, text: str = TEXT) -> float:
    """Perplexity of a text, its first token aside. Raises as `measure`."""
    return float(_asked(path, {"text": text})["perplexity"])


def _asked(path: Path, how: dict[str, Any]) -> dict[str, Any]:
    """What the process that measures prints, see `_main`."""
    if getattr(sys, "frozen", False):  # the executable is the packed app, which would only be started again
        raise GgufError(path, "can't be measured inside a packed app", remedy="convert with Python itself")
    command = [sys.executable, "-m", "gguf_tools.measure", str(path)]
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(
        command,
        input=json.dumps(how),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
        env=quiet,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise GgufError(path, "ends llama.cpp where it is run", remedy="its vocabulary or weights are broken") from None
    if "what" in found:
        raise GgufError(path, found["what"], remedy=found["remedy"])
    return found


def _measure(
    path: Path, passages: Sequence[Passage], threads: int | None, patience: float, rounds: int
) -> dict[str, Any]:
    with _Context(path, threads, max([_BATCH, *(len(one.tokens) for one in passages)])) as context:
        tokens = context.tokens(TEXT)
        start = time.perf_counter()
        score = context.perplexity([Passage(tuple(tokens), 1)])
        if time.perf_counter() - start > patience:
            return asdict(Measured(score, None, None, None))
        own = context.perplexity(passages) if passages else None
        prefill = _best(lambda: context.timed_prefill(tokens), rounds)
        decode = _best(lambda: context.timed_decode(tokens[0], _DECODED), rounds)
    return asdict(Measured(score, own, len(tokens) / prefill, _DECODED / decode))


def _best(once: Callable[[], float], rounds: int) -> float:
    """The shortest of so many rounds; fewer where one takes seconds."""
    found = [once()]
    while len(found) < rounds and sum(found) < _ROUNDS_SECONDS:
        found.append(once())
    return min(found)


class _Context:
    """A loaded model with one context; frees both."""

    def __init__(self, path: Path, threads: int | None = None, size: int = _BATCH) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            remedy = "install llama-cpp-python, or name the type"
            raise GgufError(path, "can't be measured without the package llama-cpp-python", remedy=remedy) from error
        self._api: Any = llama_cpp
        self._path = path
        llama_cpp.llama_backend_init()
        # The package's own callback is a Python function, in which a KeyboardInterrupt would be lost.
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise GgufError(path, "is refused by llama.cpp", remedy="its architecture may be newer than the library")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = size
        params.n_batch = params.n_ubatch = _BATCH
        if threads is not None:
            params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise GgufError(path, "gets no context from llama.cpp", remedy="free some memory")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)

    def tokens(self, text: str) -> list[int]:
        raw = text.encode("utf-8")
        buffer = (self._api.llama_token * len(raw))()
        count = self._api.llama_tokenize(self._vocab, raw, len(raw), buffer, len(raw), True, False)
        return list(buffer[: min(max(count, 0), _BATCH)])

    def perplexity(self, passages: Sequence[Passage]) -> float:
        """Of all tokens together that the passages want written."""
        lost = [self._lost(one.tokens, one.read) for one in passages]
        return math.exp(sum(sum(one) for one in lost) / max(sum(map(len, lost)), 1))

    def _lost(self, tokens: Sequence[int], read: int) -> list[float]:
        """What each token behind the first `read` costs, in nats."""
        import numpy as np

        self._clear()
        size = self._api.llama_vocab_n_tokens(self._vocab)
        found = []
        for start in range(0, len(tokens) - 1, _BATCH):
            part = tokens[start : min(start + _BATCH, len(tokens) - 1)]
            wanted = range(max(read - 1 - start, 0), len(part))
            self._batch(part, start, wanted)
            for i in wanted:
                pointer = self._api.llama_get_logits_ith(self._context, i)
                row: npt.NDArray[np.float64] = np.ctypeslib.as_array(pointer, (size,)).astype(np.float64)
                top = float(row.max())
                found.append(top + math.log(float(np.exp(row - top).sum())) - float(row[tokens[start + i + 1]]))
        return found

    def timed_prefill(self, tokens: list[int]) -> float:
        self._clear()
        start = time.perf_counter()
        self._batch(tokens, 0)
        return time.perf_counter() - start

    def timed_decode(self, token: int, count: int) -> float:
        self._clear()
        start = time.perf_counter()
        for position in range(count):
            self._batch([token], position)
        return time.perf_counter() - start

    def _clear(self) -> None:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)

    def _batch(self, tokens: Sequence[int], first: int, wanted: range | None = None) -> None:
        """Compute tokens from position `first` on, with the logits of those `wanted`; None: of the last one."""
        if wanted is None:
            wanted = range(len(tokens) - 1, len(tokens))
        batch = self._api.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, first + i, 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = i in wanted
            if self._api.llama_decode(self._context, batch) != 0:
                raise GgufError(self._path, "is refused by llama.cpp when it is run", remedy="its weights are broken")
            self._api.llama_synchronize(self._context)
        finally:
            self._api.llama_batch_free(batch)

    def __enter__(self) -> _Context:
        return self

    def __exit__(self, *error: object) -> None:
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)


def _main(path: str) -> None:
    """The process that measures: reads how from its input, prints what it found, or what is wrong, as JSON."""
    how = json.loads(sys.stdin.read())
    found: dict[str, Any]
    try:
        if "text" in how:
            with _Context(Path(path)) as context:
                tokens = context.tokens(how["text"])
                found = {"perplexity": context.perplexity([Passage(tuple(tokens), 1)])}
        else:
            passages = [_shortened(one["tokens"], one["read"]) for one in how.pop("passages")]
            found = _measure(Path(path), passages, **how)
    except GgufError as error:
        found = {"what": error.what, "remedy": error.remedy}
    sys.stdout.write(json.dumps(found))


def _shortened(tokens: Sequence[int], read: int) -> Passage:
    left_out = min(max(len(tokens) - _LONGEST, 0), read - 1)
    return Passage(tuple(tokens[left_out:][:_LONGEST]), read - left_out)


if __name__ == "__main__":
    _main(sys.argv[1])
