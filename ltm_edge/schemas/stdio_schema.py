"""docs/stdio.schema.json: the messages of `ltm-edge stdio` as a JSON Schema (draft 2020-12), made of the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter

from ltm_edge.schemas.stdio import METHODS, NOTIFICATIONS, PROTOCOL

__all__ = ["json_schema"]


def json_schema(codes: Mapping[str, int]) -> dict[str, Any]:
    """The published schema: a message of either side is one of `anyOf`; each method's own under `methods`.

    Args:
        codes: error codes by name.
    """
    kinds: dict[str, type] = {}
    for name, (params, result) in METHODS.items():
        kinds[f"{name} params"] = params
        if result is not None:
            kinds[f"{name} result"] = result
    kinds.update({f"{name} params": kind for name, kind in NOTIFICATIONS.items()})
    mode: Literal["validation"] = "validation"
    made, shared = TypeAdapter.json_schemas(
        [(key, mode, TypeAdapter(kind)) for key, kind in kinds.items()], ref_template="#/$defs/{model}"
    )
    of = {key: made[key, mode] for key in kinds}
    methods = {
        name: {"params": of[f"{name} params"], "result": of[f"{name} result"] if result else {"type": "null"}}
        for name, (_, result) in METHODS.items()
    }
    needs = {name for name in METHODS if methods[name]["params"] != of["shutdown params"]}
    requests = [_request(name, methods[name]["params"], name in needs) for name in METHODS]
    results: list[Any] = []
    for method in methods.values():
        if method["result"] not in results:
            results.append(method["result"])
    notifications = [_notification(name, of[f"{name} params"]) for name in NOTIFICATIONS]
    defs = {
        **shared["$defs"],
        "Id": {"type": ["string", "number", "null"]},
        "Error": _error(codes),
        "Request": {"anyOf": requests},
        "Response": _response(results),
        "ErrorResponse": _message({"id": {"$ref": "#/$defs/Id"}, "error": {"$ref": "#/$defs/Error"}}),
        "Notification": {"anyOf": notifications},
    }
    one = [{"$ref": f"#/$defs/{name}"} for name in ("Request", "Response", "ErrorResponse", "Notification")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ltm-edge stdio",
        "description": "JSON-RPC 2.0 over standard input and output: one message a line, UTF-8.",
        "version": PROTOCOL,
        "anyOf": [*one, {"type": "array", "minItems": 1, "items": {"anyOf": one}}],
        "methods": methods,
        "$defs": defs,
    }


def _message(properties: Mapping[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"jsonrpc": {"const": "2.0"}, **properties},
        "required": ["jsonrpc", *(key for key in properties if key not in optional)],
        "additionalProperties": False,
    }


def _request(name: str, params: Any, needed: bool) -> dict[str, Any]:
    """A request; without an id it is a notification, which isn't answered."""
    properties = {"id": {"$ref": "#/$defs/Id"}, "method": {"const": name}, "params": params}
    return _message(properties, ("id",) if needed else ("id", "params"))


def _notification(name: str, params: Any) -> dict[str, Any]:
    return _message({"method": {"const": name}, "params": params})


def _response(results: list[Any]) -> dict[str, Any]:
    return _message({"id": {"$ref": "#/$defs/Id"}, "result": {"anyOf": results}})


def _error(codes: Mapping[str, int]) -> dict[str, Any]:
    text = ", ".join(f"{code} {name}" for name, code in codes.items())
    problem = {
        "type": "object",
        "properties": {
            "where": {"type": "string"},
            "path": {"type": "string"},
            "message": {"type": "string"},
            "line": {"type": "integer"},
            "column": {"type": "integer"},
        },
        "required": ["where", "path", "message", "line", "column"],
        "additionalProperties": False,
    }
    data = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "description": "name of the error class"},
            "problems": {"type": "array", "items": problem},
            "needed": {"type": "integer"},
            "limit": {"type": "integer"},
        },
        "required": ["type"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "code": {"enum": sorted(codes.values()), "description": text},
            "message": {"type": "string"},
            "data": data,
        },
        "required": ["code", "message", "data"],
        "additionalProperties": False,
    }
