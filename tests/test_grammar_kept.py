"""The grammar of a revision: its documents begin with what is kept, go on, and are documents of the template."""

from __future__ import annotations

import random

import pytest

from ltm_edge.grammar.template import document_head, goes_on, template_gbnf
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.template import check_scene
from tests.gbnf_oracle import Reader, Walker, to_regex
from tests.test_grammar_template import NAMES, names_in, oracle, template

DOCUMENTS = 30  # of each template


def openings(response: str, rng: random.Random) -> list[str]:
    """Beginnings of a response: some whole lines, and a part of a line that ends as sentences do, without a blank."""
    lines = response.split("\n")
    count = rng.randrange(len(lines))
    whole = "".join(f"{line}\n" for line in lines[:count])
    part = lines[count][: rng.randint(0, len(lines[count]))].rstrip()
    return [one for one in (whole, whole + part if part else "") if one]


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_an_opening_makes_a_document_of_the_template(name: str) -> None:
    rng = random.Random(f"kept {name}")
    spec, names = template(name), names_in(name, "en")
    walker, gone_on = oracle(name).walker, 0
    for _ in range(DOCUMENTS):
        walker.rng = rng
        document = walker.draw()
        response = Scene.from_yaml(document).response
        for opening in openings(response, rng):
            head = document_head(document, opening)
            if not goes_on(spec, opening):
                continue
            gone_on += 1
            assert head.endswith(opening.split("\n")[-1] or "\n") and document.startswith(head)
            rules = Reader(template_gbnf(spec, names, head)).rules
            drawn = Walker(rules, rng).draw()
            assert drawn.startswith(head) and oracle(name).accepts(drawn), drawn
            scene = Scene.from_yaml(drawn)
            assert check_scene(spec, scene, names) == []
            assert scene.response.startswith(opening.rstrip("\n")) and len(scene.response) > len(opening.rstrip("\n"))
    block = spec.fields["response"].kind == "block" and not getattr(spec.fields["response"], "code", False)
    assert (gone_on > 0) == (block and name != "small-bounds"), name


def test_all_that_a_whole_document_may_be_behind_an_opening_is_allowed() -> None:
    """Every document of the template that begins with a line of another one is one of the revision's grammar."""
    rng = random.Random(7)
    spec, names = template("mirror"), names_in("mirror", "en")
    walker = oracle("mirror").walker
    walker.rng = rng
    found = 0
    for _ in range(60):
        document = walker.draw()
        lines = Scene.from_yaml(document).response.split("\n")
        if len(lines) < 2:
            continue
        found += 1
        head = document_head(document, f"{lines[0]}\n")
        pattern = to_regex(Reader(template_gbnf(spec, names, head)).rules)
        assert pattern.fullmatch(document)
        assert not pattern.fullmatch(document.replace(lines[0], "x" + lines[0][1:] + "y"))
        assert not pattern.fullmatch(head) and not pattern.fullmatch(head + "    a\n" * 4)
    assert found > 10


@pytest.mark.parametrize(
    ("opening", "goes"),
    [
        ("a\n", True),
        ("a\na\na\n", True),
        ("a\na\na\na\n", False),  # four lines are all there may be
        ("a\na\na\na", True),  # the fourth has room
        ("a\na\na\n" + "a" * 215, True),
        ("a\na\na\n" + "a" * 216, False),
        ("a" * 240, True),  # another line may follow
    ],
)
def test_an_opening_goes_on_where_there_is_room(opening: str, goes: bool) -> None:
    assert goes_on(template("mirror"), opening) is goes


def test_what_is_not_the_documents_beginning_is_not_kept() -> None:
    document = oracle("mirror").walker.draw()
    head = document_head(document)
    assert head and document_head(document, "something else\n") == head == document_head(document, "")
