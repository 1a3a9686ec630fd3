"""Fetch vocabulary-only GGUF files for the tests: they stand in the source distribution of llama-cpp-python.

Usage: python tools/fetch_vocabularies.py FOLDER
Only the `ggml-vocab-*.gguf` files are unpacked; nothing of them belongs to this repository.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

RELEASE = "llama-cpp-python==0.3.36"


def main(folder: Path) -> None:
    """Download the source distribution and unpack its vocabularies into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*command, "--dest", work, RELEASE], check=True)
        (archive,) = Path(work).glob("*.tar.gz")
        count = 0
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and name.startswith("ggml-vocab-") and name.endswith(".gguf"):
                    source = tar.extractfile(member)
                    assert source is not None
                    (folder / name).write_bytes(source.read())
                    count += 1
    sys.stdout.write(f"{count} vocabularies in {folder}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
