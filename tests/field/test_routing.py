"""Spread and Router: weights, permutation, bad numbers, overrides, mixed sampling."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltm_edge.errors import InputError
from ltm_edge.field.router import Router, mixed_sampling, parse_channels
from ltm_edge.field.spread import Spread
from ltm_edge.overlay_set import load_overlay
from ltm_edge.schemas.field import Archetype, ChannelZone, FieldArchitecture, Link, MemoryZone, WillZone
from ltm_edge.schemas.field import ZoneSampling as S
from ltm_edge.schemas.overlay import Routing as Limits

ANY = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.sampled_from([1.0, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01])


def architecture(names: list[str], links: tuple[Link, ...] = (), **zones: Any) -> FieldArchitecture:
    channels = {name: ChannelZone("channel", archetypes={"sage": 0.1 * i}) for i, name in enumerate(sorted(names))}
    order = {name: channels[name] for name in names}
    return FieldArchitecture(1, order | zones, links, {"sage": Archetype(), "child": Archetype()})


def multiple(weight: float, step: float) -> bool:
    return abs(weight / step - round(weight / step)) < 1e-6


@given(st.lists(ANY, min_size=1, max_size=7), STEPS, st.floats(0.001, 10.0))
def test_weights_are_multiples_of_the_step_and_sum_to_1(values: list[float], step: float, temperature: float) -> None:
    names = [f"c{i}" for i in range(len(values))]
    routing = Router(architecture(names), Limits(temperature, step)).route(dict(zip(names, values, strict=True)))
    assert set(routing.weights) == set(names)
    assert math.fsum(routing.weights.values()) == pytest.approx(1.0, abs=1e-9)
    assert all(0.0 <= weight <= 1.0 and multiple(weight, step) for weight in routing.weights.values())
    assert math.fsum(routing.raw.values()) == pytest.approx(1.0)
    assert 0.0 <= routing.entropy <= 1.0
    assert list(routing.weights.values()) == sorted(routing.weights.values(), reverse=True)
    # Rounding takes or gives less than a step from each but the strongest.
    assert all(abs(routing.weights[n] - routing.raw[n]) < step + 1e-6 for n in names)


def test_what_is_less_than_a_step_goes_to_the_strongest() -> None:
    router = Router(architecture(["a", "b", "c"]), Limits(0.1, 0.3))
    routing = router.route({"a": 0.1, "b": 0.12, "c": 0.1})
    assert routing.weights == {"b": pytest.approx(0.4), "a": pytest.approx(0.3), "c": pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [((0.4, 0.3, 0.2, 0.1), (0.5, 0.25, 0.25, 0.0)), ((0.97, 0.01, 0.01, 0.01), (1.0, 0.0, 0.0, 0.0)),
     ((0.25, 0.25, 0.25, 0.25), (0.25, 0.25, 0.25, 0.25)), ((0.45, 0.25, 0.15, 0.15), (0.5, 0.25, 0.25, 0.0))],
)  # fmt: skip
def test_quantised(shares: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    names = ["a", "b", "c", "d"]
    similarity = {name: math.log(share) for name, share in zip(names, shares, strict=True)}
    lowest = min(similarity.values())
    # Softmax at temperature t of ln(share) * t is the share.
    routing = Router(architecture(names), Limits(0.1, 0.25)).route(
        {n: 0.1 * (v - lowest) for n, v in similarity.items()}
    )
    assert tuple(routing.weights[name] for name in names) == pytest.approx(wanted)


@given(st.permutations(["a", "b", "c", "mem", "will"]), st.lists(ANY, min_size=5, max_size=5))
def test_the_order_of_zones_and_links_changes_nothing(order: list[str], values: list[float]) -> None:
    kinds: dict[str, Any] = {"mem": MemoryZone("memory"), "will": WillZone("will")}
    links = (
        Link("mem", "a", 0.8),
        Link("will", "b", -0.5),
        Link("a", "c", 0.9),
        Link("c", "a", 0.4),
        Link("b", "a", 1.0),
    )
    stirred = dict(zip(["a", "b", "c", "mem", "will"], values, strict=True))

    def route(names: list[str], links: tuple[Link, ...]) -> Any:
        channels = architecture(["a", "b", "c"]).channels
        zones = {name: kinds.get(name) or channels[name] for name in names}
        field = FieldArchitecture(1, zones, links, {"sage": Archetype()})
        return Router(field, Limits()).route({n: stirred[n] for n in names if n in channels}, stirred, ("sage",))

    one, other = route(sorted(order), links), route(order, links[::-1])
    assert one == other and list(one.weights) == list(other.weights)


ZONES = ["a", "b", "c", "d"]
LINKS = st.lists(
    st.tuples(st.sampled_from(ZONES), st.sampled_from(ZONES), st.floats(-1, 1)), max_size=12, unique_by=lambda x: x[:2]
).map(lambda found: [Link(*one) for one in found if one[0] != one[1]])


@given(LINKS, st.dictionaries(st.sampled_from(ZONES), ANY), st.integers(0, 16), st.floats(0, 1))
def test_spread_is_bounded_and_what_a_slow_walk_gives(
    links: list[Link], given_: dict[str, float], steps: int, damping: float
) -> None:
    active = Spread(ZONES, links, steps, damping).over(given_)
    assert all(-1.0 <= value <= 1.0 for value in active.values())
    start = {z: min(1.0, max(-1.0, v)) if math.isfinite(v := given_.get(z, 0.0)) else 0.0 for z in ZONES}
    slow = dict(start)
    for _ in range(steps):
        slow = {
            z: min(1.0, max(-1.0, start[z] + damping * sum(
                link.weight / max(1.0, sum(abs(o.weight) for o in links if o.target == z)) * slow[link.source]
                for link in links if link.target == z
            )))
            for z in ZONES
        }  # fmt: skip
    assert active == pytest.approx(slow, abs=1e-9)


def test_spread_follows_links_and_no_links_change_nothing() -> None:
    chain = [Link("a", "b", 1.0), Link("b", "c", 1.0)]
    assert Spread(ZONES, chain, 1, 0.5).over({"a": 0.8}) == pytest.approx({"a": 0.8, "b": 0.4, "c": 0.0, "d": 0.0})
    assert Spread(ZONES, chain, 2, 0.5).over({"a": 0.8})["c"] == pytest.approx(0.2)
    assert Spread(ZONES, chain, 0, 0.5).over({"a": 0.8})["b"] == 0.0
    assert Spread(ZONES, [], 4, 0.5).over({"a": 0.8}) == {"a": 0.8, "b": 0.0, "c": 0.0, "d": 0.0}


def test_memory_and_will_stir_the_channels() -> None:
    field = load_overlay().field
    router = Router(field, Limits())
    plain = router.route(dict.fromkeys(field.channels, 0.2))
    assert plain.entropy == pytest.approx(1.0, abs=0.01)
    recalled = router.route(dict.fromkeys(field.channels, 0.2), {"memory": 0.9})
    assert recalled.leading == "archetype" and "links" in recalled.why
    willed = router.route(dict.fromkeys(field.channels, 0.2), {"will": 0.9})
    assert willed.leading == "logician"
    assert router.route(dict.fromkeys(field.channels, 0.2), {"poet": 0.9}).raw == plain.raw, "channels have similarity"


def test_archetypes_have_a_say() -> None:
    field = load_overlay().field
    router = Router(field, Limits())
    even = dict.fromkeys(field.channels, 0.2)
    assert router.route(even, archetypes=("trickster",)).leading == "ironist"
    assert router.route(even, archetypes=("judge", "artisan")).leading == "logician"
    assert router.route(even, archetypes=("nobody",)).raw == router.route(even).raw


def test_the_entropy_is_of_what_was_not_yet_rounded() -> None:
    routing = Router(architecture(["a", "b"]), Limits(1.0, 1.0)).route({"a": 0.1, "b": 0.0})
    assert routing.weights == {"a": 1.0, "b": 0.0} and routing.entropy > 0.9


def test_several_archetypes_count_as_their_mean() -> None:
    router = Router(architecture(["a", "b", "c"]), Limits())
    none, one, both = (router.route({}, archetypes=some).similarity["c"] for some in ((), ("sage",), ("sage", "child")))
    assert one > none == 0.0 and both == pytest.approx(one / 2)


def test_one_channel_and_none() -> None:
    one = Router(architecture(["a"]), Limits()).route({"a": math.nan})
    assert one.weights == {"a": 1.0} and one.entropy == 0.0 and one.leading == "a"
    none = Router(architecture([], m=MemoryZone("memory")), Limits()).route({})
    assert none.weights == {} and none.leading is None and none.to_trace()["why"] == "no channels"


def test_override() -> None:
    field = load_overlay().field
    routing = Router(field, Limits()).route({"logician": 0.9}, override={"poet": 0.7, "ironist": 0.3})
    assert routing.weights == {"poet": 0.7, "ironist": 0.3, "logician": 0.0, "archetype": 0.0}
    assert routing.why == "asked for: poet 0.7, ironist 0.3"
    assert max(routing.raw, key=routing.raw.__getitem__) == "logician", "the trace says what would have been"
    assert 0.0 < routing.entropy < 0.6
    for bad in ({"pot": 1.0}, {"poet": -1.0}, {"poet": math.nan}, {"poet": 0.0}, {}):
        with pytest.raises(InputError):
            Router(field, Limits()).route({}, override=bad)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("poet=0.7,ironist=0.3", {"poet": 0.7, "ironist": 0.3}), (" poet = 7 , ironist=3 ", {"poet": 0.7, "ironist": 0.3}),
     ("poet", {"poet": 1.0}), ("poet,ironist", {"poet": 0.5, "ironist": 0.5}), ("poet=1,ironist=0", {"poet": 1.0})],
)  # fmt: skip
def test_channels_in_words(text: str, wanted: dict[str, float]) -> None:
    assert parse_channels(text, load_overlay().field) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "poet=0.5"), ("poet=0.5,", "name=weight"), ("pot=1", "'poet'"), ("poet=x", "'x'"), ("poet=nan", "weight nan"),
     ("poet=-1", "from 0"), ("poet=0", "all weights"), ("poet=1,poet=1", "twice"), ("poet=1e400", "inf")],
)  # fmt: skip
def test_channels_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_channels(text, load_overlay().field)
    assert words in str(caught.value) or words.replace("poet", "logician") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mixed_sampling() -> None:
    zones = {
        "a": ChannelZone("channel", sampling=S(temperature=0.2, top_k=10)),
        "b": ChannelZone("channel", sampling=S(temperature=1.0)),
        "c": ChannelZone("channel", sampling=S(min_p=0.5)),
    }
    field = FieldArchitecture(1, zones)
    router = Router(field, Limits())
    base = {"temperature": 0.4, "top_k": 41, "min_p": 0.05, "seed": 7}
    mixed = mixed_sampling(base, router.route({}, override={"a": 0.5, "b": 0.5}), field)
    assert mixed == {"temperature": pytest.approx(0.6), "top_k": 26, "min_p": 0.05, "seed": 7}
    assert isinstance(mixed["top_k"], int) and base["temperature"] == 0.4
    pure = mixed_sampling(base, router.route({}, override={"b": 1.0}), field)
    assert pure == {"temperature": 1.0, "top_k": 41, "min_p": 0.05, "seed": 7}
    for order in itertools.permutations(zones):
        again = FieldArchitecture(1, {name: zones[name] for name in order})
        assert mixed_sampling(base, router.route({}, override={"a": 0.5, "b": 0.5}), again) == mixed
