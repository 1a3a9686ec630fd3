"""Hostile templates: none may run for long, eat memory, reach Python or raise anything but a refusal."""

from __future__ import annotations

import datetime
import tracemalloc

import pytest

from ltm_edge.scene.jinja_sandbox import MAX_TEMPLATE_BYTES, BoundedTemplate, RenderLimits, TemplateRefusal

DAY = datetime.date(2025, 1, 1)
MESSAGES = {"messages": [{"role": "user", "content": "x" * 50}] * 20, "bos_token": "<s>"}


def _grow(start: str, times: int, step: str) -> str:
    return (
        f"{{% set ns = namespace(x={start}) %}}{{% for i in range({times}) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    )


HOSTILE = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "range too long": "{% for a in range(10000000) %}{% endfor %}",
    "nested messages": "{% for a in messages %}" * 8 + "{% endfor %}" * 8,
    "doubling by ~": _grow("'aaaaaaaa'", 99, "ns.x ~ ns.x"),
    "doubling by +": _grow("'aaaaaaaa'", 99, "ns.x + ns.x"),
    "multiplied text": "{{ 'a' * 10000000000 }}",
    "multiplied list": "{{ ([1] * 1000000000) | length }}",
    "power": "{{ 10 ** 10 ** 10 }}",
    "squares": _grow("9999", 99, "ns.x * ns.x") + "{{ ns.x }}",
    "padding method": "{{ 'a'.ljust(10000000000) }}",
    "format method": "{{ '{:9999999999}'.format(1) }}",
    "percent format": "{{ '%09999999999d' % 1 }}",
    "center filter": "{{ 'a' | center(10000000000) }}",
    "round filter": "{{ 1 | round(1000000000, 'ceil') }}",
    "slice filter": "{{ [1] | slice(1000000000) | list }}",
    "batch filter": "{{ [1] | batch(1000000000, 0) | list }}",
    "replace": _grow("'aaaaaaaa'", 9, "ns.x | replace('a', ns.x)"),
    "replace method": _grow("'aaaaaaaa'", 9, "ns.x.replace('a', ns.x)"),
    "join": _grow("'aaaaaaaa'", 9, "ns.x | join(ns.x)"),
    "join method": _grow("'aaaaaaaa'", 9, "ns.x.join(ns.x)"),
    "captured output": "{% set b = 'a' * 1000000 %}{% set x %}"
    "{% for i in range(99999) %}{{ b }}{% endfor %}{% endset %}",
    "captured data": "{% set x %}{% for i in range(99999) %}" + "a" * 9000 + "{% endfor %}{% endset %}",
    "nested lists": _grow("['a']", 60, "[ns.x, ns.x]") + "{{ ns.x }}",
    "nested dicts": _grow("1", 60, "dict(a=ns.x, b=ns.x)") + "{{ ns.x | tojson }}",
    "nested tuples": _grow("1", 60, "(ns.x, ns.x)") + "{{ ns.x == ns.x }}",
    "list times list": _grow("[1]", 60, "[ns.x] * 99") + "{{ ns.x }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "endless loop call": "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "class walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals walk": "{{ raise_exception.__globals__.os }}",
    "nested format": "{{ '{:{}}'.format(1, 9999999999) }}",
    "attr walk": "{{ '' | attr('__class__') }}",
    "cycler walk": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "change the input": "{{ messages.append(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "not a template": "{% for %}",
    "deep parentheses": "{{ " + "(" * 50_000 + ")" * 50_000 + " }}",
    "deep lists": "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
    "deep ifs": "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
    "too large": "a" * (MAX_TEMPLATE_BYTES + 1),
    "unknown filter": "{{ 'a' | mystery }}",
    "raises": "{{ raise_exception('no\nsystem') }}",
    "divides": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_refused_soon_and_small(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateRefusal) as refusal:
            BoundedTemplate(HOSTILE[name], RenderLimits(seconds=2.0)).render(MESSAGES, DAY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 260
    assert peak < 400_000_000


def test_internals_are_refused_where_they_are_named_in_a_format() -> None:
    with pytest.raises(TemplateRefusal):
        BoundedTemplate("{{ '{0.__class__.__mro__}'.format_map({'0': ''}) }}").render(MESSAGES, DAY)


@pytest.mark.parametrize(
    "source",
    [
        "{{ '{0.__class__}'.format('') }}",
        "{{ ''.__class__ }}",
        "{{ raise_exception.__code__ }}",
        "{{ messages.__class__ }}",
    ],
)
def test_internals_read_as_nothing(source: str) -> None:
    assert BoundedTemplate(source).render(MESSAGES, DAY) == ""


def test_limits_are_one_rendering_each() -> None:
    template = BoundedTemplate("{% for a in range(900) %}{{ a }}{% endfor %}", RenderLimits(steps=1000))
    for _ in range(2):
        assert template.render({}, DAY) == "".join(map(str, range(900)))


def test_ordinary_things_work() -> None:
    source = (
        "{% macro line(m) %}{{ m.role }}:{{ m['content'] | trim }}{% endmacro %}"
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ line(m) }}"
        "{{ ', ' if not loop.last }}{% endfor %}|{{ messages[::-1][0].role }}|{{ {'a': [1, 'é<']} | tojson }}"
        "|{{ messages | map(attribute='role') | unique | join('+') }}|{{ 'a\nb' | indent(2) }}|"
        "{{ 'x,y'.split(',')[1] }}"
        "|{% for k, v in {'q': 1}.items() %}{{ k ~ v }}{% endfor %}|{{ 'abc'[:2] + 'd' * 2 }}|{{ strftime_now('%Y') }}"
        "|{% for m in messages[:1] %}{{ m.content.replace('a', 'A') }}{{ '-'.join(['p', 'q']) }}{% endfor %}"
        "|{{ '{:03d} {x}'.format(7, x='y') }}"
        "|{% set a, b = 1, 2 %}{{ a + b }}|{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    )
    messages = [
        {"role": "user", "content": " a "},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert BoundedTemplate(source).render({"messages": messages}, DAY) == (
        'user:a, assistant:b, |user|{"a": [1, "é<"]}|user+assistant|a\n  b|y|q1|abdd|2025| A p-q|007 y|3|2'
    )


def test_whitespace_is_handled_as_chat_templates_expect() -> None:
    source = "{% if true %}\n    a\n    {% endif %}\nb\n"
    assert BoundedTemplate(source).render({}, DAY) == "    a\nb"
