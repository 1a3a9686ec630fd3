"""A small GBNF reader, a random walker over a grammar and a matcher: the oracle that our grammars are tested with.

Independent of `ltm_edge.grammar`: it knows the GBNF language and nothing of templates, except `spelled_scene`, which
reads the walked text by rule names, never through YAML.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ltm_edge.grammar import template_gbnf
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import Template

Node = tuple[
    Any, ...
]  # ("lit", text) | ("cls", ranges) | ("ref", name) | ("seq", [..]) | ("alt", [..]) | ("rep", node, low, high)


class Reader:
    """Recursive descent over GBNF text."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.rules: dict[str, Node] = {}
        self.blank(True)
        while self.at < len(text):
            name = self.match(r"[a-zA-Z0-9-]+")
            self.blank(False)
            assert self.match("::="), f"expected ::= at {self.at}"
            self.blank(True)
            assert name not in self.rules, f"rule {name} defined twice"
            self.rules[name] = self.alternatives(False)
            self.blank(True)

    def blank(self, newlines: bool) -> None:
        self.match(r"(?:[ \t\r\n]|#[^\n]*)*" if newlines else r"[ \t]*")

    def match(self, pattern: str) -> str:
        found = re.compile(pattern).match(self.text, self.at)
        if not found:
            return ""
        self.at = found.end()
        return found[0]

    def char(self) -> int:
        if self.text[self.at] != "\\":
            self.at += 1
            return ord(self.text[self.at - 1])
        kind = self.text[self.at + 1]
        self.at += 2
        if kind in "xuU":
            size = {"x": 2, "u": 4, "U": 8}[kind]
            self.at += size
            return int(self.text[self.at - size : self.at], 16)
        return ord({"n": "\n", "r": "\r", "t": "\t"}.get(kind, kind))

    def alternatives(self, nested: bool) -> Node:
        ways = [self.sequence(nested)]
        while self.match(r"\|"):
            self.blank(True)
            ways.append(self.sequence(nested))
        return ways[0] if len(ways) == 1 else ("alt", ways)

    def sequence(self, nested: bool) -> Node:
        items: list[Node] = []
        while self.at < len(self.text):
            here = self.text[self.at]
            if here == '"':
                self.at += 1
                codes = []
                while self.text[self.at] != '"':
                    codes.append(chr(self.char()))
                self.at += 1
                items.append(("lit", "".join(codes)))
            elif here == "[":
                self.at += 1
                ranges = []
                while self.text[self.at] != "]":
                    low = high = self.char()
                    if self.text[self.at] == "-" and self.text[self.at + 1] != "]":
                        self.at += 1
                        high = self.char()
                    ranges.append((low, high))
                self.at += 1
                items.append(("cls", tuple(ranges)))
            elif here == "(":
                self.at += 1
                self.blank(True)
                items.append(self.alternatives(True))
                assert self.match(r"\)"), f"expected ) at {self.at}"
            elif name := self.match(r"[a-zA-Z0-9-]+"):
                items.append(("ref", name))
            elif here in "?*+":
                self.at += 1
                low, high = {"?": (0, 1), "*": (0, 10**9), "+": (1, 10**9)}[here]
                items.append(("rep", items.pop(), low, high))
            elif bounds := self.match(r"\{\d+(?:,\d*)?\}"):
                first, comma, second = bounds[1:-1].partition(",")
                high = int(second) if second else (10**9 if comma else int(first))
                items.append(("rep", items.pop(), int(first), high))
            else:
                break
            self.blank(nested)
        return items[0] if len(items) == 1 else ("seq", items)


EDGES = (
    "\x20\x21\x23\x5b\x5d\x7e\u00a0\u00a1\u2027\u202f\u205e\u2070\ud7ff\uf900\ufdcf\ufdf0\ufefe\uff00\uffef"
    + "".join(chr(code) for plane in (1, 2, 3) for code in (plane << 16, plane << 16 | 0xFFFD))
)
PROFILES = {
    "latin": "abcdefghijklmnopqrstuvwxyz ABCDEZ .,:;!?'-#&*%@`|>{}[]() 0123456789 é ß ñ ~=",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяё АБВЯЁ «»—… ,.!? іїєґ",
    "cjk": "水火木金土日月人大小上下 、。「」 あいうえおアイウ 한국어 ｆｕｌｌ　幅",
    "emoji": "😀🌍🚀❤️👩\u200d💻🏳\ufe0f\u200d🌈🇷🇺 ✅ \U0001f9d1\u200d\U0001f4bb",
    "yaml": "---: - # ? : , [ ] { } & * ! | > ' % @ ` ... <<: = ~ yes no null 1e5 0x1 : # ",
    "edges": EDGES,
}


@dataclass
class Walker:
    """Random walks over a grammar: `draw` gives a text, with the spans of the rules passed."""

    rules: Mapping[str, Node]
    rng: random.Random
    pools: dict[tuple[str, tuple[tuple[int, int], ...]], str] = field(default_factory=dict)
    spans: list[tuple[str, str]] = field(default_factory=list)
    how: str = "mixed"
    profile: str = "latin"

    def draw(self, how: str = "mixed") -> str:
        """One document. `how`: shortest, longest, or mixed (short with long parts)."""
        self.spans = []
        self.how = how
        self.profile = self.rng.choice(list(PROFILES))
        return self.walk(("ref", "root"))

    def pool(self, ranges: tuple[tuple[int, int], ...]) -> str:
        key = (self.profile, ranges)
        if key not in self.pools:
            fits = [c for c in PROFILES[self.profile] if any(a <= ord(c) <= b for a, b in ranges)]
            if self.profile == "edges" or not fits:
                fits += [chr(code) for pair in ranges for code in pair]
            self.pools[key] = "".join(fits)
        return self.pools[key]

    def count(self, low: int, high: int) -> int:
        if self.how == "shortest":
            return low
        if self.how == "longest" or high - low <= 1:
            return high if self.how == "longest" else self.rng.randint(low, high)
        dice = self.rng.random()
        if dice < 0.12:
            return low
        if dice < 0.13:
            return high
        return min(high, low + int(self.rng.expovariate(1 / 7)))

    def walk(self, node: Node) -> str:
        kind = node[0]
        if kind == "lit":
            return node[1]
        if kind == "cls":
            return self.rng.choice(self.pool(node[1]))
        if kind == "seq":
            return "".join([self.walk(item) for item in node[1]])
        if kind == "ref":
            name = node[1]
            if name.startswith(("text-", "line-")) and self.rng.random() < 0.3:
                self.profile = self.rng.choice(list(PROFILES))
            text = self.walk(self.rules[name])
            self.spans.append((name, text))
            return text
        if kind == "alt":
            ways = node[1]
            if self.how == "mixed":
                return self.walk(self.rng.choice(ways))
            return self.walk(ways[-1] if self.how == "longest" else ways[0])
        count = self.count(node[2], node[3])
        inner = node[1]
        target = self.rules[inner[1]] if inner[0] == "ref" else inner
        if target[0] == "cls":
            return "".join(self.rng.choices(self.pool(target[1]), k=count))
        return "".join([self.walk(inner) for _ in range(count)])


def to_regex(rules: Mapping[str, Node]) -> re.Pattern[str]:
    """The grammar as a regular expression; it must not recurse."""
    known: dict[str, str] = {}

    def build(node: Node, stack: tuple[str, ...]) -> str:
        kind = node[0]
        if kind == "lit":
            return re.escape(node[1])
        if kind == "cls":
            return "[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in node[1]) + "]"
        if kind == "seq":
            return "".join(build(item, stack) for item in node[1])
        if kind == "alt":
            return "(?:" + "|".join(build(item, stack) for item in node[1]) + ")"
        if kind == "rep":
            return f"(?:{build(node[1], stack)}){{{node[2]},{node[3]}}}"
        name = node[1]
        assert name not in stack, f"the grammar recurses: {name}"
        if name not in known:
            known[name] = f"(?:{build(rules[name], (*stack, name))})"
        return known[name]

    return re.compile(build(("ref", "root"), ()))


class Oracle:
    """One template's grammar, read back from its text."""

    def __init__(self, template: Template, names: Mapping[str, str] | None = None) -> None:
        self.template = template
        self.gbnf = template_gbnf(template, names)
        self.rules = Reader(self.gbnf).rules
        self.pattern = to_regex(self.rules)
        self.walker = Walker(self.rules, random.Random(0))

    def accepts(self, text: str) -> bool:
        return self.pattern.fullmatch(text) is not None


def spelled_scene(spans: list[tuple[str, str]]) -> Scene:
    """The scene that a walk spelled, taken from the rules it passed."""
    roles: list[str] = []
    whos: list[str] = []
    fields: dict[str, str] = {}
    for name, text in spans:
        if name == "role":
            roles.append(text)
        elif name == "actor":
            whos.append(text.split('"')[1])
        elif name in ("tension", "archetype", "resonance-center", "self-commentary"):
            fields[name] = text.split('"')[1]
        elif name == "response":
            head, _, body = text.partition("\n")
            if head.endswith("|"):
                lines = body.removesuffix("\n").split("\n")
                fields[name] = "\n".join(line[4:] for line in lines)
            else:
                fields[name] = text.split('"')[1]
    return Scene(
        actors=tuple(zip(roles, whos, strict=True)),
        tension=fields["tension"],
        archetype=tuple(fields["archetype"].split(", ")),
        resonance_center=fields["resonance-center"],
        response=fields["response"],
        self_commentary=fields.get("self-commentary"),
    )


def sample_document(oracle: Oracle, rng: random.Random, edge: str = "mixed") -> tuple[str, Scene]:
    """A random document of the grammar and the scene that it spells."""
    walker = oracle.walker
    walker.rng = rng
    text = walker.draw(edge)
    return text, spelled_scene(walker.spans)


_INSERTS = [
    '"', "\\", "\t", "\n", "\r", " ", "  ", "\n\n", "#", ": ", " #", "- ", "|", "\x00", "\x07", "\x1b", "\x7f", "\x85",
    "\x9f", "\xa0", "\u2028", "\u2029", "\ufeff", "\u200b", "\u202e", "\u2066", "\ufffe", "\uffff", "\ufdd0", "\ue000",
    "\U0001fffe", "\U0010ffff", "\ufffd", " vs ", ", ", "'", "~", "а", "я", "é", "漢", "🚀", "a", "é", "null", "no",
]  # fmt: skip


def mutations(text: str, rng: random.Random) -> Iterator[str]:
    """Endless mutations of a document: characters, runs, lines, keys, indentation."""
    while True:
        at = rng.randrange(len(text))
        dice = rng.randrange(10)
        if dice == 0:
            yield text[:at] + text[at + 1 :]
        elif dice in (1, 2, 3):
            yield text[:at] + rng.choice(_INSERTS) + text[at:]
        elif dice in (4, 5):
            yield text[:at] + rng.choice(_INSERTS) + text[at + 1 :]
        elif dice == 6:
            end = min(len(text), at + rng.randint(1, 30))
            yield text[:at] + text[at:end] * rng.randint(2, 40) + text[end:]
        elif dice == 7:
            lines = text.split("\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            yield "\n".join(lines)
        elif dice == 8:
            lines = text.split("\n")
            i = rng.randrange(len(lines))
            change = rng.randrange(4)
            if change == 0:
                lines.insert(i, lines[i])
            elif change == 1:
                lines[i] = rng.choice(["", " ", "    ", "      "]) + lines[i]
            elif change == 2:
                lines[i] = lines[i].lstrip(" ")
            else:
                del lines[i]
            yield "\n".join(lines)
        else:
            keys = [m.span(1) for m in re.finditer(r"^ {4}- ([^:\n]+):", text, re.MULTILINE)]
            if not keys:
                continue
            start, end = rng.choice(keys)
            word = rng.choice(
                ["no", "yes", "on", "off", "null", "true", "false", "y", "n", "nо", "nope", "offer", "truth", "_a", "1"]
            )
            yield text[:start] + word + text[end:]
