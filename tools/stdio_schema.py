"""Write docs/stdio.schema.json from the records of the protocol. A test fails when the file is stale.

Usage: python tools/stdio_schema.py > docs/stdio.schema.json
"""

from __future__ import annotations

import json
import sys

from ltm_edge.schemas.stdio_schema import json_schema
from ltm_edge.server.codes import CODES


def text() -> str:
    """The file's text."""
    return json.dumps(json_schema(CODES), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
