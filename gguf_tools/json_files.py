"""Reading JSON files that may be anything: bounded, UTF-8, and one class of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf_tools.errors import GgufError, Unreadable
from gguf_tools.printable import byte_count, printable

__all__ = ["read_json", "read_json_object"]


def read_json(path: Path, limit: int, error_class: type[GgufError]) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        limit: bytes that it may have.
        error_class: raised where it is missing, too long or not JSON.

    Raises:
        Unreadable: the system refuses to read it.
    """
    try:
        if not path.is_file():
            raise error_class(path, "is a folder" if path.is_dir() else "is missing")
        size = path.stat().st_size
        if size > limit:
            raise error_class(path, f"has {byte_count(size)}, {byte_count(limit)} allowed")
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise Unreadable(path, f"can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise error_class(path, f"isn't JSON: {printable(str(error), 120)}") from error


def read_json_object(path: Path, limit: int, error_class: type[GgufError]) -> dict[str, Any]:
    """The same, for a file that must hold an object."""
    found = read_json(path, limit, error_class)
    if not isinstance(found, dict):
        raise error_class(path, "isn't a JSON object")
    return found
