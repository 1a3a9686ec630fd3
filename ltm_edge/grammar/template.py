"""Scene template to GBNF: the grammar whose every document is YAML that loads to exactly the scene it spells.

The grammar is regular (no rule reaches itself) and every repetition is bounded, by llama.cpp's limit of 2 000 at most.
How each trap of YAML is avoided:

- texts stand in double quotes and hold neither quotes nor backslashes, so nothing in them is markup or an escape;
- roles are plain keys of small letters, never a word such as ``no`` that YAML reads as a value;
- no tabs, no characters that YAML refuses or takes for breaks (see `ltm_edge.scene.charset`);
- no text begins or ends with a blank, so nothing depends on who strips what;
- a block's first line begins with a non-blank, which fixes its indentation; only later lines may be indented further.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ltm_edge.errors import GrammarError
from ltm_edge.scene.charset import (
    COMMA,
    EDGE,
    KEY_FIRST,
    KEY_REST,
    LINE,
    QUOTE_MARKS,
    RESERVED_KEYS,
    Ranges,
    without,
)
from ltm_edge.schemas.template import (
    MAX_KEY_CHARS,
    BlockSpec,
    ChoiceSpec,
    FieldSpec,
    LineSpec,
    PolesSpec,
    RolesSpec,
    Template,
    choice_names,
    name_problem,
)

__all__ = ["document_gbnf", "document_head", "goes_on", "pvq_gbnf", "template_gbnf"]

_RESPONSE = "\n  response:"
_BLOCK = "  response: |\n"
_INDENT = "    "
_LEAST_REST = 24  # characters in which a line can still be brought to a sense


def _class_char(code: int) -> str:
    char = chr(code)
    if char in "\\]-^[":
        return f"\\x{code:02X}"
    if 0x21 <= code <= 0x7E or char == " ":
        return char
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _char_class(ranges: Ranges) -> str:
    parts = [_class_char(low) if low == high else f"{_class_char(low)}-{_class_char(high)}" for low, high in ranges]
    return f"[{''.join(parts)}]"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class _Writer:
    """Collects rules by name, in the order in which they are first asked for, each once."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}

    def rule(self, name: str, body: Callable[[], str] | str) -> str:
        if name not in self.rules:
            self.rules[name] = ""  # holds the place, so that rules stand in order of first use
            self.rules[name] = body if isinstance(body, str) else body()
        return name

    def text(self) -> str:
        return "".join(f"{name} ::= {body}\n" for name, body in self.rules.items())

    # Characters ------------------------------------------------------------------------------------------------

    def quoted_char(self) -> str:
        return self.rule("quoted-char", _char_class(without(LINE, QUOTE_MARKS)))

    def quoted_edge(self) -> str:
        return self.rule("quoted-edge", _char_class(without(EDGE, QUOTE_MARKS)))

    def word_char(self) -> str:
        return self.rule("word-char", _char_class(without(without(LINE, QUOTE_MARKS), COMMA)))

    def word_edge(self) -> str:
        return self.rule("word-edge", _char_class(without(without(EDGE, QUOTE_MARKS), COMMA)))

    def line_char(self) -> str:
        return self.rule("line-char", _char_class(LINE))

    def line_edge(self) -> str:
        return self.rule("line-edge", _char_class(EDGE))

    # Texts -----------------------------------------------------------------------------------------------------

    def bounded(self, name: str, edge: Callable[[], str], inner: Callable[[], str], limit: int) -> str:
        """A text of 1 to `limit` characters that begins and ends with an edge character."""

        def body() -> str:
            first = edge()
            if limit == 1:
                return first
            middle = "" if limit == 2 else f"{inner()}{{0,{limit - 2}}} "
            return f"{first} | {first} {middle}{first}"

        return self.rule(f"{name}-{limit}", body)

    def quoted(self, limit: int) -> str:
        return self.bounded("text", self.quoted_edge, self.quoted_char, limit)

    # Fields ----------------------------------------------------------------------------------------------------

    def role(self) -> str:
        """A plain key: small letters and underscores, a letter first, and none of YAML's reserved words.

        The complement of the reserved words is spelled as a trie. All ways off the trie share one tail, so a role is
        at most `MAX_KEY_CHARS` long, and a little less where it leaves the trie early.
        """
        depth = max(len(word) for word in RESERVED_KEYS)
        char = self.rule("role-char", _char_class(KEY_REST))
        tail = self.rule("role-tail", f"{char}{{0,{MAX_KEY_CHARS - depth - 1}}}")

        def node(prefix: str) -> str:
            nexts = sorted({word[len(prefix)] for word in RESERVED_KEYS if word.startswith(prefix) and word != prefix})
            taken = [(ord(char), ord(char)) for char in nexts]
            ways = [f"{_char_class(without(KEY_REST if prefix else KEY_FIRST, taken))} {tail}"]
            for char in nexts:
                longer = prefix + char
                inner = any(word.startswith(longer) and word != longer for word in RESERVED_KEYS)
                if inner or longer in RESERVED_KEYS:
                    name = f"role-{longer}"
                    ways.append(f"{_literal(char)} {self.rule(name, _once(node, longer))}")
            body = " | ".join(ways)
            # Only a prefix that is no reserved word may end here.
            return body if not prefix or prefix in RESERVED_KEYS else f"( {body} )?"

        return self.rule("role", lambda: node(""))

    def actors(self, spec: RolesSpec) -> str:
        actor = self.rule("actor", lambda: f'"    - " {self.role()} ": \\"" {self.quoted(spec.max_chars)} "\\"\\n"')
        return f'"  actors:\\n" {_times(actor, spec.min, spec.max)}'

    def poles(self, key: str, spec: PolesSpec) -> str:
        pole = self.quoted(spec.pole_chars)
        return f'"  {key}: \\"" {pole} " vs " {pole} "\\"\\n"'

    def choice(self, key: str, spec: ChoiceSpec, offered: tuple[str, ...]) -> str:
        if spec.source == "any":
            word = self.bounded("word", self.word_edge, self.word_char, spec.max_chars)
            more = self.rule("more-words", f'", " {word}')
            rest = _times(more, spec.min - 1, spec.max - 1)
            return f'"  {key}: \\"" {word}{" " + rest if rest else ""} "\\"\\n"'
        most = min(spec.max, len(offered))

        def body(used: tuple[int, ...]) -> str:
            left = [i for i in range(len(offered)) if i not in used]
            ways = []
            for i in left:
                way = _literal(offered[i])
                now = tuple(sorted((*used, i)))
                if len(now) < most:
                    name = "names-without-" + "-".join(str(n + 1) for n in now)
                    follow = self.rule(name, _once(lambda taken: f'", " {group(taken)}', now))
                    way += f" {follow}" if len(now) < spec.min else f" {follow}?"
                ways.append(way)
            return " | ".join(ways)

        def group(used: tuple[int, ...]) -> str:
            return f"( {body(used)} )"

        names = self.rule("names", lambda: body(()))
        return f'"  {key}: \\"" {names} "\\"\\n"'

    def line(self, key: str, spec: LineSpec) -> str:
        return f'"  {key}: \\"" {self.quoted(spec.max_chars)} "\\"\\n"'

    def block(self, key: str, spec: BlockSpec) -> str:
        first = self.bounded("line", self.line_edge, self.line_char, spec.max_chars)
        head = f'"  {key}: |\\n" "    " {first} "\\n"'
        if spec.max_lines == 1:
            return head

        def more() -> str:
            if not spec.code:
                return f'"    " {first} "\\n"'
            room = "" if spec.max_chars == 1 else f"{self.line_char()}{{0,{spec.max_chars - 1}}} "
            return f'"\\n"? "    " {room}{self.line_edge()} "\\n"'

        return f"{head} {_times(self.rule('more-lines', more), spec.min_lines - 1, spec.max_lines - 1)}"

    def rest(self, spec: BlockSpec, told: str) -> str:
        """What may follow the beginning of a block; see :func:`goes_on`."""
        lines, chars = _told(told)
        low, high = spec.min_lines - lines, spec.max_lines - lines

        def more(low: int, high: int) -> str:
            line = self.bounded("line", self.line_edge, self.line_char, spec.max_chars)
            return _times(self.rule("more-lines", f'"{_INDENT}" {line} "\\n"'), low, high)

        if chars is None:
            return more(max(low, 1), high)
        ways = []
        if (left := spec.max_chars - chars - 1) >= _LEAST_REST:
            end = self.bounded("rest", self.line_edge, self.line_char, left)
            ways.append(f'" " {end} "\\n" {more(max(low - 1, 0), high - 1) if high > 1 else ""}'.rstrip())
        if high > 1:
            ways.append(f'"\\n" {more(max(low - 1, 1), high - 1)}')
        return " | ".join(ways)

    def field(self, key: str, spec: FieldSpec, offered: tuple[str, ...]) -> str:
        if isinstance(spec, RolesSpec):
            return self.actors(spec)
        if isinstance(spec, PolesSpec):
            return self.poles(key, spec)
        if isinstance(spec, ChoiceSpec):
            return self.choice(key, spec, offered)
        return self.block(key, spec) if isinstance(spec, BlockSpec) else self.line(key, spec)


def _once(make: Callable[..., str], *args: object) -> Callable[[], str]:
    return lambda: make(*args)


def _times(name: str, low: int, high: int) -> str:
    if high <= 0:
        return ""
    if (low, high) == (1, 1):
        return name
    if (low, high) == (0, 1):
        return f"{name}?"
    return f"{name}{{{low}}}" if low == high else f"{name}{{{low},{high}}}"


def _told(told: str) -> tuple[int, int | None]:
    """Whole lines of a block's beginning, and characters of a line that is begun; None: it ends with a line."""
    lines = told.count("\n")
    last = told.rpartition("\n")[2]
    return lines, len(last) - len(_INDENT) if last else None


def goes_on(template: Template, opening: str) -> bool:
    """Whether a response of ``template`` may begin with ``opening`` and say something more.

    ``opening`` ends with a line's break, or where a sentence ends inside a line; then the line may go on, or a new one
    begin. A response that may hold code is never gone on with.
    """
    spec = template.fields["response"]
    if not isinstance(spec, BlockSpec) or spec.code:
        return False
    lines, chars = _told(_indented(opening))
    if chars is None:
        return lines < spec.max_lines
    return lines + 1 < spec.max_lines or spec.max_chars - chars - 1 >= _LEAST_REST


def _indented(opening: str) -> str:
    """The beginning of a response as it stands in its document."""
    return "\n".join(_INDENT + line if line else "" for line in opening.split("\n"))


def document_head(document: str, opening: str = "") -> str:
    """What is kept of a document that a template's grammar wrote.

    Args:
        document: what was written.
        opening: the beginning of its response that is kept too, as :func:`goes_on` takes it.

    Returns:
        All before the response, with its last line break, and of the response ``opening``. Empty where the document has
        no response yet.
    """
    head = document[: document.find(_RESPONSE) + 1]
    more = head + _BLOCK + _indented(opening)
    return more if opening and document.startswith(more) else head


def template_gbnf(template: Template, names: Mapping[str, str] | None = None, head: str = "") -> str:
    """The GBNF grammar of `template`: pure and deterministic, root rule ``root``.

    Args:
        names: archetype id to its name in the request's language; an id without one stands for itself.
        head: the beginning of a document of this template, as :func:`document_head` gives it: every document of the
            grammar begins so, and only the rest of its response, and fields behind that, are free.

    Raises:
        GrammarError: a name that can't be written (a quote, a comma, a line break …), or too few different names.
    """
    offered = choice_names(template, names)
    for spec in template.fields.values():
        if not isinstance(spec, ChoiceSpec) or spec.source == "any":
            continue
        for name in offered:
            if complaint := name_problem(name):
                raise GrammarError(f"template {template.name}: the archetype name {name!r} {complaint}; rename it")
        if len(offered) < spec.min:
            raise GrammarError(
                f"template {template.name}: {len(offered)} different archetype names, but min is {spec.min}; add names"
            )
    writer = _Writer()

    told = head.partition(f"\n{_BLOCK}")[2]

    def root() -> str:
        parts = [_literal(head or "scene:\n")]
        keys = list(template.fields)
        for key in keys[keys.index("response") :] if head else keys:
            spec = template.fields[key]
            name = key.replace("_", "-")
            if told and key == "response" and isinstance(spec, BlockSpec):
                writer.rule(name, _once(writer.rest, spec, told))
            else:
                writer.rule(name, _once(writer.field, key, spec, offered))
            parts.append(f"{name}?" if spec.optional else name)
        return " ".join(parts)

    writer.rule("root", root)
    return writer.text()


def document_gbnf(document: str) -> str:
    """The GBNF grammar of one document, which leaves nothing to choose."""
    return f"root ::= {_literal(document)}\n"


def pvq_gbnf(keys: Sequence[str], max_chars: int) -> str:
    """The GBNF grammar of a short YAML mapping that fills in a request (PVQ): one quoted text for each key, in order.

    Args:
        keys: the keys; a ``tension`` is two texts around `` vs ``.
        max_chars: of each text.
    """
    writer = _Writer()

    def root() -> str:
        text = writer.quoted(max_chars)
        values = {key: f'{text} " vs " {text}' if key == "tension" else text for key in keys}
        return " ".join(f'"{key}: \\"" {value} "\\"\\n"' for key, value in values.items())

    writer.rule("root", root)
    return writer.text()
