"""`ltm-edge inspect`: what a GGUF file or a bundle holds, read from its header; nothing is loaded."""

from __future__ import annotations

import json
import sys

import click

__all__ = ["inspect"]


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--map", "as_map", is_flag=True, help="Print ltm_architect_map.yaml: all parts and how they connect.")
@click.option("--svg", "as_svg", is_flag=True, help="Print a drawing of the field: zones, links and channels.")
def inspect(file: str, as_json: bool, as_map: bool, as_svg: bool) -> None:
    """Show what a GGUF file or a bundle holds.

    Its name, architecture, size, quantisation, licence and tokenizer, whether it can chat, and what the bundle adds:
    overlay, zones and links, templates, adapters, memory, hashes. A plain model is shown with the packaged overlay.
    """
    if as_json + as_map + as_svg > 1:
        raise click.UsageError("--json, --map and --svg are three ways to print; give one.")
    from gguf_tools.errors import GgufError
    from gguf_tools.summary import inspect_file
    from ltm_edge.cli.console import write_out
    from ltm_edge.errors import BundleError, ModelError
    from ltm_edge.hashes import file_sha256
    from ltm_edge.models import existing_file

    path = existing_file(file)
    try:
        summary, reader = inspect_file(path, hasher=file_sha256)
    except GgufError as error:
        raise ModelError(str(error)) from error
    if as_json:
        write_out(json.dumps(summary.to_dict(), indent=2, ensure_ascii=False) + "\n")
        return
    lines = summary.lines()
    if as_map or as_svg or (reader is not None and reader.is_bundle):
        if reader is None:
            raise BundleError(f"{path}: {summary.ltm_problem}")
        from ltm_edge.cli.bundle_map import architect_map, bundle_lines
        from ltm_edge.cli.field_drawing import field_svg
        from ltm_edge.overlay_set import load_overlay

        loaded = load_overlay(reader.documents if reader.is_bundle else None, str(path))
        if as_map or as_svg:
            write_out(architect_map(reader, loaded) if as_map else field_svg(loaded))
            return
        lines = [row for row in lines if not row[0].startswith("ltm")] + bundle_lines(reader, loaded)
    if sys.stdout.isatty():
        from ltm_edge.cli.tables import print_pairs

        print_pairs(lines)
    else:
        for label, value in lines:
            click.echo(f"{label:<16} {value}")
