"""The YAML reader: bounded, unsurprising, precise about places."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltm_edge.errors import SchemaError
from ltm_edge.schemas.yaml import MAX_BYTES, StrictLoader, load_yaml, read_yaml

VALUES = {
    "1e-5": 1e-5,
    "1E5": 1e5,
    "-2.5e+3": -2500.0,
    ".5": 0.5,
    "5.": 5.0,
    "1": 1,
    "-7": -7,
    "0x1F": 31,
    "0o17": 15,
    "017": 17,
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    "no": "no",
    "yes": "yes",
    "on": "on",
    "off": "off",
    "y": "y",
    "1:30": "1:30",
    "2025-06-17": "2025-06-17",
    "1_000": "1_000",
    "=": "=",
    "e5": "e5",
    ".": ".",
    "1.2.3": "1.2.3",
    "архитектор": "архитектор",
}


@pytest.mark.parametrize("spelled", VALUES)
def test_plain_values(spelled: str) -> None:
    value = load_yaml(f"key: {spelled}\n").data["key"]
    assert value == VALUES[spelled]
    assert type(value) is type(VALUES[spelled])


REFUSED = {
    "a: 1\na: 2\n": (2, 1, "duplicate key, first on line 1"),
    "x:\n  a: 1\n  b: 2\n  a: 3\n": (4, 3, "duplicate key"),
    "a: &x 1\nb: *x\n": (2, 4, "aliases aren't allowed"),
    "a: &x [1]\nb:\n  <<: *x\n": (3, 7, "aliases aren't allowed"),
    "a: !!python/object/apply:os.system [ls]\n": (1, 4, "tag"),
    "a: !!set {b, c}\n": (1, 4, "tag"),
    "a: !!int x\n": (1, 4, "isn't a value of type int"),
    "a: !thing b\n": (1, 4, "tag"),
    "1: a\n": (1, 1, "the key '1' isn't text"),
    "[a, b]: c\n": (1, 1, "the key a list or mapping isn't text"),
    "a: [1, 2\n": (2, 1, "not valid YAML"),
    "a: 1\n b: 2\n": (2, 3, "not valid YAML"),
    "a: 1\n---\nb: 2\n": (2, 1, "not valid YAML"),
    "a: x\ty\n\tb: 2\n": (1, 5, "not valid YAML"),
    "a: 1\nb: x\x07y\n": (2, 5, "U+0007"),
    "a: 1\nb: x\ufffey\n": (2, 5, "U+FFFE"),
    "a: 1\nb: x\ud800y\n": (2, 5, "U+D800"),
    "a: " + "9" * 65: (1, 4, "a number of 65 characters"),
    "a: " + "[" * 40 + "]" * 40: (1, 35, "nested deeper than 32"),
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_refused_with_place(text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        load_yaml(text, "some.yaml")
    line, column, message = REFUSED[text]
    problem = caught.value.problems[0]
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert str(problem).startswith(f"some.yaml:{line}:{column}: ")
    assert "\n" not in str(caught.value)


def test_all_problems_of_the_structure_at_once() -> None:
    with pytest.raises(SchemaError) as caught:
        load_yaml("a: 1\na: 2\n3: x\nb: !!set {q}\n")
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4]


def test_hostile_texts_are_refused_quickly() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join(['*a'] * 9)}]\n" for c in "bcdefg")
    for text in (
        bomb,
        "{" * 100_000,
        "[" * 500_000,
        "- " * 200_000,
        "? " * 100_000,
        "a: " * 1000,
        "&a " * 1000,
        "!" * 9999,
        "- a\n" * 60_000,
    ):
        with pytest.raises(SchemaError):
            load_yaml(text)


def test_size_limit_and_encoding(tmp_path: Path) -> None:
    load_yaml("a: " + "x" * (MAX_BYTES - 10))
    for big in ("a: " + "x" * MAX_BYTES, b"a: " + b"x" * MAX_BYTES, "a: " + "ж" * (MAX_BYTES // 2)):
        with pytest.raises(SchemaError, match="1048576"):
            load_yaml(big)
    with pytest.raises(SchemaError, match="not UTF-8: byte 0xff"):
        load_yaml(b"a: 1\nb: \xff\n")
    with pytest.raises(SchemaError):
        load_yaml("a: ж".encode("utf-16"))
    assert load_yaml("\ufeffa: 1".encode()).data == {"a": 1}
    assert load_yaml("").data is None
    file = tmp_path / "x.yaml"
    with pytest.raises(SchemaError, match="can't be read"):
        read_yaml(file)
    with pytest.raises(SchemaError, match="can't be read"):
        read_yaml(tmp_path)
    file.write_bytes(b"a: 1\n")
    assert read_yaml(file).data == {"a": 1}
    assert read_yaml(file).where == str(file)


def test_marks_and_paths() -> None:
    document = load_yaml("a:\n  b:\n    - x\n    - c: 1\n", "f.yaml")
    assert str(document.problem(("a", "b", 1, "c"), "bad")) == "f.yaml:4:7: a.b[1].c: bad"
    # Something that isn't there has the place of what should hold it.
    assert document.problem(("a", "q"), "missing").line == 1
    assert document.problem((), "bad").path == ""


def test_the_global_loader_stays_as_it_was() -> None:
    load_yaml("a: 1e-5")
    assert yaml.safe_load("a: 1e-5\nb: no\nc: 1:30\n") == {"a": "1e-5", "b": False, "c": 90}
    assert yaml.safe_load("a: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}


PIECES = (
    "a: 1\n", "- a\n- b\n", "? x\n: y\n", "{a: b, c: [d]}\n", "a: |\n  x\n   y\n\n  z\n", "a: >-\n  x\n  y\n\n",
    "a: 'x''y'\n", 'a: "x\\ny\\u0041\\0"\n', "# c\n", "---\n", "...\n", "%YAML 1.1\n---\n", "a: &b c\n", "a: *b\n",
    "!!str a: b\n", "a:\n  b:\n    - c: d\n      e: f\n    -\n", "a: b # c\n", "a: x: y\n", "a: [b, ? c : d]\n",
    "'a': \"b\n  c\"\n", "a: |2-\n    x\n", "a:b\n", "- - - a\n", "a: [\n b,\n]\n", "a: [b c, d:e, f?: g]\n",
    "{a, b: }\n", "a: !x b\n", "a: é中😀 x: y\n", "a: |# b\n  c\n",
)  # fmt: skip


def test_both_parsers_read_the_same() -> None:
    """libyaml is fast, PyYAML's own parser is the oracle: whatever the one takes, the other takes for the same."""
    from ltm_edge.overlay_set import packaged_documents
    from ltm_edge.schemas import yaml as module

    if module._fast_loader() is None:
        pytest.skip("PyYAML was built without libyaml")

    def read(loader: Any, text: str) -> Any:
        with contextlib.suppress(module._LimitError, yaml.YAMLError, ValueError):
            return spelled(loader(text) if loader is module._composed else module._compose(loader(text)))
        return "refused"

    def spelled(node: Any) -> Any:
        if node is None or not node.value:  # where nothing stands, the two place it differently
            return node and node.tag
        children = node.value if isinstance(node.value, str) else [spelled(c) for c in _flat(node.value)]
        return node.tag, node.start_mark.line, node.start_mark.column, children

    documents = list(packaged_documents().values())
    assert all(read(module._fast_loader(), text) == read(StrictLoader, text) != "refused" for text in documents)
    dice = random.Random(5)
    same = 0
    for _ in range(6000):
        text = list("".join(dice.choice(PIECES) for _ in range(dice.randrange(1, 5))))
        for _ in range(dice.randrange(4)):
            place = dice.randrange(len(text))
            text[place : place + dice.randrange(2)] = dice.choice("\n\n  :-?[]{},#&*!|>'\"%@abc01\\é😀")
        made = "".join(text)
        found, expected = read(module._composed, made), read(StrictLoader, made)
        assert found == expected, made
        same += expected != "refused"
    assert same > 1000


def _flat(children: list[Any]) -> Iterator[Any]:
    for child in children:
        yield from child if isinstance(child, tuple) else (child,)
