"""Error codes of the protocol. They never change; a new class of error gets a new code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from ltm_edge import errors

__all__ = [
    "CODES",
    "BadRequest",
    "InvalidParams",
    "ParseError",
    "ServerBusy",
    "UnknownMethod",
    "error_object",
]


class BadRequest(errors.LtmError):
    """A message that is JSON but no request."""


class ParseError(errors.LtmError):
    """A line that isn't JSON in UTF-8."""


class UnknownMethod(errors.LtmError):
    """No method is called so."""


class InvalidParams(errors.SchemaError):
    """The parameters don't follow the method's schema."""


class ServerBusy(errors.LtmError):
    """Too many requests wait already."""


MAX_PROBLEMS = 20
"""Problems that one error lists."""

_INTERNAL = "InternalError"

CODES: Mapping[str, int] = MappingProxyType(
    {
        "ParseError": -32700,
        "BadRequest": -32600,
        "UnknownMethod": -32601,
        "InvalidParams": -32602,
        _INTERNAL: -32603,
        "ServerBusy": -32000,
        "LtmError": 1000,
        "BundleError": 1100,
        "ModelError": 1101,
        "GrammarError": 1200,
        "EngineError": 1300,
        "ContextFull": 1301,
        "Cancelled": 1400,
        "MemoryStoreError": 1500,
        "IndexStale": 1501,
        "InputError": 1600,
        "SchemaError": 1601,
        "SessionError": 1700,
        "SessionBusy": 1701,
        "TrainingError": 1800,
    }
)
"""Code by the name of the error's class; those below zero are JSON-RPC's own."""


def error_object(error: BaseException) -> dict[str, Any]:
    """The ``error`` member of a response. A class without a code of its own has that of its nearest base."""
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in CODES), _INTERNAL)
    data: dict[str, Any] = {"type": name}
    if isinstance(error, errors.SchemaError):
        data["problems"] = [asdict(problem) for problem in error.problems[:MAX_PROBLEMS]]
    if isinstance(error, errors.ContextFull):
        data |= {"needed": error.needed, "limit": error.limit}
    return {"code": CODES[name], "message": _message(error), "data": data}


def _message(error: BaseException) -> str:
    if isinstance(error, errors.SchemaError):
        listed = "; ".join(str(problem) for problem in error.problems[:MAX_PROBLEMS])
        more = len(error.problems) - MAX_PROBLEMS
        return " ".join(f"{listed}; and {more} more".split() if more > 0 else listed.split())
    if isinstance(error, errors.LtmError):
        return " ".join(str(error).split()) or type(error).__name__
    if type(error) is ImportError:  # the extension or llama.cpp isn't the right one, and the message says what to do
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "out of memory; a smaller model, a smaller ctx or kv_type q8_0 need less"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"{type(error).__name__}: {error} (a defect of ltm-edge)"
