"""Imports point downwards only: the layers of CONTRIBUTING.md, read from the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest to the highest. A module may import from its own group and from those below; groups on one level
# (field, memory, engine) don't import each other.
LEVELS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("errors", "paths", "files", "hashes", "machine", "turn"), ("native", "native_check")),
    (("scene", "schemas", "grammar"),),
    (("engine",), ("memory",), ("field",)),
    (("settings",),),
    (("loop",), ("training",)),
    (("models", "embedders", "overlay_set", "bundle", "planner", "acceptance", "session", "scene_memory", "aio"),),
    (("store", "explain", "explain_thinking"), ("bench",), ("server",)),
    (("cli",),),
)
# The package's own face: names only, loaded lazily.
FACES = ("__init__", "__main__")
# The loop sees the engine and the memory as protocols.
FORBIDDEN = {("loop", "engine"), ("loop", "memory"), ("training", "engine"), ("training", "memory")}


def groups() -> dict[str, tuple[int, int]]:
    return {name: (i, j) for i, level in enumerate(LEVELS) for j, group in enumerate(level) for name in group}


def top_level_imports(path: Path) -> set[tuple[str, int]]:
    """Modules of ltm_edge and other packages that a file imports, with line numbers; type-checking blocks count too."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "ltm_edge":
                found.update((f"ltm_edge.{alias.name}", node.lineno) for alias in node.names)
            else:
                found.add((module, node.lineno))
        elif isinstance(node, ast.Import):
            found.update((alias.name, node.lineno) for alias in node.names)
    return found


def files(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts)


@pytest.mark.parametrize("path", files("ltm_edge"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    relative = path.relative_to(ROOT / "ltm_edge")
    own = relative.parts[0].removesuffix(".py")
    if own in FACES:
        return
    known = groups()
    assert own in known, f"{relative}: not in any layer; add it to LEVELS and to CONTRIBUTING.md"
    for module, line in top_level_imports(path):
        parts = module.split(".")
        if parts[0] != "ltm_edge" or len(parts) < 2:
            continue
        other = parts[1]
        if other in ("__version__", "_core"):
            continue
        if other == own:
            continue
        assert other in known, f"{relative}:{line}: {module} is in no layer"
        (level, group), (their_level, their_group) = known[own], known[other]
        allowed = their_level < level or (their_level == level and their_group == group)
        assert allowed, f"{relative}:{line}: {own} may not import {module}"
        assert (own, other) not in FORBIDDEN, f"{relative}:{line}: {own} sees {other} as a protocol only"


@pytest.mark.parametrize("path", files("gguf_tools"), ids=lambda p: str(p.relative_to(ROOT)))
def test_gguf_tools_stands_alone(path: Path):
    for module, line in top_level_imports(path):
        assert module.split(".")[0] != "ltm_edge", f"{path.name}:{line}: gguf_tools may not import ltm_edge"


def test_only_the_engine_sees_llama_and_nothing_below_the_bindings_sees_python():
    includes = {path: path.read_text(encoding="utf-8") for path in (ROOT / "csrc").rglob("*.[ch]*")}
    for path, text in includes.items():
        area = path.relative_to(ROOT / "csrc").parts[0]
        if area != "bindings":
            assert "Python.h" not in text and "pybind11" not in text, path
        if area in ("support", "grammar", "memory"):
            assert "<llama.h>" not in text and "<ggml" not in text, path
        for other in ("grammar", "engine", "memory", "bindings"):
            if f'#include "{other}/' in text:
                assert area in (other, "bindings") or (area == "engine" and other == "grammar"), f"{path}: {other}"


def test_bindings_stay_thin():
    lines = {True: 0, False: 0}
    for path in (ROOT / "csrc").rglob("*.[ch]*"):
        lines["bindings" in path.parts] += len(path.read_text(encoding="utf-8").splitlines())
    assert lines[True] <= 0.2 * (lines[True] + lines[False]), lines
