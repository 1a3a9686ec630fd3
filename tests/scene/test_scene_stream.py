"""The stream: the same events however the document is cut, and nothing raised by any piece of it."""

from __future__ import annotations

import random

import pytest

from ltm_edge.scene.record import Scene
from ltm_edge.scene.stream import FieldDone, ResponseDelta, SceneStream, StreamEvent

SCENE = Scene(
    actors=(("you", "architect: one"), ("inner_voice", "тревога")),
    tension="certainty vs fatigue",
    archetype=("initiator", "pilgrim"),
    resonance_center="the will",
    response='First line — длинная.\n\n    code(x)\n        deeper\nlast: line | > # "q" \\',
    self_commentary="I answered.",
)
ORDERS = [
    (),
    ("response", "actors", "self_commentary"),
    ("actors", "response", "tension"),
    ("self_commentary", "response", "actors", "archetype"),
]


def merged(events: list[StreamEvent]) -> list[StreamEvent]:
    out: list[StreamEvent] = []
    for event in events:
        if isinstance(event, ResponseDelta) and out and isinstance(out[-1], ResponseDelta):
            out[-1] = ResponseDelta(out[-1].text + event.text)
        else:
            out.append(event)
    return out


def run(pieces: list[str]) -> list[StreamEvent]:
    stream, events = SceneStream(), []
    for piece in pieces:
        events += stream.feed(piece)
        stream.partial()
    return merged(events + stream.close())


def cut(text: str, rng: random.Random) -> list[str]:
    pieces = []
    while text:
        size = rng.choice([1, 1, 2, 3, 5, 8, 40])
        pieces.append(text[:size])
        text = text[size:]
        if rng.random() < 0.1:
            pieces.append("")
    return pieces


@pytest.mark.parametrize("order", ORDERS)
def test_events_of_a_document(order: tuple[str, ...]) -> None:
    text = SCENE.to_yaml(order)
    events = run([text])
    done = {event.name: event.value for event in events if isinstance(event, FieldDone)}
    names = [*order, *(name for name in done if name not in order)]
    assert [event.name for event in events if isinstance(event, FieldDone)] == names
    assert done == {
        "actors": SCENE.actors, "tension": SCENE.tension, "archetype": SCENE.archetype,
        "resonance_center": SCENE.resonance_center, "self_commentary": SCENE.self_commentary,
        "response": SCENE.response,
    }  # fmt: skip
    assert "".join(event.text for event in events if isinstance(event, ResponseDelta)) == SCENE.response


ODD = [
    "```yaml\n" + SCENE.to_yaml() + "```\n",
    SCENE.to_yaml().replace("\n", "\r\n"),
    'scene:\n  response: "one line, \\"quoted\\" and more"\n  tension: plain text\n',
    "scene:\n  response: 'it''s'\n  response: |\n    twice\n",
    'scene:\n actors:\n - you: "x"\n response: |-\n   a\n\n\n   b\n\n\n tension: "x"\n',
    "no yaml at all\njust text: with colons\n",
    'scene:\n  actors:\n  tension: "x vs y\n  response: |\n',
    "  response: |\n\n\n    late\n   under\n",
    'response: "unclosed',
    "",
]


@pytest.mark.parametrize("text", [*(SCENE.to_yaml(order) for order in ORDERS), *ODD], ids=range(len(ORDERS) + len(ODD)))
def test_any_cut_gives_the_same_events(text: str) -> None:
    whole = run([text])
    assert run(list(text)) == whole
    rng = random.Random(1)
    for _ in range(120):
        assert run(cut(text, rng)) == whole


def test_random_scenes_stream_to_themselves() -> None:
    rng = random.Random(2)
    words = ["a", "б", "  in", "x: y", "- z", "🚀", "|", "", "vs", '"q"', "#"]
    for _ in range(300):
        lines = ["start"] + [rng.choice(words) + rng.choice(["", "end"]) for _ in range(rng.randint(0, 5))] + ["stop"]
        scene = Scene(SCENE.actors, SCENE.tension, SCENE.archetype, "c", "\n".join(lines))
        events = run(cut(scene.to_yaml(), rng))
        assert FieldDone("response", scene.response) in events
        assert "".join(event.text for event in events if isinstance(event, ResponseDelta)) == scene.response


def test_partial_documents() -> None:
    text = SCENE.to_yaml()
    for end in range(len(text)):
        stream = SceneStream()
        deltas = "".join(event.text for event in stream.feed(text[:end]) if isinstance(event, ResponseDelta))
        known = stream.partial()
        assert SCENE.response.startswith(deltas)
        assert known.get("response", "") == deltas == stream.response
        for name, value in known.items():
            whole = getattr(SCENE, name)
            assert value == (whole if name not in ("actors", "response") else whole[: len(value)])


def test_fields_come_as_soon_as_they_are_known() -> None:
    stream = SceneStream()
    assert stream.feed('scene:\n  actors:\n    - you: "x"\n') == []
    assert stream.partial() == {"actors": (("you", "x"),)}
    assert stream.feed("  t") == [FieldDone("actors", (("you", "x"),))]
    assert stream.feed('ension: "a vs b"') == []
    assert stream.feed("\n") == [FieldDone("tension", "a vs b")]
    assert stream.feed("  response: |\n    He") == [ResponseDelta("He")]
    assert stream.feed("y\n") == [ResponseDelta("y")]
    assert stream.feed("    ") == []
    assert stream.feed("you") == [ResponseDelta("\nyou")]
    assert stream.close() == [FieldDone("response", "Hey\nyou")]
