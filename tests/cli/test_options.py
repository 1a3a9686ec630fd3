"""Numbers that no turn could go by are refused before anything is loaded."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from ltm_edge.cli.main import cli
from ltm_edge.errors import InputError
from ltm_edge.settings import Settings


@pytest.mark.parametrize(
    ("option", "value"),
    [("top-k", "2000000"), ("top-p", "0"), ("min-p", "1"), ("repeat-penalty", "0"), ("temperature", "11")],
)
def test_what_settings_refuse_the_command_line_refuses_at_once(option: str, value: str) -> None:
    with pytest.raises(InputError):
        Settings().changed({option.replace("-", "_"): value})
    done: Result = CliRunner().invoke(cli, ["run", "/nowhere/none.gguf", "--text", "x", f"--{option}", value])
    assert done.exit_code == 2 and f"--{option}" in done.output
