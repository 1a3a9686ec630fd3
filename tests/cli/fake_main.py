"""``python fake_main.py chat ...``: the real command line over a bundle without a model."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ltm_edge.cli import options
from ltm_edge.cli.main import main
from tests.cli.fakes import FakeBundle

if __name__ == "__main__":
    options.open_bundle = lambda path, model: FakeBundle()
    main()
