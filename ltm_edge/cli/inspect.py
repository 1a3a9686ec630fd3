"""`ltm-edge inspect`: what a GGUF file or a bundle holds, read from its header; nothing is loaded."""

from __future__ import annotations

import json
import sys

import click

__all__ = ["inspect"]


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(file: str, as_json: bool) -> None:
    """Show what a GGUF file or a bundle holds.

    Its name, architecture, size, quantisation, licence, tokenizer and ltm.* entries, and whether it can chat.
    """
    from gguf_tools.errors import GgufError
    from gguf_tools.reader import read_gguf
    from gguf_tools.summary import summarise
    from ltm_edge.errors import ModelError
    from ltm_edge.models import existing_file

    try:
        summary = summarise(read_gguf(existing_file(file)))
    except GgufError as error:
        raise ModelError(str(error)) from error
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from ltm_edge.cli.tables import print_pairs

        print_pairs(summary.lines())
    else:
        for label, value in summary.lines():
            click.echo(f"{label:<16} {value}")
