"""Held-out requests, one file for each bench: the data of `bench quality` and `bench channels`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ltm_edge.errors import InputError, LtmError
from ltm_edge.schemas.yaml import read_yaml

__all__ = ["HeldOut", "find_requests", "load_requests"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A request that nothing was trained on or tuned to.

    Attributes:
        id: unique in its file.
        lang: its language.
        text: what the person says.
    """

    id: str
    lang: str
    text: str


def find_requests(name: str) -> Path:
    """The file of a bench's requests in a checkout.

    Raises:
        InputError: this is an installed package, which has none.
    """
    path = Path(__file__).parents[2] / "tests" / "bench" / f"requests-{name}.yaml"
    if not path.is_file():
        raise InputError(f"{path}: no requests here; they come with the source, name their file with --requests")
    return path


def load_requests(path: Path) -> list[HeldOut]:
    """All requests of a file.

    Raises:
        InputError: it can't be read, is malformed, or holds none; says which and what.
    """
    try:
        data = read_yaml(path).data
        found = [HeldOut(str(one["id"]), str(one["lang"]), str(one["text"])) for one in data["requests"]]
    except (LtmError, OSError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a list of requests (id, lang, text): {type(error).__name__}: {error}") from None
    if not found:
        raise InputError(f"{path}: no requests in it")
    if len({one.id for one in found}) < len(found):
        raise InputError(f"{path}: two requests have the same id")
    return found
