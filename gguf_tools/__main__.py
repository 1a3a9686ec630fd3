"""`python -m gguf_tools`: look at GGUF files and check them, without loading them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from gguf_tools.errors import GgufError
from gguf_tools.printable import printable, printable_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 1 if the file is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m gguf_tools", description="Look at GGUF files and check them.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="show what a file holds")
    verify = commands.add_parser(
        "verify", help="check a file: header, ltm.* entries, sidecar folder, NaN and infinite numbers"
    )
    for command in (inspect, verify):
        command.add_argument("file", metavar="FILE")
        command.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        # A name in the file must not end the command on a terminal that can't show it.
        sys.stdout.reconfigure(errors="backslashreplace")
    return _inspect(options.file, options.json) if options.command == "inspect" else _verify(options.file, options.json)


def _inspect(file: str, as_json: bool) -> int:
    from gguf_tools.reader import read_gguf
    from gguf_tools.summary import summarise

    try:
        summary = summarise(read_gguf(file))
    except GgufError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(summary.to_dict(), indent=2))
        return 0
    for label, value in summary.lines():
        print(f"{label:<16} {value}")
    return 0


def _verify(file: str, as_json: bool) -> int:
    from gguf_tools.verify import verify

    report = verify(file)
    if as_json:
        print(json.dumps({**asdict(report), "file": printable_path(report.file)}, indent=2))
    elif report.problems:
        for problem in report.problems:
            print(f"problem: {printable(problem, 4096)}")
    else:
        print(
            f"{printable_path(report.file)}: all well; {report.tensors} tensors, "
            f"the numbers of {report.checked} float tensors read ({report.nbytes} bytes)"
        )
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
