"""``ltm-edge run``: one request, its result on stdout."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from ltm_edge.cli.options import (
    FORMS,
    MemoryOptions,
    ModelOptions,
    bundle_argument,
    memory_options,
    model_options,
    sampling_options,
)
from ltm_edge.cli.outputs import check_writable, write_file

__all__ = ["read_request", "run"]

MAX_INPUT = 8 * 1024 * 1024
_FILE = click.Path(path_type=Path, allow_dash=True)


@click.command(short_help="Answer one request and print the result.")
@bundle_argument
@click.option("--text", metavar="TEXT|-", help="The request; - reads it from stdin.")
@click.option("--pvq", type=_FILE, metavar="FILE|-", help="The request as a PVQ.yaml; - reads it from stdin.")
@click.option("--form", type=click.Choice(FORMS), help="Form of the result; the PVQ's own, else auto.")
@click.option("--template", metavar="NAME", help="Scene template to use.")
@click.option("--system", metavar="TEXT", help="A system prompt of your own, added to the template's directive.")
@click.option("--trace", type=_FILE, metavar="FILE", help="Write the turn's trace there, as JSON.")
@click.option("--out", type=_FILE, metavar="FILE", help="Write the result there instead of on stdout.")
@functools.partial(memory_options, default=False)
@sampling_options
@model_options
def run(
    bundle: str | None,
    text: str | None,
    pvq: Path | None,
    form: str | None,
    template: str | None,
    system: str | None,
    trace: Path | None,
    out: Path | None,
    memory: MemoryOptions,
    sampling: dict[str, Any],
    model: ModelOptions,
) -> int:
    """Answer one request and print the result.

    Only the result goes to stdout. With --seed the same request gives the same bytes on the same machine. An
    answer stopped by Ctrl-C is printed as far as it came. Nothing is recalled or stored unless --memory names where;
    then the same request may get another answer the next time. An image is an SVG document; a terminal gets a picture
    in box-drawing characters instead, unless --out says where the SVG goes (- for the terminal).
    """
    if (text is None) == (pvq is None):
        raise click.UsageError("Give the request with either --text or --pvq.")
    from ltm_edge.cli import console, options
    from ltm_edge.cli.answering import answer, exit_code, terminable
    from ltm_edge.cli.chat_memory import ChatMemory, clock
    from ltm_edge.cli.picture import picture

    for path in (trace, out):
        check_writable(path)
    request = read_request(text, pvq)
    with terminable():
        loaded = options.open_bundle(bundle, model)
        try:
            for line in loaded.describe():
                console.notice(line)
            remembered = ChatMemory(loaded, memory, required=True)
            session = loaded.session(
                system=system,
                template=template,
                lang=model.lang,
                form=form or "auto",
                sampling=sampling or None,
                memory=remembered.opened,
                clock=clock,
            )
            try:
                outcome = answer(
                    session,
                    lambda on_token, on_event: session.send(request, on_token=on_token, on_event=on_event, form=form),
                    lambda piece: None,
                )
            finally:
                session.close()
                remembered.close()
        finally:
            loaded.close()
    reply = outcome.reply
    for line in (*(reply.trace.get("notices") or ()), *remembered.notices()):
        console.notice(str(line))
    result = reply.text if reply.text.endswith("\n") else reply.text + "\n"
    if out is None and reply.form == "image" and not reply.partial:
        result = picture(reply.document) or result
    try:
        if out is None or str(out) == "-":
            console.write_out(result)
        else:
            write_file(out, result)
    finally:
        if trace is not None:
            _write_trace(trace, reply.trace)
    if outcome.stopped_by is not None:
        return exit_code(outcome.stopped_by)
    return 0


def read_request(text: str | None, pvq: Path | None) -> Any:
    """The request to send: the text as it is, or a PVQ record.

    Raises:
        InputError: it can't be read or is too large.
        SchemaError: the PVQ doesn't follow its schema.
    """
    if pvq is None:
        if text == "-":
            return _decoded(_stdin()).removeprefix("\ufeff")
        return text
    from ltm_edge.scene.pvq import Pvq

    if str(pvq) == "-":
        return Pvq.from_yaml(_decoded(_stdin()), "<stdin>")
    return Pvq.from_yaml(_read(pvq), str(pvq))


def _read(path: Path) -> str:
    from ltm_edge.errors import InputError

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_INPUT + 1)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    return _decoded(_limited(data, str(path)))


def _stdin() -> bytes:
    source = getattr(sys.stdin, "buffer", None)
    data = source.read(MAX_INPUT + 1) if source is not None else sys.stdin.read().encode("utf-8", "surrogatepass")
    return _limited(data, "<stdin>")


def _limited(data: bytes, where: str) -> bytes:
    from ltm_edge.errors import InputError

    if len(data) > MAX_INPUT:
        raise InputError(f"{where}: more than {MAX_INPUT} bytes; a request has to fit into the model's context")
    return data


def _decoded(data: bytes) -> str:
    from ltm_edge.cli.chat_input import decode

    return decode(data)


def _write_trace(path: Path, trace: Any) -> None:
    import json

    text = json.dumps(dict(trace), ensure_ascii=True, indent=2, default=str) + "\n"
    if str(path) == "-":
        click.echo(text, err=True, nl=False)
    else:
        write_file(path, text)
