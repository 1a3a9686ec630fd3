"""OBSTRUCTIO: is a draft blocked: off the request or the centre, one-sided, evasive, at odds with itself, cut off?"""

from __future__ import annotations

from ltm_edge.loop.critics.conflict import conflict
from ltm_edge.loop.critics.ending import finished
from ltm_edge.loop.critics.exhibit import Exhibit, likeness
from ltm_edge.loop.critics.lexicon import Lexicon, lexicon, says
from ltm_edge.loop.critics.reading import Reading, ramp, read

__all__ = ["signals", "texts"]

# See insight_seeker.
NEAR_SCENE = (0.2, 0.55)
SCENE_KEYS = (0.0, 0.15)
NEAR_CENTER = (0.15, 0.5)
CENTER_KEYS = (0.0, 0.3)
NEAR_POLE = (0.05, 0.2)
EVASIVE_SHARE = (0.6, 0.0)
DISAGREEMENT = (1.0, 0.4)


def texts(exhibit: Exhibit) -> tuple[str, ...]:
    """What :func:`signals` compares by meaning."""
    scene = exhibit.scene
    poles = tuple(pole for pole in scene.poles if pole)
    return (scene.response, *read(scene.response).sentences, _asked(exhibit), scene.resonance_center, *poles)


def signals(exhibit: Exhibit) -> dict[str, float]:
    """What OBSTRUCTIO measures, each in [0, 1], 1 is good.

    *Key*: a word that says something, cut so that its inflections are one. ``ramp(x; a, b)``: 0 at a, 1 at b. *The
    scene asked for*: the request with its goal, the tension and the centre.

    ``to_request``: with an embedder ramp(cosine of the response to the scene asked for; 0.2, 0.55); by words
    ramp(share of the response's keys that stand in it or in the actors; 0, 0.15).
    ``to_center``: ramp(share of the centre's keys that the response takes up; 0, 0.3); with an embedder the greater of
    this and ramp(greatest cosine of a sentence to the centre; 0.15, 0.5).
    ``both_poles``: the smaller over the tension's poles of: 1 where a key of the pole is in the response, else with an
    embedder ramp(greatest cosine of a sentence to the pole; 0.05, 0.2), by words 0.5. 0 where a pole is missing.
    ``direct``: ramp(share of sentences with an evasive phrase; 0.6, 0).
    ``consistent``: 1 - what :func:`~ltm_edge.loop.critics.conflict.conflict` finds.
    ``finished``: what :func:`~ltm_edge.loop.critics.ending.finished` finds.
    ``agreed``: ramp(disagreement of the consilium's best two drafts; 1, 0.4).
    """
    scene = exhibit.scene
    response = read(scene.response)
    words = lexicon(exhibit.lang)
    return {
        "to_request": _to_request(exhibit, response),
        "to_center": _to_center(exhibit, response),
        "both_poles": _both_poles(exhibit, response),
        "direct": _direct(response, words),
        "consistent": 1.0 - conflict(response, words),
        "finished": finished(scene.response, words),
        "agreed": 1.0 if exhibit.disagreement is None else ramp(exhibit.disagreement, *DISAGREEMENT),
    }


def _asked(exhibit: Exhibit) -> str:
    parts = (exhibit.request, exhibit.goal, exhibit.scene.tension, exhibit.scene.resonance_center)
    return "\n".join(part for part in parts if part)


def _to_request(exhibit: Exhibit, response: Reading) -> float:
    near = likeness(exhibit, [exhibit.scene.response], [_asked(exhibit)])
    if near is not None:
        return ramp(float(near[0, 0]), *NEAR_SCENE)
    actors = "\n".join(f"{role} {who}" for role, who in exhibit.scene.actors)
    known = read(_asked(exhibit)).all_keys | read(actors.replace("_", " ")).all_keys
    keys = response.all_keys
    return ramp(len(keys & known) / len(keys), *SCENE_KEYS) if keys else 0.0


def _to_center(exhibit: Exhibit, response: Reading) -> float:
    center = read(exhibit.scene.resonance_center).all_keys
    if not center:
        return 1.0
    share = ramp(len(response.all_keys & center) / len(center), *CENTER_KEYS)
    near = likeness(exhibit, response.sentences, [exhibit.scene.resonance_center])
    return share if near is None else max(share, ramp(float(near.max()), *NEAR_CENTER))


def _both_poles(exhibit: Exhibit, response: Reading) -> float:
    poles = exhibit.scene.poles
    if not all(poles) or not response.sentences:
        return 0.0
    near = likeness(exhibit, poles, response.sentences)
    values = []
    for i, pole in enumerate(poles):
        if read(pole).all_keys & response.all_keys:
            values.append(1.0)
        else:
            values.append(0.5 if near is None else ramp(float(near[i].max()), *NEAR_POLE))
    return min(values)


def _direct(response: Reading, words: Lexicon) -> float:
    if not response.sentences:
        return 0.0
    return ramp(sum(says(one, words.evasive) for one in response.stems) / len(response.sentences), *EVASIVE_SHARE)
