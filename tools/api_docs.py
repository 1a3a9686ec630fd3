"""Write docs/api.md from the docstrings of what `ltm_edge` exports. A test fails when the file is stale.

Usage: python tools/api_docs.py > docs/api.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import ltm_edge
from ltm_edge import errors
from ltm_edge.engine.decoder import Sampling
from ltm_edge.memory.chains import Chain
from ltm_edge.memory.counting import ArchetypeCount, ChainCount
from ltm_edge.memory.exchange import Imported
from ltm_edge.memory.log_entries import LogEntry
from ltm_edge.memory.records import Added, Forgotten, Link, Recall, Stats, StoredScene
from ltm_edge.settings import Settings

_INTRODUCTION = """# Python API

Made from the docstrings by `tools/api_docs.py`; [embedding.md](embedding.md) says how to use it inside a program. What
stands here is frozen: before version 2 nothing of it goes away, no parameter changes its name or its meaning, new
parameters are optional, and records only gain attributes. Names that begin with an underscore and modules that aren't
named here may change at any time.

```python
{example}
```
"""
# What the exported classes take and give without exporting it.
_RECORDS: tuple[type, ...] = (
    *(Added, ArchetypeCount, Chain, ChainCount, Forgotten, Imported, Link, LogEntry, Recall, Sampling, Settings, Stats),
    StoredScene,
)
_SECTIONS = ("Args", "Attributes", "Raises", "Returns")
_ITEM = re.compile(r"^([\w, *]+|[A-Z]\w+(?:, [A-Z]\w+)*): (.*)$")


def text() -> str:
    """The file's text."""
    out = [_INTRODUCTION.format(example=_example(inspect.getdoc(ltm_edge) or ""))]
    for name in sorted(ltm_edge.__all__):
        value = getattr(ltm_edge, name)
        if inspect.isclass(value) and not issubclass(value, errors.LtmError):
            out.append(_class(name, value))
    out.append(_records())
    out.append(_errors())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out))


def _class(name: str, kind: type) -> str:
    module = kind.__module__
    out = [f"## {name}\n\n`ltm_edge.{name}`{'' if module == 'ltm_edge' else f', of `{module}`'}\n"]
    parameters = getattr(kind, "__dataclass_fields__", None)
    if parameters is not None or not (inspect.getdoc(kind.__init__) or "").startswith("Use :meth:"):
        out.append(f"```python\n{name}{_signature(kind)}\n```\n")
    out.append(_prose(inspect.getdoc(kind) or ""))
    out += [_member(name, member, value) for member, value in _members(kind)]
    return "\n".join(out)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for member, value in vars(kind).items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if member.startswith("_") or not (inspect.isfunction(function) or isinstance(value, property)):
            continue
        yield member, value


def _member(owner: str, name: str, value: Any) -> str:
    if isinstance(value, property):
        kind = inspect.signature(value.fget).return_annotation  # type: ignore[arg-type]
        return f"### {owner}.{name}\n\n`{name}: {kind}`\n\n{_prose(inspect.getdoc(value) or '')}"
    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    function = inspect.unwrap(function)
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    bound = not isinstance(value, staticmethod)
    signature = _signature(function, drop_first=bound)
    return (
        f"### {owner}.{name}\n\n```python\n{prefix}{name}{signature}\n```\n\n{_prose(inspect.getdoc(function) or '')}"
    )


def _signature(function: Any, *, drop_first: bool = False) -> str:
    """The signature as it would be written, a parameter a line where it is long."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[drop_first:]
    body: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in [text[0] for text in body]:
            body.append("*")
        body.append(_parameter(parameter))
    returns = signature.return_annotation
    tail = "" if returns is inspect.Signature.empty else f" -> {returns}"
    line = f"({', '.join(body)}){tail}"
    return line if len(line) <= 100 else "(\n" + "".join(f"    {text},\n" for text in body) + f"){tail}"


def _parameter(parameter: inspect.Parameter) -> str:
    """One parameter; annotations are kept as text."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {parameter.annotation}"
    if parameter.default is not parameter.empty:
        text += f" = {parameter.default!r}"
    return text


def _prose(doc: str) -> str:
    """A docstring as Markdown: sections become lists, examples become code."""
    out: list[str] = []
    section = ""
    lines = iter(doc.splitlines())
    code: list[str] = []
    for line in lines:
        if line.startswith(">>>") or (code and line.strip()):
            code.append(line)
            continue
        if code:
            out.append("```python\n" + _example("\n".join(code)) + "\n```\n")
            code = []
        if line.rstrip(":") in _SECTIONS and line.endswith(":"):
            section = line.rstrip(":")
            out.append(f"{'Parameters' if section == 'Args' else section}:\n")
            continue
        if not section:
            out.append(_marks(line))
            continue
        if not line.strip():
            section = ""
            out.append("")
            continue
        inner = line[4:]
        found = _ITEM.match(inner)
        if found and not inner.startswith(" "):
            names = ", ".join(f"`{part.strip()}`" for part in found[1].split(","))
            out.append(f"- {names}: {_marks(found[2])}")
        elif inner.startswith(" ") and out and out[-1].startswith(("- ", "  ")):
            out.append(f"  {_marks(inner.strip())}")
        else:
            out.append(_marks(inner))
    if code:
        out.append("```python\n" + _example("\n".join(code)) + "\n```\n")
    return "\n".join(out).rstrip() + "\n"


def _marks(line: str) -> str:
    line = re.sub(r":\w+:`~?([\w.]+)`", lambda found: f"`{found[1].removeprefix('ltm_edge.')}`", line)
    return line.replace("``", "`")


def _example(doc: str) -> str:
    """The example of a docstring as it would be typed at a prompt."""
    lines = doc.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith(">>>")), len(lines))
    end = next((n for n in range(start, len(lines)) if not lines[n].strip()), len(lines))
    return "\n".join(lines[start:end])


def _records() -> str:
    out = ["## Records\n\nWhat the methods above take and give.\n"]
    for kind in _RECORDS:
        doc = inspect.getdoc(kind) or ""
        out.append(f"### {kind.__name__}\n\n`{kind.__module__}.{kind.__name__}`\n")
        if "Attributes:" not in doc:
            out.append(f"```python\n{kind.__name__}{_signature(kind)}\n```\n")
        properties = [(name, value) for name, value in _members(kind) if isinstance(value, property)]
        more = [f"- `{name}`: {_marks((inspect.getdoc(value) or '').splitlines()[0])}\n" for name, value in properties]
        out.append(_prose(doc) + "".join(more))
    return "\n".join(out) + "\n"


def _errors() -> str:
    out = ["## Errors\n\n`ltm_edge.errors`; all are `LtmError`. Callers tell them apart by class, never by text.\n"]
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not issubclass(kind, errors.LtmError):
            continue
        base = kind.__mro__[1].__name__
        about, _, rest = (inspect.getdoc(kind) or "").partition("\n\n")
        out.append(f"- `{name}`{'' if base == 'Exception' else f' ({base})'}: {_marks(' '.join(about.split()))}")
        _, marked, attributes = rest.partition("Attributes:\n")
        if marked:
            out += [f"  {line}" for line in _prose(f"Attributes:\n{attributes}").splitlines()[2:]]
    out.append(f"\nThe problems of a `SchemaError` are `Problem`s. {_prose(inspect.getdoc(errors.Problem) or '')}")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
