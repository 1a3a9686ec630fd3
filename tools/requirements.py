"""Print the run-time requirements of a pyproject.toml and those of the given extras, one a line.

pip can install extras only together with the project, which would build it a second time.
"""

from __future__ import annotations

import sys
from pathlib import Path


def _load(path: Path) -> dict[str, object]:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib  # type: ignore[no-redef]
    return tomllib.loads(path.read_text(encoding="utf-8"))


def main(arguments: list[str]) -> None:
    """Print the requirements of ``arguments[0]``, with those of the extras that follow."""
    project = _load(Path(arguments[0]))["project"]
    assert isinstance(project, dict)
    extras = project.get("optional-dependencies", {})
    for requirement in [*project["dependencies"], *(r for name in arguments[1:] for r in extras[name])]:
        sys.stdout.write(f"{requirement}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
