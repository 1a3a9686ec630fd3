"""Results that go into files, and results as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["check_writable", "json_text", "write_file"]


def check_writable(path: Path | None) -> None:
    """Complain before the work is done, not after; None and ``-`` are no files.

    Raises:
        InputError: a file can't be written there.
    """
    from ltm_edge.errors import InputError

    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise InputError(f"{path}: can't be written: a directory; give a file to write")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: can't be written: its folder does not exist; create it first")


def write_file(path: Path, text: str) -> None:
    """Replace a file's content, in UTF-8.

    Raises:
        InputError: it can't be written.
    """
    from ltm_edge.errors import InputError
    from ltm_edge.files import write_atomic

    try:
        write_atomic(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from None


def json_text(value: Any) -> str:
    """Plain data as JSON; numbers that it doesn't have, such as NaN, become null."""
    return json.dumps(_known(value), indent=2, ensure_ascii=False, allow_nan=False)


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
