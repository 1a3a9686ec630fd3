"""Running a chat template that came inside a model file: untrusted Jinja under hard limits.

jinja2's immutable sandbox keeps a template away from Python's internals and from changing what it is given.
It doesn't keep it from looping or from doubling a string, so the syntax tree is rewritten before it is
compiled: every loop, every ``~``, every list and every piece of output pays into one budget for time, steps
and characters. Methods and filters that make large values from small ones are either measured or not offered.
"""

from __future__ import annotations

import datetime
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

__all__ = ["MAX_TEMPLATE_BYTES", "BoundedTemplate", "RenderLimits", "TemplateRefusal"]

MAX_TEMPLATE_BYTES = 256 * 1024

_FILTERS = frozenset(
    {
        "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby",
        "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
        "rejectattr", "replace", "reverse", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson",
        "trim", "truncate", "unique", "upper", "wordcount",
    }
)  # fmt: skip
_STR_METHODS = frozenset(
    {
        "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal",
        "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join",
        "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition",
        "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    }
)  # fmt: skip
_INT_LIMIT = 1 << 63
_SIZE_LIMIT = 1_000_000
_WIDE_FORMAT = re.compile(r"\d{4}|\{[^{}]*\{")


class TemplateRefusal(Exception):
    """The template can't be rendered: too large, not parseable, it raised, or it broke a limit."""


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What one rendering may cost.

    Attributes:
        seconds: wall-clock time.
        steps: loop iterations and calls.
        characters: text produced, text that is thrown away included.
    """

    seconds: float = 2.0
    steps: int = 400_000
    characters: int = 16_000_000


class _Budget:
    def __init__(self, limits: RenderLimits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self._steps = limits.steps
        self._characters = limits.characters

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise SecurityError(f"more than {self._limits.steps} steps")
        if time.monotonic() > self._deadline:
            raise SecurityError(f"longer than {self._limits.seconds:g} s")

    def spend(self, characters: int) -> None:
        self._characters -= characters
        if self._characters < 0:
            raise SecurityError(f"more than {self._limits.characters} characters")


class _Meter(NodeTransformer):
    """Routes loops, ``~``, list and dict literals and output through the filters that pay into the budget."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = self._through(cast(nodes.Expr, node.iter), "_metered_items")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(nodes.List(node.nodes, lineno=node.lineno), "_metered_concat")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(node, "_metered_literal")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(node, "_metered_literal")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(node, "_metered_literal") if node.ctx == "load" else node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [self._output(child) for child in node.nodes]
        return node

    def _output(self, child: nodes.Expr) -> nodes.Expr:
        if isinstance(child, nodes.TemplateData):
            child = nodes.Const(child.data, lineno=child.lineno)
        return self._through(child, "_metered_output")

    @staticmethod
    def _through(value: nodes.Expr, name: str) -> nodes.Expr:
        return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


class _GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's part for training; for rendering it is only a pair of brackets."""

    tags: set[str] = {"generation"}  # noqa: RUF012  (jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # folding constants would run expressions before any budget exists
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self._local = threading.local()
        self.filters = {name: function for name, function in self.filters.items() if name in _FILTERS}
        self.filters["tojson"] = _tojson
        self.filters["replace"] = self._replace
        self.filters["join"] = self._join
        self.filters["indent"] = self._indent
        self.filters["string"] = self._metered_output
        self.filters["_metered_items"] = self._metered_items
        self.filters["_metered_literal"] = self._metered_literal
        self.filters["_metered_concat"] = self._metered_concat
        self.filters["_metered_output"] = self._metered_output
        self.globals.pop("lipsum", None)
        self.globals["raise_exception"] = _raise_exception

    def open_budget(self, limits: RenderLimits) -> None:
        self._local.budget = _Budget(limits)

    @property
    def _budget(self) -> _Budget:
        budget: _Budget = self._local.budget
        return budget

    # -- what the sandbox asks -------------------------------------------------------------------------

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in _STR_METHODS
        if isinstance(obj, (bytes, bytearray, int, float)):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        form = str(value.__self__)

        def bounded(*args: Any, **kwargs: Any) -> str:
            if _WIDE_FORMAT.search(form):
                raise SecurityError("a format with a large or computed width")
            text = formatted(*args, **kwargs)
            self._budget.spend(len(text))
            return text

        return bounded

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self._budget.step()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            for name in ("_loop_vars", "_block_vars"):  # what compiled code adds for macros
                kwargs.pop(name, None)
            name = getattr(__obj, "__name__", "")
            if name not in _STR_METHODS:
                raise SecurityError(f"the method {name} of text is not offered to templates")
            if name == "replace":
                return __self._replace(__context, owner, *args, **kwargs)
            if name == "join":
                return __self._join(__context, args[0] if args else (), owner)
            __self._budget.spend(len(owner))
        return __self._measured(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = self._budget
        budget.step()
        if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            budget.spend(len(left) + len(right))
        elif operator == "*" and (isinstance(left, Sized) or isinstance(right, Sized)):
            size, times = (left, right) if isinstance(left, Sized) else (right, left)
            budget.spend(len(size) * max(0, int(times)))
        elif operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("the % operator on text is not offered to templates")
        elif operator == "**" and (abs(left) > _INT_LIMIT or abs(right) > 64):
            raise SecurityError("a power that is too large")
        value = super().call_binop(context, operator, left, right)
        if isinstance(value, int) and abs(value) > _INT_LIMIT:
            raise SecurityError("a number that is too large")
        return self._measured(value)

    # -- what pays (pass_context also keeps jinja2 from running a filter while it compiles) ----------------

    def _measured(self, value: Any) -> Any:
        """The value, unless it would be huge written out: lists that hold the same list twice grow fast."""
        if isinstance(value, (list, tuple, dict)):
            self._budget.step(1 + len(value))
            if _written_size(value, {}) > _SIZE_LIMIT:
                raise SecurityError("a value that is too large")
        return value

    @pass_context
    def _metered_literal(self, context: Context, value: Any) -> Any:
        return self._measured(value)

    @pass_context
    def _metered_items(self, context: Context, value: Any) -> list[Any]:
        if isinstance(value, Sized):
            self._budget.step(1 + len(value))
            return list(value)  # type: ignore[call-overload, no-any-return]
        return list(self._each(value))

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._budget.step()
            yield value

    @pass_context
    def _metered_concat(self, context: Context, values: list[Any]) -> str:
        parts = [str(value) for value in values]
        self._budget.step()
        self._budget.spend(sum(map(len, parts)))
        return "".join(parts)

    @pass_context
    def _metered_output(self, context: Context, value: Any) -> str:
        text = str(value)
        self._budget.spend(len(text))
        return text

    @pass_context
    def _replace(self, context: Context, value: Any, old: str, new: str, count: int = -1) -> str:
        text = str(value)
        self._budget.step()
        times = text.count(str(old)) if count is None or count < 0 else min(count, text.count(str(old)))
        self._budget.spend(len(text) + times * len(str(new)))
        return text.replace(str(old), str(new), -1 if count is None else count)

    @pass_context
    def _join(self, context: Context, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        items = self._metered_items(context, values)
        if attribute is not None:
            items = [self.getitem(item, attribute) for item in items]
        parts = [str(item) for item in items]
        self._budget.spend(sum(map(len, parts)) + len(str(d)) * max(0, len(parts) - 1))
        return str(d).join(parts)

    @pass_context
    def _indent(
        self, context: Context, value: Any, width: int | str = 4, first: bool = False, blank: bool = False
    ) -> str:
        text = str(value)
        margin = width if isinstance(width, str) else " " * max(0, min(int(width), 64))
        self._budget.spend(len(text) + len(margin) * (text.count("\n") + 1))
        lines = text.split("\n")
        kept = [margin + line if (line or blank) else line for line in lines]
        if not first:
            kept[0] = lines[0]
        return "\n".join(kept)


def _written_size(value: Any, known: dict[int, int]) -> int:
    """About how many items and pieces of text a value holds, shared parts counted each time they stand."""
    if isinstance(value, str):
        return 1 + len(value) // 64
    if not isinstance(value, (list, tuple, dict)):
        return 1
    size = known.get(id(value))
    if size is None:
        held = value.values() if isinstance(value, dict) else value
        size = known[id(value)] = 1 + len(value) + sum(_written_size(item, known) for item in held)
    return size


def _raise_exception(message: Any = "") -> str:
    raise TemplateError(str(message))


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, **_: Any) -> str:
    """JSON as chat templates expect it: nothing escaped for HTML, as in transformers."""
    width = None if indent is None else max(0, min(int(indent), 16))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=width)


class BoundedTemplate:
    """A chat template, parsed and compiled once.

    Args:
        source: Jinja text.
        limits: what one rendering may cost.

    Raises:
        TemplateRefusal: the text is too large or isn't Jinja.
    """

    def __init__(self, source: str, limits: RenderLimits | None = None) -> None:
        size = len(source.encode("utf-8", "surrogatepass"))
        if size > MAX_TEMPLATE_BYTES:
            raise TemplateRefusal(f"{size} bytes, at most {MAX_TEMPLATE_BYTES} are read")
        self._limits = limits or RenderLimits()
        self._environment = _Environment()
        try:
            tree = _Meter().visit(self._environment.parse(source))
            code = self._environment.compile(tree)
            self._template = Template.from_code(self._environment, code, self._environment.make_globals(None))
        except TemplateSyntaxError as error:
            raise TemplateRefusal(f"line {error.lineno}: {one_line(error.message)}") from None
        except (TemplateError, RecursionError, MemoryError, SyntaxError, ValueError, AssertionError) as error:
            raise TemplateRefusal(f"{type(error).__name__}: {one_line(error)}") from None

    def render(self, variables: Mapping[str, Any], today: datetime.date) -> str:
        """The template's text with these variables; ``strftime_now`` knows ``today`` at midnight.

        Raises:
            TemplateRefusal: the template raised, failed, or broke a limit.
        """
        moment = datetime.datetime.combine(today, datetime.time())

        def clock(form: str = "%Y-%m-%d") -> str:
            return moment.strftime(str(form)[:64])

        self._environment.open_budget(self._limits)
        try:
            return "".join(self._template.generate(**variables, strftime_now=clock))
        except TemplateError as error:
            raise TemplateRefusal(one_line(error.message or type(error).__name__)) from None
        except Exception as error:  # whatever foreign template code runs into is its failure, never ours
            raise TemplateRefusal(f"{type(error).__name__}: {one_line(error)}") from None


def one_line(message: object, limit: int = 160) -> str:
    """A message from foreign code, fit for one line of ours."""
    text = re.sub(r"[\s\x00-\x1f\x7f]+", " ", str(message)).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
