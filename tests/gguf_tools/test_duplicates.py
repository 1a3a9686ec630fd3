"""Finding a name that stands somewhere twice."""

from __future__ import annotations

import pytest

from gguf_tools.duplicates import repeated
from gguf_tools.yaml_files import load_yaml


@pytest.mark.parametrize(
    ("names", "found"),
    [([], None), (["a"], None), (["a", "b", "a", "b"], "a"), (["b", "a", "a", "b"], "a"), (["a", "A"], None)],
)
def test_the_first_that_comes_again(names: list[str], found: str | None) -> None:
    assert repeated(names) == found


def test_one_pass_is_enough_for_a_hostile_list() -> None:
    """Comparing each with each would take hours here."""
    names = [f"key-{number}" for number in range(500_000)]
    assert repeated([*names, "key-499999"]) == "key-499999"


def test_a_key_that_stands_twice_is_named() -> None:
    with pytest.raises(ValueError, match="has the key 'b' twice"):
        load_yaml(b"a: 1\nb: 2\nc: {d: 3}\nb: 4\n")
