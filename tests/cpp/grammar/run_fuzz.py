"""Runs the grammar fuzzer over many seeds and sums up: inputs, crashes, slowest input, growth of memory.

The sanitizers make everything slower and larger, so a run that passes a limit with them is repeated, with the same seed
and so the same inputs, by the plain program, whose verdict counts. Usage:

    run_fuzz.py SANITIZED PLAIN [--inputs 1000000] [--each 10000] [--seed 1]
"""

import argparse
import os
import re
import subprocess
import sys
import time

SUMMARY = re.compile(r"(\d+) inputs: (\d+) compiled.*slowest (\d+) ms; grew (\d+) MB")
OVER_LIMIT = 2  # exit status of the fuzzer
LIMIT_S = 1800.0  # wall time of one run: beyond, it hangs


def run(program: str, inputs: int, seed: int) -> tuple[int, str]:
    """Exit status and output of one run; -1 if it had to be ended."""
    # Freed memory that the sanitizer keeps back is no growth of ours.
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=16", "UBSAN_OPTIONS": "print_stacktrace=1"}
    try:
        done = subprocess.run(
            [program, str(inputs), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as expired:
        return -1, str(expired.stdout or "")
    return done.returncode, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sanitized")
    parser.add_argument("plain")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=10_000, help="inputs in one process")
    parser.add_argument("--seed", type=int, default=1, help="of the first process; the next take the next ones")
    options = parser.parse_args()

    total = compiled = crashes = over = 0
    slowest = grown = 0
    began = time.monotonic()
    seed = options.seed
    while total < options.inputs:
        inputs = min(options.each, options.inputs - total)
        status, output = run(options.sanitized, inputs, seed)
        judged = "sanitized"
        if status in (OVER_LIMIT, -1):
            print(f"seed {seed}: past a limit with sanitizers, run again without\n{output}", flush=True)
            status, output = run(options.plain, inputs, seed)
            judged = "plain"
        found = SUMMARY.search(output)
        if status not in (0, OVER_LIMIT) or found is None:
            crashes += 1
            print(f"seed {seed}: FAILED with status {status} ({judged})\n{output}", flush=True)
        else:
            compiled += int(found[2])
            slowest = max(slowest, int(found[3]))
            grown = max(grown, int(found[4]))
            if status == OVER_LIMIT:
                over += 1
                print(f"seed {seed}: PAST A LIMIT ({judged})\n{output}", flush=True)
        total += inputs
        seed += 1
        print(
            f"{total} inputs, {compiled} compiled, {crashes} crashed runs, {over} past a limit; slowest {slowest} ms "
            f"of processor time; grew {grown} MB; {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return 1 if crashes or over else 0


if __name__ == "__main__":
    sys.exit(main())
