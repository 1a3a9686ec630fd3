"""A console program with a model inside: it answers what stands on its command line. See build.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path

START = time.perf_counter()


def main() -> int:
    """Answer, and say on stderr how long it took to be ready."""
    from ltm_edge import Bundle
    from ltm_edge.errors import LtmError

    here = Path(getattr(sys, "_MEIPASS", Path(__file__).parent))
    try:
        with Bundle.open(here / "bundle.gguf") as bundle, bundle.session() as session:
            sys.stderr.write(f"ready after {time.perf_counter() - START:.2f} s\n")
            sys.stdout.write(session.send(" ".join(sys.argv[1:])).text + "\n")
    except (LtmError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
