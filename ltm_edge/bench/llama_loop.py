"""llama.cpp's own decode loop: what a token costs without anything of ours, at the same settings.

The loop is that of llama.cpp's `examples/simple`: decode one token, take the likeliest with its greedy sampler.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.engine.model import Tokens
from ltm_edge.errors import ModelError

__all__ = ["LlamaLoop", "peak_memory"]

_BATCH = 512


class LlamaLoop:
    """A context of llama.cpp's, used through the C functions of llama-cpp-python."""

    def __init__(self, path: Path, n_ctx: int, threads: int) -> None:
        """Load the model and make the context. Raises ModelError if llama.cpp can't."""
        import llama_cpp
        from llama_cpp._logger import set_verbose

        set_verbose(False)
        self._lib: Any = llama_cpp
        lib = self._lib
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp can't load it")
        wanted = lib.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = n_ctx, _BATCH, _BATCH
        wanted.n_threads = wanted.n_threads_batch = threads
        wanted.no_perf = True
        self._context = lib.llama_init_from_model(self._model, wanted)
        if not self._context:
            lib.llama_model_free(self._model)
            raise ModelError(f"{path}: llama.cpp can't make a context of {n_ctx} tokens")
        self._sampler = lib.llama_sampler_init_greedy()

    def read(self, tokens: Tokens) -> None:
        """Prefill int32 [n], forgetting what was there."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        for begin in range(0, len(tokens), _BATCH):
            self._decode(tokens[begin : begin + _BATCH])

    def write(self, n: int) -> tuple[Tokens, float]:
        """Write ``n`` tokens greedily, also past an end of generation.

        Returns:
            The tokens, int32 [n], and seconds from the first choice to the last decode.
        """
        lib = self._lib
        written = np.empty(n, dtype=np.int32)
        begin = time.perf_counter()
        for i in range(n):
            written[i] = lib.llama_sampler_sample(self._sampler, self._context, -1)
            self._decode(written[i : i + 1])
        return written, time.perf_counter() - begin

    def close(self) -> None:
        """Free all of it."""
        if self._context:
            self._lib.llama_sampler_free(self._sampler)
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = None

    def _decode(self, tokens: Tokens) -> None:
        block = np.ascontiguousarray(tokens, dtype=np.int32)
        pointer = block.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        if self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(pointer, len(block))) != 0:
            raise ModelError("llama.cpp's own loop: it can't decode")


_PEAK = """
import json, resource, sys
import numpy as np
from pathlib import Path
way, path, n_ctx, threads, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
tokens = (np.arange(n, dtype=np.int32) * 7) % 1000 + 100
from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder, Sampling
from ltm_edge.bench.llama_loop import LlamaLoop
import llama_cpp
if way == "ours":
    with Bundle.open(path, ctx=n_ctx, gpu_layers=0, threads=threads) as bundle:
        Decoder(bundle.model).write(tokens, max_tokens=32, sampling=Sampling(temperature=0.0))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
else:
    loop = LlamaLoop(path, n_ctx, threads)
    loop.read(tokens)
    loop.write(32)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(peak * (1 if sys.platform == "darwin" else 1024)))
"""


def peak_memory(path: Path, n_ctx: int, threads: int) -> tuple[int, int] | None:
    """Peak resident bytes of (ours, llama.cpp's own loop) after a full batch of prompt and some tokens.

    llama.cpp allocates the whole context at once, so what is read of it changes nothing. Each runs in a process
    of its own that has imported the same packages. None where it can't be measured (Windows).
    """
    if sys.platform == "win32":
        return None
    peaks = []
    for way in ("ours", "llama.cpp"):
        arguments = [way, str(path), str(n_ctx), str(threads), str(_BATCH + 88)]
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode != 0:
            return None
        peaks.append(int(json.loads(done.stdout.strip().splitlines()[-1])))
    return peaks[0], peaks[1]
