"""`ltm-edge memory`: look at the scene memory, change it, carry it elsewhere."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ltm_edge.cli import console

if TYPE_CHECKING:
    from ltm_edge.memory.records import StoredScene
    from ltm_edge.scene_memory import SceneMemory

__all__ = ["memory"]

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group()
def memory() -> None:
    """Look at the scene memory, change it, carry it elsewhere."""


def _with_memory(function: Function) -> Function:
    """Give a command the memory that ``--folder`` or ``--name`` names, open, as its first argument."""

    @click.option("--folder", type=click.Path(path_type=Path), metavar="DIR", help="The memory's folder.")
    @click.option("--name", default="default", show_default=True, metavar="NAME", help="Its name in the data folder.")
    @functools.wraps(function)
    def command(*args: Any, folder: Path | None, name: str, **kwargs: Any) -> Any:
        from ltm_edge.scene_memory import SceneMemory, memory_folder

        path = folder if folder is not None else memory_folder(name)
        with SceneMemory.open(path, notice=console.notice, progress=_progress) as opened:
            return function(opened, *args, **kwargs)

    return command  # type: ignore[return-value]


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _progress(done: int, todo: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rembedding scenes: {done} of {todo}", err=True, nl=done >= todo)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _line(scene: StoredScene) -> str:
    marks = "".join(
        mark
        for mark, given in (("*", scene.pinned), ("~", scene.echo), ("→", scene.superseded_by is not None))
        if given
    )
    what = console.one_line(scene.text or scene.scene.response)
    what = what if len(what) <= 70 else what[:69] + "…"
    kind = "" if not scene.level else ("  [arc]", "  [saga]")[scene.level - 1]
    return f"{scene.id:>6}{marks or ' '}  {scene.created_at.astimezone():%Y-%m-%d %H:%M}{kind}  {what}"


def _one(opened: SceneMemory, reference: str) -> StoredScene:
    from ltm_edge.errors import InputError

    found = opened.get(reference)
    if found is None:
        raise InputError(f"no scene {reference!r} in {opened.folder}; `ltm-edge memory list` shows them")
    return found


def _moment(text: str | None) -> datetime | None:
    from ltm_edge.memory.records import read_iso

    if text is None:
        return None
    try:
        moment = read_iso(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no date such as 2026-01-31 or 2026-01-31T09:30") from None
    return moment if moment.tzinfo is not None else moment.astimezone().astimezone(timezone.utc)


@memory.command("list")
@click.option("--session", metavar="NAME", help="Only scenes of this session.")
@click.option("--level", type=click.Choice(["scene", "arc", "saga"]), help="Only this level.")
@click.option("--pinned", is_flag=True, help="Only pinned scenes.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="How many.")
@_json_option
@_with_memory
def list_(opened: SceneMemory, session: str | None, level: str | None, pinned: bool, limit: int, as_json: bool) -> None:
    """List scenes, newest first. * pinned, ~ repeats others, → superseded."""
    from ltm_edge.memory.records import LEVELS

    number = LEVELS.index(level) if level is not None else None
    found = opened.scenes(session=session, level=number, pinned=pinned, limit=limit)
    if as_json:
        _print_json([one.to_dict() for one in found])
        return
    for one in found:
        click.echo(_line(one))
    if not found:
        console.notice("no scenes")


@memory.command()
@click.argument("text", nargs=-1, required=True)
@click.option("-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Hits, at most.")
@click.option("--session", metavar="NAME", help="Only scenes of this session.")
@click.option("--history", is_flag=True, help="Superseded scenes as well.")
@_json_option
@_with_memory
def search(
    opened: SceneMemory, text: tuple[str, ...], k: int, session: str | None, history: bool, as_json: bool
) -> None:
    """Recall scenes for a text, with the parts of their scores."""
    hits = opened.recall(" ".join(text), k, session=session, history=history, budget_tokens=0, chain_depth=0)
    if as_json:
        _print_json([{**hit.to_dict(), "scene": hit.scene.to_dict()} for hit in hits])
        return
    for hit in hits:
        click.echo(_line(hit.scene))
        if hit.via == "found":
            parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.parts.items())
            click.echo(console.dim(f"         {hit.score:.2f} = {parts}"))
    if not hits:
        console.notice("nothing found")


@memory.command()
@click.argument("scene", metavar="ID")
@_json_option
@_with_memory
def show(opened: SceneMemory, scene: str, as_json: bool) -> None:
    """Show one scene with its links."""
    found = _one(opened, scene)
    links = opened.links(found.id)
    if as_json:
        listed = [{"source": a.source, "target": a.target, "kind": a.kind, "weight": a.weight} for a in links]
        _print_json({**found.to_dict(), "links": listed})
        return
    click.echo(_line(found))
    for label, value in (
        ("uid", found.uid),
        ("session", found.session),
        ("template", found.template),
        ("provenance", found.provenance),
        ("strength", f"{found.strength:.2f}"),
        ("keys", ", ".join(found.keys)),
        ("superseded by", str(found.superseded_by or "")),
    ):
        if value:
            click.echo(f"{label:<14} {console.one_line(value)}")
    for link in links:
        other = f"{link.kind} → {link.target}" if link.source == found.id else f"{link.kind} ← {link.source}"
        click.echo(f"{'link':<14} {other}")
    if found.text:
        click.echo(f"\n{console.printable(found.text)}")
    click.echo(f"\n{console.printable(found.scene.to_yaml())}", nl=False)


@memory.command()
@click.argument("scene", metavar="ID")
@_json_option
@_with_memory
def chain(opened: SceneMemory, scene: str, as_json: bool) -> None:
    """Show the chain that a scene stands in, oldest first, and the arcs above it."""
    found = opened.chain(_one(opened, scene).id)
    if as_json:
        _print_json(
            {"scenes": [a.to_dict() for a in found.scenes], "summaries": [a.to_dict() for a in found.summaries]}
        )
        return
    for one in (*found.summaries, *found.scenes):
        click.echo(_line(one))


@memory.command()
@click.option("--svg", "form", flag_value="svg", default="svg", help="As a picture (the default).")
@click.option("--dot", "form", flag_value="dot", help="For Graphviz.")
@click.option("--limit", type=click.IntRange(1, 10000), default=300, show_default=True, help="The newest so many.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to a file.")
@_with_memory
def graph(opened: SceneMemory, form: str, limit: int, out: Path | None) -> None:
    """Draw scenes, links, arcs and sagas."""
    from ltm_edge.cli.outputs import write_file
    from ltm_edge.memory.graph import graph_dot, graph_svg

    scenes = opened.scenes(limit=limit)
    text = (graph_dot if form == "dot" else graph_svg)(scenes, opened.links())
    if out is not None:
        write_file(out, text)
    else:
        click.echo(text, nl=False)


@memory.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--text", default="", help="What was said to get it.")
@click.option("--session", default="", metavar="NAME")
@click.option("--pin", "pinned", is_flag=True, help="Pin it.")
@_json_option
@_with_memory
def add(opened: SceneMemory, file: Any, text: str, session: str, pinned: bool, as_json: bool) -> None:
    """Add a scene.yaml; - reads stdin."""
    from ltm_edge.scene.record import Scene
    from ltm_edge.schemas.yaml import MAX_BYTES

    scene = Scene.from_yaml(file.read(MAX_BYTES + 1), getattr(file, "name", "-"))
    done = opened.add(scene, text=text, session=session, provenance="given", pinned=pinned)
    if as_json:
        _print_json({"id": done.id, "status": done.status, "superseded": list(done.superseded)})
    else:
        click.echo(f"{done.status}: scene {done.id}")
        for number in done.superseded:
            click.echo(f"scene {number} is superseded")


@memory.command()
@click.argument("scene", metavar="ID")
@click.option("--text", help="What was said.")
@click.option("--file", type=click.File("rb"), help="The new scene.yaml; without it an editor opens.")
@_with_memory
def edit(opened: SceneMemory, scene: str, text: str | None, file: Any) -> None:
    """Replace a scene by a new version; the old one stays as history."""
    from ltm_edge.scene.record import Scene
    from ltm_edge.schemas.yaml import MAX_BYTES

    found = _one(opened, scene)
    record = None
    if file is not None:
        record = Scene.from_yaml(file.read(MAX_BYTES + 1), file.name)
    elif text is None:
        written = click.edit(found.scene.to_yaml(), extension=".yaml")
        if written is None:
            console.notice("nothing was changed")
            return
        record = Scene.from_yaml(written, "<editor>")
    done = opened.edit(found.id, record, text=text)
    click.echo(f"scene {found.id} is now scene {done.id}")


@memory.command()
@click.argument("scenes", metavar="[ID ...]", nargs=-1)
@click.option("--query", metavar="WORDS", help="Scenes in which all these words stand.")
@click.option("--before", metavar="DATE", help="Scenes told before this date.")
@click.option("--session", metavar="NAME", help="Scenes of this session.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@_json_option
@_with_memory
def forget(
    opened: SceneMemory,
    scenes: tuple[str, ...],
    query: str | None,
    before: str | None,
    session: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Forget scenes for good. Says what goes, and asks."""
    if not scenes and query is None and before is None and session is None:
        raise click.UsageError("Say what: IDs, --query, --before or --session.")
    numbers = [_one(opened, reference).id for reference in scenes]
    conditions: dict[str, Any] = {"query": query, "before": _moment(before), "session": session}
    going = opened.forget(*numbers, **conditions, dry_run=True)
    if not going.all:
        if as_json:
            _print_json({"forgotten": []})
        else:
            console.notice("nothing to forget")
        return
    if not yes:
        for one in going.all[:20]:
            click.echo(_line(one), err=True)
        if len(going.all) > 20:
            click.echo(f"        … and {len(going.all) - 20} more", err=True)
        extra = f" (with {len(going.versions)} older versions and {len(going.summaries)} summaries)"
        click.confirm(
            f"Forget {len(going.scenes)} scenes{extra if going.versions or going.summaries else ''}?",
            abort=True,
            err=True,
        )
    gone = opened.forget(*(one.id for one in going.scenes))
    if as_json:
        _print_json({"forgotten": [one.id for one in gone.all]})
    else:
        click.echo(f"{len(gone.all)} forgotten; `ltm-edge memory compact` removes the last traces from the files")


@memory.command()
@click.argument("scene", metavar="ID")
@click.option("--off", is_flag=True, help="Unpin it.")
@_with_memory
def pin(opened: SceneMemory, scene: str, off: bool) -> None:
    """Pin a scene: always a candidate, never decays."""
    found = _one(opened, scene)
    opened.pin(found.id, not off)
    click.echo(f"scene {found.id} is {'no longer ' if off else ''}pinned")


@memory.command()
@_json_option
@_with_memory
def stats(opened: SceneMemory, as_json: bool) -> None:
    """Show figures of the memory."""
    from dataclasses import asdict

    found = opened.stats()
    if as_json:
        _print_json({**asdict(found), "embedders": dict(found.embedders), "folder": str(opened.folder)})
        return
    for key, value in asdict(found).items():
        shown = ", ".join(f"{name} ({count})" for name, count in value.items()) if isinstance(value, dict) else value
        click.echo(f"{key:<12} {'' if shown is None else shown}")


@memory.command()
@click.option("--session", metavar="NAME", help="Arcs of this session only.")
@_json_option
@_with_memory
def consolidate(opened: SceneMemory, session: str | None, as_json: bool) -> None:
    """Write arcs of runs of linked, similar scenes, and sagas of arcs."""
    made = opened.consolidate(session=session)
    if as_json:
        _print_json([one.to_dict() for one in made])
        return
    for one in made:
        click.echo(_line(one))
    if not made:
        console.notice("nothing to consolidate")


@memory.command()
@_with_memory
def compact(opened: SceneMemory) -> None:
    """Rewrite the files without what was forgotten."""
    before = opened.stats().bytes
    opened.compact()
    click.echo(f"{before} bytes before, {opened.stats().bytes} after")


@memory.command()
@_json_option
@_with_memory
def verify(opened: SceneMemory, as_json: bool) -> None:
    """Check the store and its index. The exit code is 1 if something is wrong."""
    opened.fill()
    problems = opened.verify()
    if as_json:
        _print_json({"ok": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(problem)
        if not problems:
            click.echo("all is well")
    if problems:
        click.get_current_context().exit(1)


@memory.command("export")
@click.argument("target", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--faiss", is_flag=True, help="Write a FAISS folder instead of JSON Lines.")
@_with_memory
def export(opened: SceneMemory, target: Path | None, faiss: bool) -> None:
    """Write all scenes and links as JSON Lines, to a file or to stdout."""
    if faiss:
        if target is None:
            raise click.UsageError("--faiss needs the name of a folder.")
        click.echo(f"{opened.export_faiss(target)} scenes", err=True)
    elif target is None or str(target) == "-":
        opened.export(sys.stdout)
    else:
        click.echo(f"{opened.export_file(target)} scenes", err=True)


@memory.command("import")
@click.argument("source", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Pass over lines that can't be read; else one keeps all out.")
@_json_option
@_with_memory
def import_(opened: SceneMemory, source: Path, skip_bad: bool, as_json: bool) -> None:
    """Take in an export, a character card or lorebook (pinned), or a FAISS folder."""
    done = opened.import_path(source, skip_bad=skip_bad)
    if as_json:
        bad = [{"line": number, "problem": problem} for number, problem in done.bad]
        _print_json({"scenes": done.scenes, "links": done.links, "known": done.known, "bad": bad})
        return
    click.echo(f"{done.scenes} scenes, {done.links} links; {done.known} were known already")
    for number, problem in done.bad:
        console.notice(f"{source}:{number}: {problem}")
    if done.bad_lines > len(done.bad):
        console.notice(f"… and {done.bad_lines - len(done.bad)} more lines")


@memory.command()
@click.argument("target", metavar="FOLDER", type=click.Path(path_type=Path))
@_with_memory
def pack(opened: SceneMemory, target: Path) -> None:
    """Write a clean copy of the memory into a bundle folder (its memory/)."""
    from ltm_edge.errors import InputError

    if target.suffix.lower() == ".gguf" or target.is_file():
        raise InputError(f"{target}: name the bundle's folder; a GGUF gets its memory when the folder is converted")
    click.echo(f"{opened.pack(target / 'memory')} scenes in {target / 'memory'}")


@memory.command()
@_with_memory
def path(opened: SceneMemory) -> None:
    """Print the memory's folder."""
    click.echo(str(opened.folder))
