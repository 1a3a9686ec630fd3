"""`ltm-edge doctor`: look at the installation and say what to do about each problem."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ltm_edge.cli.doctor_checks import Check

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the installation and say what to do about each problem.

    The exit code is 1 if there is one.
    """
    from ltm_edge.cli.doctor_checks import all_checks

    checks = all_checks()
    problems = sum(check.status == "problem" for check in checks)
    if as_json:
        from dataclasses import asdict

        report = {"ok": not problems, "problems": problems, "checks": [asdict(check) for check in checks]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_checks(checks)
        _print_remedies(checks)
    if problems:
        ctx.exit(1)


def _print_checks(checks: list[Check]) -> None:
    terminal = sys.stdout.isatty()
    for group in dict.fromkeys(check.group for check in checks):
        click.echo(f"{group}:")
        rows = [
            (f"  {check.name}", check.value if check.status == "ok" else f"{check.status.upper()}: {check.value}")
            for check in checks
            if check.group == group
        ]
        if terminal:
            from ltm_edge.cli.tables import print_pairs

            colours = {"note": "yellow", "problem": "bold red"}
            styles = {f"  {c.name}": colours[c.status] for c in checks if c.group == group and c.status in colours}
            print_pairs(rows, styles)
        else:
            for label, value in rows:
                click.echo(f"{label:<20} {value}")


def _print_remedies(checks: list[Check]) -> None:
    """What to do, problems first; the last lines, where the eye is."""
    todo = [check for check in checks if check.remedy]
    todo.sort(key=lambda check: check.status != "problem")
    click.echo("")
    if not any(check.status == "problem" for check in checks):
        click.echo("All is well." if not todo else "No problems; worth knowing:")
    else:
        click.echo("What to do:")
    for number, check in enumerate(todo, 1):
        click.echo(f"  {number}. {check.name}: {check.value}")
        click.echo(f"     {check.remedy}")
