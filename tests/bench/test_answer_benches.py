"""What `bench quality`, `bench channels` and the whole turns of `bench turn` compute, on hand-made data."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from ltm_edge.bench.classify import tell_apart
from ltm_edge.bench.filled_memory import JoinedEmbedder, joined_scenes
from ltm_edge.bench.quality import PLAIN, Answer, QualityReport, summarise, ways_of
from ltm_edge.bench.requests import find_requests, load_requests
from ltm_edge.bench.text_measures import distinct, paired, repeated, similarities, words
from ltm_edge.bench.variants import undirected
from ltm_edge.bench.watch import Watch
from ltm_edge.bench.whole_turn import STAGES, WAYS, Case, Whole, WholeTurns
from ltm_edge.bundle import load_overlay
from ltm_edge.cli.main import cli
from ltm_edge.engine.embedder import Embedder
from ltm_edge.errors import InputError
from ltm_edge.scene.record import Scene

OVERLAY = load_overlay(None)


# Texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't stop — go!", ["don't", "stop", "go"]),
        ("Ёлка, 3 шт.", ["ёлка", "3", "шт"]),
        ("…", []),
    ],
)
def test_words(text: str, found: list[str]):
    assert words(text) == found


def test_distinct_counts_runs_over_all_texts():
    assert distinct(["a b c", "a b d"]) == 3 / 4
    assert distinct(["a b c", "d e f"]) == 1.0
    assert distinct(["one"]) == 0.0
    assert distinct(["A b", "a B"]) == 1 / 2, "words are folded"
    assert distinct(["b a", "a b"]) == 1.0, "a run never reaches from one text into the next"


def test_repeated_is_the_share_that_stood_there_before():
    assert repeated("a b c d e") == 0.0
    assert repeated("a b c a b c") == 1 / 4
    assert repeated("no no no no") == 1 / 2
    assert repeated("too short") == 0.0
    assert repeated("one two three four one two three four", 4) == pytest.approx(1 / 5)


def test_similarities_have_another_partner_as_control():
    eye = np.eye(4, dtype=np.float32)
    own, control = similarities(eye, eye)
    assert own.tolist() == [1.0] * 4 and control.tolist() == [0.0] * 4
    assert np.isnan(similarities(eye[:1], eye[:1])[1]).all()


def test_a_paired_difference_has_its_error():
    found = paired([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert found.mean == pytest.approx(1.0)
    assert found.error == pytest.approx(2 / 3**0.5)
    assert paired([1.0], [0.5]).error is None


# Classes -------------------------------------------------------------------------------------------------------


def vectors(signal: float, groups: int = 40, classes: int = 4, seed: int = 0) -> npt.NDArray[np.float32]:
    """Vectors whose group says most of them, and whose class says ``signal`` of it."""
    random = np.random.default_rng(seed)
    made = random.standard_normal((groups, 1, 64)) + 0.3 * random.standard_normal((groups, classes, 64))
    made += signal * random.standard_normal((1, classes, 64))
    made /= np.linalg.norm(made, axis=2, keepdims=True)
    return made.astype(np.float32)


def test_classes_that_differ_are_told_apart():
    told = tell_apart(vectors(1.0))
    assert told.accuracy > 0.9 and told.p < 0.001
    assert [sum(row) for row in told.confusion] == [40] * 4
    assert sum(told.confusion[i][i] for i in range(4)) == round(told.accuracy * 160)


def test_classes_that_do_not_differ_are_told_by_chance():
    found = [tell_apart(vectors(0.0, seed=seed)) for seed in range(12)]
    assert np.mean([told.accuracy for told in found]) == pytest.approx(0.25, abs=0.04)
    assert sum(told.p < 0.05 for told in found) <= 3


def test_the_same_answer_from_all_channels_is_chance():
    same = np.repeat(vectors(0.0)[:, :1], 4, axis=1)
    told = tell_apart(same)
    assert told.accuracy == 0.25 and told.p > 0.5


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="1 groups of 4"):
        tell_apart(vectors(1.0, groups=1))


# Requests ------------------------------------------------------------------------------------------------------


def test_the_held_out_requests_are_found_and_read():
    assert len(load_requests(find_requests("quality"))) == 60
    assert {one.lang for one in load_requests(find_requests("channels"))} == {"en"}
    with pytest.raises(InputError, match="come with the source"):
        find_requests("nothing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requests: []", "no requests in it"),
        ("requests: [{id: a, lang: en}]", "KeyError: 'text'"),
        ("requests: [{id: a, lang: en, text: x}, {id: a, lang: en, text: y}]", "the same id"),
        ("other: 1", "not a list of requests"),
        ("[1", "not a list of requests"),
    ],
)
def test_bad_requests_are_one_line(tmp_path: Path, text: str, said: str):
    path = tmp_path / "requests.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=said):
        load_requests(path)


def test_a_report_that_can_not_be_written_is_refused_first(tmp_path: Path):
    result = CliRunner().invoke(cli, ["bench", "quality", "--out", str(tmp_path / "no" / "report.json")])
    assert result.exit_code == 1
    assert "can't be written" in result.stderr and "measuring" not in result.stderr


# Quality -------------------------------------------------------------------------------------------------------

TEXTS = {"a": "my tea is cold", "b": "the dog ran off", "c": "чай остыл"}
KNOWN = ["my", "tea", "is", "cold", "the", "dog", "ran", "off", "no", "idea", "warm"]


def answer(request: str, response: str, way: str = "loop", **changes: object) -> Answer:
    made = Answer(
        request=request,
        lang="ru" if request == "c" else "en",
        seed=1,
        way=way,
        template="hearth",
        complete=True,
        valid=True,
        first=response,
        response=response,
        refused=False,
        council=False,
        revised=False,
        kept=False,
        scores=(0.5,),
        objections=(),
        tokens=10,
        seconds=2.0,
        shown=response,
    )
    return replace(made, **changes)


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Words as dimensions: texts are alike as far as they share words."""
    rows = np.array([[words(text).count(word) for word in KNOWN] for text in texts], dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_a_summary_says_what_the_loop_brought():
    plain = [answer("a", "no idea", PLAIN), answer("b", "no idea", PLAIN), answer("c", "нет", PLAIN)]
    better = answer("a", "warm the cold tea", first="no idea", revised=True, kept=True, scores=(0.1, 0.6), seconds=4.0)
    worse = answer("b", "no", revised=True, scores=(0.1, 0.05), refused=True)
    found = summarise("loop", [better, worse, answer("c", "нет")], plain, TEXTS, embed)
    assert (found.revised, found.kept, found.raised, found.better) == (2 / 3, 0.5, 0.5, 0.5)
    assert (found.refused, found.complete, found.valid) == (1 / 3, 1.0, 1.0)
    assert found.similarity == pytest.approx(0.25), "Russian isn't embedded"
    assert found.control == pytest.approx(0.125), "both have a the"
    assert found.similarity_refused == 0.0
    assert found.against_plain["similarity"] is not None
    assert found.against_plain["similarity"].mean == pytest.approx(0.25)
    assert found.seconds == pytest.approx(8 / 3)
    assert found.length == pytest.approx(6 / 3)


def test_a_revision_that_repeats_itself_is_no_better():
    looping = answer("a", "cold tea cold tea cold tea", first="no", revised=True, kept=True, scores=(0.5, 0.4))
    plain = [answer("a", "no", PLAIN)]
    found = summarise("loop", [looping], plain, TEXTS, embed)
    assert (found.kept, found.raised, found.better) == (1.0, 0.0, 0.0)
    assert found.against_plain["repeated3"] is not None
    assert found.against_plain["repeated3"].mean == pytest.approx(0.5)


def test_a_way_without_english_answers_has_no_similarity():
    only = [answer("c", "нет", PLAIN)]
    found = summarise(PLAIN, only, only, TEXTS, embed)
    assert found.similarity is None and found.better is None and found.against_plain["similarity"] is None
    report = QualityReport({"load": [1.0], "platform": "x", "cores": 1}, "m", 1, [1.0], (found,), tuple(only))
    assert any("–" in line for line in report.lines())
    assert "answers" not in report.to_dict()
    assert json.loads(json.dumps(report.to_dict(answers=True)))["answers"][0]["response"] == "нет"


def test_the_ways_differ_by_one_part_each():
    overlay = replace(OVERLAY.overlay, consilium=replace(OVERLAY.overlay.consilium, enabled="auto"))
    ways = ways_of(overlay)
    assert ways["the overlay"] == overlay
    looped = {name: way.self_loop.enabled for name, way in ways.items()}
    routed = {name: way.routing.inputs for name, way in ways.items()}
    assert looped == {PLAIN: False, "routing": False, "loop": True, "routing, loop": True, "the overlay": True}
    assert routed == {PLAIN: False, "routing": True, "loop": False, "routing, loop": True, "the overlay": True}
    assert {way.pvq.infer for way in ways.values()} == {overlay.pvq.infer}, "templates are chosen alike"
    assert [name for name, way in ways.items() if way.consilium.enabled != "never"] == ["the overlay"]


def test_undirected_channels_ask_for_nothing():
    field = undirected(OVERLAY.field)
    assert tuple(field.channels) == tuple(OVERLAY.field.channels)
    assert all(not zone.directive and not zone.sampling.to_dict() for zone in field.channels.values())
    assert any(zone.directive for zone in OVERLAY.field.channels.values())


# Whole turns ---------------------------------------------------------------------------------------------------


def whole(ms: float, bare: float, tokens: int = 100, outside: float = 20.0) -> Whole:
    stages = dict.fromkeys(STAGES, 0.0) | {"draft": ms}
    return Whole(ms, tokens, outside, stages, recalled=50, revisions=0, bare=bare, same=True)


def test_whole_turns_are_compared_with_the_best_bare_draft():
    full = Case((whole(1300.0, 10.0, outside=25.0), whole(1200.0, 11.0, outside=15.0)))
    council = Case((whole(4000.0, 40.0, tokens=200), whole(5000.0, 1.0, tokens=200)))
    turns = WholeTurns(10_000, {WAYS[0]: (full,), WAYS[1]: (full,), WAYS[2]: (council,)})
    assert turns.ratio(WAYS[0]) == pytest.approx(1.2)
    assert turns.middle(WAYS[0]) == pytest.approx((1.3 + 12 / 11) / 2)
    assert turns.ms(WAYS[0]) == 1200.0 and turns.bare_ms() == 1000.0
    assert turns.outside_ms(WAYS[0]) == 15.0
    assert turns.ratio(WAYS[2]) == pytest.approx(2.0), "against the full turn's bare draft, per token"
    assert turns.stages(WAYS[2])["draft"] == 4000.0
    assert "2 of 2 the same text" in turns.note(WAYS[0])


def test_a_watch_notes_calls_of_its_own_thread_only(monkeypatch: pytest.MonkeyPatch):
    def embed(self: object, texts: list[str]) -> int:
        return len(texts)

    monkeypatch.setattr(Embedder, "embed", embed)
    made = Embedder.__new__(Embedder)
    with Watch() as watch:
        assert made.embed(["a", "b"]) == 2
        thread = threading.Thread(target=made.embed, args=(["c"],))
        thread.start()
        thread.join()
    assert Embedder.embed is embed
    made.embed(["d"])
    (call,) = watch.calls
    assert (call.name, call.given, call.result) == ("embed", ["a", "b"], 2) and watch.ms == call.ms


def test_joined_scenes_are_scenes_and_no_text_stands_twice():
    scenes, pairs = joined_scenes(OVERLAY, 500)
    assert len({one["text"] for one in scenes}) == len({one["uid"] for one in scenes}) == 500
    for one in scenes:
        assert pairs[one["text"]][0] in one["text"] and pairs[one["text"]][1] in one["text"]
        Scene.from_dict(one["scene"], one["uid"])


class _Letters:
    dim = 26
    id = "letters"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def covers(self, text: str, /) -> bool:
        return True

    def embed(self, texts: list[str], /) -> npt.NDArray[np.float32]:
        self.asked += texts
        return np.eye(26, dtype=np.float32)[[ord(text[0]) - ord("a") for text in texts]]


def test_what_is_joined_lies_between_its_parts_and_is_not_embedded():
    letters = _Letters()
    joined = JoinedEmbedder(letters, {"ant and bee": ("ant", "bee")})
    both, ant, bee, cow = joined.embed(["ant and bee", "ant", "bee", "cow"])
    assert letters.asked == ["ant", "bee", "cow"]
    assert both @ ant == pytest.approx(0.5**0.5) and both @ bee == pytest.approx(0.5**0.5) and both @ cow == 0
    assert np.linalg.norm(both) == pytest.approx(1.0)
