"""Turn: what one exchange of a session leaves behind, as it is kept in memory and in session files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ltm_edge.errors import SessionError

__all__ = ["Turn", "now"]


def now() -> str:
    """The present moment as ISO 8601 in UTC with seconds, such as ``2026-01-31T09:30:00+00:00``."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Turn:
    """One request and its answer.

    Attributes:
        request: what the user said.
        document: the document as the model wrote it (scene YAML); cut off where the answer was stopped.
        reply_text: what was shown to the user in the wanted form.
        template: name of the scene template that the document follows.
        lang: language of the turn, such as ``en`` or ``ru``.
        partial: the answer was stopped before its document was complete.
        trace: the turn's trace object; anything in it can be written as JSON.
        created: ISO 8601 time of the request, in UTC.
    """

    request: str
    document: str
    reply_text: str
    template: str
    lang: str
    partial: bool = False
    trace: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=now)

    def to_json(self) -> str:
        """The turn as one line of JSON, without a line feed; always encodable as UTF-8."""
        record = {name: getattr(self, name) for name in _KINDS}
        record["trace"] = dict(self.trace)
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str)
        try:
            line.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate: only JSON's own escapes can carry it
            line = json.dumps(record, ensure_ascii=True, separators=(",", ":"), default=str)
        return line

    @classmethod
    def from_json(cls, line: str | bytes, where: str = "<string>") -> Turn:
        """Read a turn from one line of JSON. Keys that this version doesn't know are ignored.

        Raises:
            SessionError: the line isn't JSON, or a key is missing or of the wrong type.
        """
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SessionError(f"{where}: a turn must be one JSON object: {error}") from None
        if not isinstance(record, dict):
            raise SessionError(f"{where}: a turn must be a JSON object, found {type(record).__name__}")
        for name, kind in _KINDS.items():
            if name not in record:
                raise SessionError(f"{where}: {name}: missing")
            if not isinstance(record[name], kind):
                found = type(record[name]).__name__
                raise SessionError(f"{where}: {name}: expected {kind.__name__}, found {found}")
        return cls(**{name: record[name] for name in _KINDS})


_KINDS: dict[str, type] = {
    "request": str,
    "document": str,
    "reply_text": str,
    "template": str,
    "lang": str,
    "partial": bool,
    "trace": dict,
    "created": str,
}
