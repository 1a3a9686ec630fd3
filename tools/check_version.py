"""Check before a release that the tag is the version and that the changelog knows it.

Usage: python tools/check_version.py TAG      (such as v1.2.3; another name than that of a tag is let through)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version() -> str:
    """The version, from the one place where it stands."""
    text = (ROOT / "ltm_edge" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)[1]  # type: ignore[index]


def problem(tag: str) -> str:
    """What is wrong with a tag; nothing where all is well."""
    if not re.match(r"v\d", tag):
        return ""
    if tag != f"v{version()}":
        return f"the tag is {tag}, ltm_edge/__init__.py says {version()}"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version())}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        return f"CHANGELOG.md has no heading `## [{version()}] - YYYY-MM-DD`"
    return ""


if __name__ == "__main__":
    sys.exit(problem(sys.argv[1]) or 0)
