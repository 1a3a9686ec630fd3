"""`python -m gguf_tools`: GGUF files and bundles without ltm-edge: making, looking at, checking and changing them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from gguf_tools.errors import GgufError, ManyProblems
from gguf_tools.files import ended_by_signals
from gguf_tools.printable import byte_count, printable, printable_path

_Options = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 1 if something isn't as it should be."""
    options = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        # A name in the file must not end the command on a terminal that can't show it.
        sys.stdout.reconfigure(errors="backslashreplace")
    run: Callable[[_Options], int] = options.run
    try:
        with ended_by_signals():
            return run(options)
    except ManyProblems as error:
        for problem in error.problems:
            print(f"error: {printable(problem, 4096)}", file=sys.stderr)
    except GgufError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{printable_path(error.filename)}: " if isinstance(error.filename, str) else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gguf_tools", description="Make, look at, check GGUF bundles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    convert = commands.add_parser("convert", help="make a bundle of a folder and a base model")
    convert.add_argument("folder", metavar="FOLDER", type=Path)
    convert.add_argument("--base", required=True, type=Path, metavar="GGUF", help="the base model")
    convert.add_argument("-o", "--out", required=True, type=Path, metavar="GGUF", help="the file to write")
    convert.add_argument(
        "--outtype", default="same", metavar="TYPE", help="type of the matrices: same, or such as Q8_0"
    )
    convert.add_argument("--lora-scale", default=1.0, type=float, metavar="S", help="factor on the LoRA")
    convert.add_argument("--force", action="store_true", help="replace what is there")
    convert.set_defaults(run=_convert)

    inspect = commands.add_parser("inspect", help="show what a file holds")
    inspect.set_defaults(run=_inspect)
    verify = commands.add_parser(
        "verify", help="check a file: header, ltm.* entries, sidecar folder, NaN and infinite numbers"
    )
    verify.set_defaults(run=_verify)
    for command in (inspect, verify):
        command.add_argument("file", metavar="FILE")
        command.add_argument("--json", action="store_true", help="print JSON")

    meta = commands.add_parser("set-meta", help="change a file's metadata")
    meta.add_argument("file", metavar="FILE", type=Path)
    meta.add_argument("set", nargs="*", metavar="KEY=VALUE", help="a value, or KEY=@FILE for a file's text")
    meta.add_argument("--remove", action="append", default=[], metavar="KEY", help="take a key out")
    meta.add_argument("-o", "--out", type=Path, metavar="GGUF", help="the file to write; default: FILE, with --force")
    meta.add_argument("--force", action="store_true", help="replace what is there")
    meta.set_defaults(run=_set_meta)

    extract = commands.add_parser("extract", help="write a bundle's documents and sidecar files into a folder")
    extract.add_argument("file", metavar="FILE", type=Path)
    extract.add_argument("-o", "--out", required=True, type=Path, metavar="FOLDER", help="the folder to make")
    extract.set_defaults(run=_extract)

    embedder = commands.add_parser("embedder", help="make the GGUF of a BERT embedding model")
    embedder.add_argument("folder", metavar="FOLDER", type=Path, help="model.safetensors, config.json, tokenizer.json")
    embedder.add_argument("-o", "--out", required=True, type=Path, metavar="GGUF", help="the file to write")
    embedder.add_argument("--outtype", default="F16", choices=("F16", "Q8_0"), help="type of the matrices")
    embedder.add_argument("--force", action="store_true", help="replace what is there")
    embedder.set_defaults(run=_embedder)
    return parser


def _convert(options: _Options) -> int:
    from gguf_tools.bundle_converter import BundleConverter, Options
    from gguf_tools.merge import use_one_blas_thread

    use_one_blas_thread()
    how = Options(options.outtype, options.lora_scale, options.force)
    converter = BundleConverter(options.folder, options.base, options.out, how)
    written = converter.run()
    for label, value in converter.summary(written):
        print(f"{label:<16} {value}")
    return 0


def _inspect(options: _Options) -> int:
    from gguf_tools.reader import read_gguf
    from gguf_tools.summary import summarise

    summary = summarise(read_gguf(options.file))
    if options.json:
        print(json.dumps(summary.to_dict(), indent=2))
        return 0
    for label, value in summary.lines():
        print(f"{label:<16} {value}")
    return 0


def _verify(options: _Options) -> int:
    from gguf_tools.verify import verify

    report = verify(options.file)
    if options.json:
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


def _set_meta(options: _Options) -> int:
    from gguf_tools.set_meta import MetadataEditor

    changes: dict[str, str | None] = dict.fromkeys(options.remove)
    for pair in options.set:
        key, equals, value = pair.partition("=")
        if not equals:
            print(f"error: '{printable(pair, 80)}': expected KEY=VALUE", file=sys.stderr)
            return 2
        changes[key] = _text_of(value[1:]) if value.startswith("@") else value
    target = options.out or options.file
    written = MetadataEditor(options.file, target, changes, force=options.force).run()
    print(f"{printable_path(written.target)}: {byte_count(written.nbytes)}, {len(changes)} keys changed")
    return 0


def _text_of(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise GgufError(path, "isn't UTF-8", remedy="save it as UTF-8") from error


def _extract(options: _Options) -> int:
    from gguf_tools.extract import extract

    for name in extract(options.file, options.out):
        print(printable(f"{options.out}/{name}", 4096))
    return 0


def _embedder(options: _Options) -> int:
    from gguf_tools.convert_bert import convert_bert
    from gguf_tools.errors import OutputExists

    if options.out.exists() and not options.force:
        raise OutputExists(options.out, "is there already")
    convert_bert(options.folder, options.out, options.outtype)
    print(f"{printable_path(options.out)}: {byte_count(options.out.stat().st_size)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
