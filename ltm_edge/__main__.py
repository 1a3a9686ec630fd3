"""``python -m ltm_edge``: the same as the ``ltm-edge`` command."""

from __future__ import annotations

from ltm_edge.cli.main import main

if __name__ == "__main__":
    main()
