"""Prints what hostile files are answered with: every case of the tests' own tables with its error, a line each.

    python tests/bundles/refused.py > refused.md

Fails if a case is taken, or answered with anything but errors of one line.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from gguf_tools.bundle_converter import BundleConverter
from gguf_tools.errors import GgufError, ManyProblems
from gguf_tools.reader import read_gguf
from gguf_tools.sidecar import check_sidecar
from tests.bundles import refused_folders, tiny
from tests.gguf_tools import test_gguf_ltm, test_gguf_malformed, test_safetensors, test_sidecar

Case = tuple[str, Callable[[Path], object]]


def gguf_files() -> Iterator[Case]:
    """Malformed GGUF files, and `ltm.*` entries of the wrong kind."""
    for name, (make, _, _) in test_gguf_malformed.CASES.items():

        def malformed(folder: Path, make: Callable[[], object] = make) -> object:
            made = make()
            file = folder / "model.gguf"
            file.write_bytes(made if isinstance(made, bytes) else made.build())  # type: ignore[attr-defined]
            return read_gguf(file)

        yield name, malformed
    for name, (changes, _, _) in test_gguf_ltm.WRONG.items():
        yield f"ltm: {name}", lambda folder, changes=changes: test_gguf_ltm.entries(folder, changes)


def safetensors_files() -> Iterator[Case]:
    """Malformed safetensors files."""
    for name, (content, _) in test_safetensors.CASES.items():
        yield name, lambda folder, content=content: test_safetensors.read(folder, content)


def bundle_folders() -> Iterator[Case]:
    """Bundle folders and LoRAs."""
    for name, (make, _) in refused_folders.REFUSED.items():

        def converted(folder: Path, make: Callable[[Path], object] = make) -> object:
            base = tiny.write(tiny.make("llama"), folder / "base.gguf")
            make(folder / "folder")
            return BundleConverter(folder / "folder", base, folder / "out.gguf").run()

        yield name, converted


def sidecar_folders() -> Iterator[Case]:
    """Manifests and sidecar folders."""
    for name, (change, _) in test_sidecar.MANIFESTS.items():

        def listed(folder: Path, change: Callable[[dict[str, object]], object] = change) -> list[str]:
            made = test_sidecar.manifest()
            changed = change(made)
            target = test_sidecar.sidecar(folder / "bundle.ltm")
            (target / "manifest.json").write_text(json.dumps(changed if isinstance(changed, list) else made))
            return check_sidecar(target)

        yield f"manifest: {name}", listed
    for name, (alter, _) in test_sidecar.FOLDERS.items():

        def there(folder: Path, alter: Callable[[Path], object] = alter) -> list[str]:
            target = test_sidecar.sidecar(folder / "bundle.ltm")
            alter(target)
            return check_sidecar(target)

        yield name, there


def answer(case: Callable[[Path], object]) -> list[str]:
    """The errors that a case is answered with, without the scratch folder's path; empty if it is taken."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = case(Path(scratch))
        except ManyProblems as error:
            found = list(error.problems)
        except GgufError as error:
            found = [str(error)]
        return [line.replace(f"{scratch}/", "") for line in found] if isinstance(found, list) else []


def main() -> int:
    """Print all tables; returns the exit code."""
    wrong = count = 0
    for title, cases in (
        ("GGUF", gguf_files),
        ("safetensors", safetensors_files),
        ("bundle folders and LoRAs", bundle_folders),
        ("sidecar folders", sidecar_folders),
    ):
        print(f"\n## {title}\n\n| input | answer |\n|---|---|")
        for name, case in cases():
            lines = answer(case)
            count += 1
            wrong += not lines or not all(line.isprintable() for line in lines)
            shown = "<br>".join(line.replace("|", "\\|") for line in lines) or "**taken**"
            print(f"| {name} | {shown} |")
    print(f"\n{count} inputs, {count - wrong} refused with one-line errors, {wrong} not.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
