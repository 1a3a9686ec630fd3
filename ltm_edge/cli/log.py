"""`ltm-edge log`: an integration log as a table and a small plot."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltm_edge.cli import console

if TYPE_CHECKING:
    from ltm_edge.memory.counting import ArchetypeCount, ChainCount
    from ltm_edge.memory.log_entries import LogEntry

__all__ = ["log"]

_NAME_CHARS = 40
_BAR = 24
_DAYS = 60
_ARCHETYPES = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class _Log:
    """What is shown: entries, and the counters of a memory."""

    entries: Sequence[LogEntry]
    archetypes: Sequence[ArchetypeCount] = ()
    chains: Sequence[ChainCount] = ()


@click.command()
@click.option("--memory", metavar="NAME|FOLDER", help="Log of this memory; by default that of memory `default`.")
@click.option("--bundle", metavar="FOLDER|FILE", help="Log of a bundle instead, which its training writes.")
@click.option(
    "--last", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="The last N entries; 0: all."
)
@click.option("--archetype", metavar="NAME", help="Only what concerns this archetype.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def log(memory: str | None, bundle: str | None, last: int, archetype: str | None, as_json: bool) -> None:
    """Show what was accepted, strengthened or trained, and when.

    A table of the last entries, oldest first, and a plot of all of them: strengthenings a day and per archetype, and
    what training gained.
    """
    if memory is not None and bundle is not None:
        raise click.UsageError("--memory and --bundle name two logs; give one.")
    ids = _archetype_ids()

    def known(name: str) -> str:
        return ids.get(name.casefold(), name.casefold())

    found = _of_bundle(bundle) if bundle is not None else _of_memory(memory or "default", ids)
    if archetype is not None:
        found = _only(found, known, known(archetype))
    shown = found.entries[-last:] if last else found.entries
    if as_json:
        _print_json(found, shown)
        return
    if not found.entries:
        console.notice("nothing was logged yet" if archetype is None else f"nothing was logged of {archetype}")
        return
    _print_table(("when", "what", "scene", "of", "from → to", "by"), [_row(one) for one in shown], right=(2,))
    if len(shown) < len(found.entries):
        click.echo(console.dim(f"the last {len(shown)} of {len(found.entries)} entries; --last 0 shows all"))
    _plot(found, known, None if archetype is None else known(archetype))


def _archetype_ids() -> dict[str, str]:
    """Ids of the packaged field's archetypes by their names in all languages, in lower case."""
    from ltm_edge.overlay_set import load_overlay

    names = load_overlay(None).archetype_names()
    return {name.casefold(): key for of in names.values() for key, name in of.items()}


def _of_memory(name: str, ids: Mapping[str, str]) -> _Log:
    from ltm_edge.cli.chat_memory import memory_path
    from ltm_edge.errors import InputError
    from ltm_edge.memory.store import STORE_NAME
    from ltm_edge.scene_memory import SceneMemory

    folder = memory_path(name)
    if not (folder / STORE_NAME).exists():
        raise InputError(f"{folder}: no memory there; name another with --memory, or a bundle with --bundle")
    with SceneMemory.open(folder, archetype_ids=ids, notice=console.notice) as opened:
        return _Log(opened.log(), opened.archetypes(), opened.chains())


def _of_bundle(name: str) -> _Log:
    from gguf_tools.bundle_reader import BundleReader
    from gguf_tools.errors import GgufError
    from ltm_edge.errors import BundleError
    from ltm_edge.hashes import file_sha256
    from ltm_edge.memory.integration_log import LOG_NAME
    from ltm_edge.memory.log_entries import read_log
    from ltm_edge.models import existing_file

    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / LOG_NAME).exists():
            return _Log(read_log(folder / LOG_NAME))
        if not (folder / "ltm_overlay_config.yaml").exists():
            raise BundleError(f"{folder}: no bundle: neither {LOG_NAME} nor ltm_overlay_config.yaml is there")
        return _Log(())
    path = existing_file(name)
    try:
        reader = BundleReader.open(path, hasher=file_sha256)
    except GgufError as error:
        raise BundleError(str(error)) from error
    if not reader.is_bundle:
        raise BundleError(f"{path}: a plain model, which has no log; name a bundle, or a memory with --memory")
    return _Log(read_log(reader.file(LOG_NAME)) if LOG_NAME in reader.files else ())


def _only(found: _Log, known: Callable[[str], str], archetype: str) -> _Log:
    entries = [one for one in found.entries if archetype in map(known, one.archetypes)]
    return _Log(entries, [one for one in found.archetypes if known(one.archetype) == archetype])


def _print_json(found: _Log, shown: Sequence[LogEntry]) -> None:
    from ltm_edge.memory.records import to_iso

    def counted(one: ArchetypeCount | ChainCount) -> dict[str, Any]:
        return {**asdict(one), "last": to_iso(one.last)}

    value = {
        "entries": [one.record for one in shown],
        "archetypes": [counted(one) for one in found.archetypes],
        "chains": [counted(one) for one in found.chains],
    }
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


# The table ----------------------------------------------------------------------------------------------------------


def _row(one: LogEntry) -> tuple[str, ...]:
    return (
        "" if one.at is None else f"{_local(one.at):%Y-%m-%d %H:%M}",
        _short(one.what),
        "" if one.scene is None else str(one.scene),
        _short(", ".join(one.archetypes) or (f"chain {one.chain}" if one.chain else "")),
        _step(one.before, one.after),
        _short(f"scene {one.by}" if one.what == "superseded" else one.by),
    )


def _local(moment: int) -> datetime:
    return (_EPOCH + timedelta(microseconds=moment)).astimezone()


def _short(text: str) -> str:
    plain = console.one_line(text)
    return plain if len(plain) <= _NAME_CHARS else plain[: _NAME_CHARS - 1] + "…"


def _step(before: float | None, after: float | None) -> str:
    if before is None and after is None:
        return ""
    values = [value for value in (before, after) if value is not None]
    form = "{:.2f}"
    if all(value.is_integer() and abs(value) < 1e9 for value in values):
        form = "{:.0f}"
    elif any(abs(value) >= 1e6 for value in values) or len({form.format(value) for value in values}) < len({*values}):
        form = "{:.4g}"
    return " → ".join("?" if value is None else form.format(value) for value in (before, after))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print columns as wide as they need to be; the head is quiet."""
    from wcwidth import width

    wide = [max(width(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for number, row in enumerate((head, *rows)):
        cells = []
        for i, cell in enumerate(row):
            blank = " " * (wide[i] - width(cell))
            cells.append(blank + cell if i in right else cell + blank)
        line = "  ".join(cells).rstrip()
        click.echo(console.dim(line) if number == 0 else line)


# The plot -----------------------------------------------------------------------------------------------------------


def _plot(found: _Log, known: Callable[[str], str], only: str | None) -> None:
    strengthened = [one for one in found.entries if one.what == "strengthened"]
    _plot_days([one.at for one in strengthened if one.at is not None])
    names = (known(name) for one in strengthened for name in one.archetypes)
    _plot_archetypes(Counter(name for name in names if only in (None, name)), found.archetypes)
    _plot_training([one for one in found.entries if one.what == "trained"])


def _plot_days(moments: Sequence[int]) -> None:
    if not moments:
        return
    from ltm_edge.cli.plots import blocks_of

    days = Counter(_local(moment).date() for moment in moments)
    last = max(days)
    first = max(min(days), last - timedelta(days=_DAYS - 1))
    span = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    line = blocks_of(sys.stdout).spark([days[day] for day in span])
    click.echo(f"\nstrengthened a day, at most {max(days.values())}")
    click.echo(f"{_day(first)} {line} {_day(last)}" if len(span) > 1 else f"{_day(first)} {line}")


def _day(day: date) -> str:
    return console.dim(f"{day:%Y-%m-%d}")


def _plot_archetypes(strengthened: Counter[str], counted: Sequence[ArchetypeCount]) -> None:
    accepted = {one.archetype: one for one in counted}
    names = sorted({*strengthened, *accepted}, key=lambda name: (-strengthened[name], -_turns(accepted, name), name))
    if not names:
        return
    from ltm_edge.cli.plots import blocks_of

    blocks, most = blocks_of(sys.stdout), max(strengthened.values(), default=0)
    rows = []
    for name in names[:_ARCHETYPES]:
        score = accepted[name].score if name in accepted else None
        bar = f"{blocks.bar(strengthened[name], most, _BAR)} {strengthened[name]}".strip()
        rows.append((_short(name), str(_turns(accepted, name)), "" if score is None else f"{score:.2f}", bar))
    click.echo()
    _print_table(("archetype", "accepted", "score", "strengthened"), rows, right=(1, 2))
    if len(names) > _ARCHETYPES:
        click.echo(console.dim(f"and {len(names) - _ARCHETYPES} more archetypes"))


def _turns(accepted: dict[str, ArchetypeCount], name: str) -> int:
    return accepted[name].accepted if name in accepted else 0


def _plot_training(entries: Sequence[LogEntry]) -> None:
    """What training gained on each archetype and chain: from its first value to its last."""
    runs: dict[str, list[LogEntry]] = {}
    for one in entries:
        of = ", ".join(one.archetypes) or (f"chain {one.chain}" if one.chain else "all")
        if one.before is not None and one.after is not None:
            runs.setdefault(of, []).append(one)
    if not runs:
        return
    from ltm_edge.cli.plots import blocks_of

    blocks = blocks_of(sys.stdout)
    rows = []
    for of, steps in runs.items():
        before, after = steps[0].before or 0.0, steps[-1].after or 0.0
        fall = (before - after) / before if before > 0 else 0.0
        rows.append((_short(of), _step(before, after), f"{-fall:+.0%}", blocks.bar(fall, 1.0, _BAR)))
    click.echo()
    _print_table(("trained", "from → to", "change", "fell by"), rows, right=(2,))
