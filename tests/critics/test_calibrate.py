"""Calibration: found again where it was planted, without weight where a probe says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.loop.critics.calibrate import auc, calibrate, fit_probe
from ltm_edge.loop.critics.critic import built_in, probability
from ltm_edge.loop.critics.examples import KINDS, OWN_KINDS, Example, balanced, damaged, examples_of
from ltm_edge.overlay_set import load_overlay, packaged_documents
from ltm_edge.schemas.overlay import Calibration, parse_overlay
from ltm_edge.schemas.overlay_edit import with_calibration

PACKAGED = load_overlay()
GOOD = examples_of(PACKAGED.templates)


def slow_auc(good, damaged_) -> float:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in good for b in damaged_]
    return sum(pairs) / len(pairs)


def test_auc_counts_pairs():
    rng = np.random.default_rng(3)
    for _ in range(20):
        good, other = rng.integers(0, 6, 17).tolist(), rng.integers(0, 5, 23).tolist()
        assert auc(good, other) == pytest.approx(slow_auc(good, other))
    assert auc([1.0], [0.0]) == 1.0 and auc([0.0], [0.0]) == 0.5


def test_a_planted_shift_and_slope_are_found():
    rng = np.random.default_rng(5)
    # Two normal classes of one spread: the log-odds of the classes are a line through the middle of their means.
    good, other = rng.normal(5.0, 1.0, 4000), rng.normal(3.0, 1.0, 4000)
    fit = fit_probe(good.tolist(), other.tolist(), signals_auc=0.5)
    assert fit.calibration.shift == pytest.approx(4.0, abs=0.1)
    assert fit.calibration.slope == pytest.approx(2.0, abs=0.15)
    assert fit.probe_auc == pytest.approx(0.921, abs=0.01)
    assert fit.calibration.weight == 1.0  # signals that tell nothing leave all to the probe
    told = [probability(value, fit.calibration) for value in (*good, *other)]
    assert np.mean(np.array(told) > 0.5) == pytest.approx(0.5, abs=0.02)


def test_the_bias_of_a_model_that_always_says_yes_has_no_weight():
    rng = np.random.default_rng(7)
    same = fit_probe((9.0 + rng.normal(size=60)).tolist(), (9.0 + rng.normal(size=60)).tolist())
    assert same.calibration.weight <= 0.1
    assert fit_probe([4.0] * 20, [4.0] * 20).calibration.weight == 0.0
    backwards = fit_probe(rng.normal(-1.0, 1.0, 60).tolist(), rng.normal(1.0, 1.0, 60).tolist())
    assert backwards.calibration.weight == 0.0
    few = fit_probe([5.0] * 7, [1.0] * 100)
    assert few.calibration.weight == 0.0 and (few.good, few.damaged) == (7, 100)


def test_a_probe_shares_the_score_with_signals_by_what_each_tells():
    rng = np.random.default_rng(9)
    good, other = rng.normal(2.0, 1.0, 500).tolist(), rng.normal(0.0, 1.0, 500).tolist()
    weights = [fit_probe(good, other, signals).calibration.weight for signals in (0.5, 0.7, 0.9, 1.0)]
    assert weights == sorted(weights, reverse=True) and 0.4 < weights[-1] < 0.5


def test_far_apart_classes_give_a_finite_slope():
    fit = fit_probe(np.linspace(10, 11, 50).tolist(), np.linspace(-11, -10, 50).tolist(), 1.0)
    assert 0.0 < fit.calibration.slope < 10.0 and abs(fit.calibration.shift) < 1.0


# Damages.


def test_a_program_damages_every_example_in_several_ways_and_the_same_each_time():
    made = damaged(GOOD)
    assert made == damaged(GOOD)
    by = {kind: [one for one in made if one.kind == kind] for kind in KINDS}
    assert all(len(by[kind]) >= 0.9 * len(GOOD) for kind in KINDS if kind != "missing_pole")
    assert len(by["missing_pole"]) >= 5
    for one in made:
        assert one.scene.response.strip() and one.lang in ("en", "ru")
        (good,) = [x for x in GOOD if (x.request, x.lang, x.template) == (one.request, one.lang, one.template)]
        assert one.scene.response != good.scene.response and one.scene.tension == good.scene.tension


@pytest.mark.parametrize("critic", built_in(PACKAGED.overlay), ids=lambda one: one.name)
@pytest.mark.parametrize("lang", ["en", "ru"])
def test_signals_tell_what_a_program_damaged(critic, lang: str):
    def score(one: Example) -> float:
        from ltm_edge.loop.critics.exhibit import Exhibit

        return critic.judge(Exhibit(one.request, one.goal, one.lang, one.scene)).score

    good = [score(one) for one in GOOD if one.lang == lang]
    own = [score(one) for one in damaged(GOOD) if one.lang == lang and one.kind in OWN_KINDS[critic.name]]
    assert auc(good, own) > (0.75 if critic.name == "obstructio" else 0.95)


def test_examples_are_chosen_evenly_and_by_nothing_but_their_requests():
    chosen = balanced(GOOD, 5)
    assert sorted(one.lang for one in chosen) == ["en"] * 5 + ["ru"] * 5
    assert chosen == balanced(list(reversed(GOOD)), 5)


class Planted:
    """A model that says yes to good scenes more than to damaged ones, by a known amount."""

    def odds(self, examples, critics, done):
        rng = np.random.default_rng(11)
        found = []
        for number, one in enumerate(examples, 1):
            value = 6.0 + (2.0 if one.kind == "good" else -2.0) + float(rng.normal())
            found.append(dict.fromkeys(critics(one), value))
            done(number)
        return found


def test_calibrate_asks_each_critic_about_its_own_damages_and_finds_what_was_planted():
    asked: list[tuple[int, int]] = []
    critics = built_in(PACKAGED.overlay)
    fitted = calibrate(critics, GOOD, damaged(GOOD), Planted(), progress=lambda *at: asked.append(at))  # type: ignore[arg-type]
    assert set(fitted) == {one.name for one in critics} and asked[-1][0] == asked[-1][1]
    for of in fitted.values():
        assert set(of) == {"en", "ru"}
        for fit in of.values():
            assert fit.calibration.shift == pytest.approx(6.0, abs=1.0)
            assert 0.3 < fit.calibration.weight < 0.7 and fit.probe_auc > 0.95
    own = sum(one.kind in OWN_KINDS["recursia"] and one.lang == "en" for one in damaged(GOOD))
    assert fitted["recursia"]["en"].damaged == own


# The overlay's text.

FOUND = {
    "obstructio": {"en": Calibration(0.5, 1.25, 0.3), "ru": Calibration()},
    "recursia": {"en": Calibration(weight=0.1)},
}


def test_a_calibration_goes_into_the_packaged_overlay_without_losing_a_comment():
    text = packaged_documents()["ltm_overlay_config.yaml"]
    once = with_calibration(text, FOUND, "x.yaml", "of the probes")
    assert parse_overlay(once).calibration == FOUND
    assert once.startswith(text.rstrip("\n")) and "# of the probes" in once
    other = {"recursia": {"ru": Calibration(-1.0, 2.0, 0.5)}}
    twice = with_calibration(once, other, "x.yaml")
    assert parse_overlay(twice).calibration == other and twice.startswith(text.rstrip("\n"))


def test_a_calibration_in_the_middle_is_replaced_and_what_follows_stays():
    text = (
        "# head\nltm_overlay:   # root\n  version: 1  # one\n  name: x\n  calibration:\n    recursia:\n"
        "      en: {shift: 1.0, slope: 2.0, weight: 0.5}\n\n  # about consilium\n  consilium: {enabled: never}\n"
    )
    written = with_calibration(text, FOUND, "x.yaml")
    assert written.startswith(
        "# head\nltm_overlay:   # root\n  version: 1  # one\n  name: x\n  calibration:\n    obstructio:"
    )
    assert written.endswith("\n\n  # about consilium\n  consilium: {enabled: never}\n")
    assert parse_overlay(written).calibration == FOUND


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("ltm_overlay: {version: 1, name: x}\n", InputError, "by hand"),
        ("ltm_overlay:\n  version: 1\n  name: x\n  nme: y\n", SchemaError, "unknown key"),
        ("ltm_overlay:\n  version: 1\n  name: x\n  calibration: {\n  }\n", InputError, "by hand"),
        ("", SchemaError, "x.yaml"),
    ],
)
def test_what_can_not_be_written_is_said(text: str, error: type[Exception], what: str):
    with pytest.raises(error, match=what):
        with_calibration(text, FOUND, "x.yaml")


def test_windows_line_ends_and_a_missing_last_line_end_are_taken():
    text = "ltm_overlay:\n  version: 1\n  name: x"
    assert parse_overlay(with_calibration(text, FOUND, "x.yaml")).calibration == FOUND
    windows = with_calibration(text.replace("\n", "\r\n"), FOUND, "x.yaml")
    assert parse_overlay(windows).calibration == FOUND and windows.count("\n") == windows.count("\r\n")


def test_the_command_needs_a_folder_with_an_overlay(tmp_path: Path):
    from click.testing import CliRunner

    from ltm_edge.cli.main import cli

    result = CliRunner().invoke(cli, ["calibrate", "--write", str(tmp_path)])
    assert result.exit_code == 1 and "ltm_overlay_config.yaml: not there" in result.output
