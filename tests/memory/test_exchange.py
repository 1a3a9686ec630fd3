"""Export and import lose nothing and trust nothing; cards and lorebooks become pinned scenes."""

from __future__ import annotations

import base64
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.errors import InputError, LtmError
from ltm_edge.memory.cards import read_lore
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory

from .conftest import Opener, scene
from .hashed import HashedEmbedder

_CHARS = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff")
_LINE = st.text(_CHARS, min_size=1, max_size=30).map(str.strip).filter(bool)
_BLOCK = st.lists(_LINE, min_size=1, max_size=3).map("\n".join)
_SCENES = st.builds(
    Scene,
    actors=st.lists(st.tuples(_LINE, _LINE), min_size=1, max_size=3).map(tuple),
    tension=_LINE,
    archetype=st.lists(_LINE.filter(lambda t: "," not in t), min_size=1, max_size=2).map(tuple),
    resonance_center=_LINE,
    response=_BLOCK,
    self_commentary=st.none() | _LINE,
)


def exported(memory: SceneMemory) -> str:
    out = io.StringIO()
    memory.export(out)
    return out.getvalue()


@settings(max_examples=25)
@given(
    turns=st.lists(st.tuples(_SCENES, st.text(_CHARS, max_size=40), st.sampled_from("ab"), st.booleans()), max_size=6)
)
def test_a_round_trip_loses_nothing(turns: list[tuple[Scene, str, str, bool]]):
    with tempfile.TemporaryDirectory() as folder:
        one = SceneMemory.open(Path(folder) / "one", HashedEmbedder())
        two = SceneMemory.open(Path(folder) / "two", HashedEmbedder())
        with one, two:
            numbers: list[int] = []
            for record, text, session, pinned in turns:
                try:
                    done = one.add(record, text=text, session=session, pinned=pinned, recalled=numbers[-1:], keys=["k"])
                except LtmError:
                    continue  # not a scene: refused, which other tests are about
                numbers.append(done.id)
            if numbers:
                one.edit(numbers[-1], text="edited text", at=10.5) if one.get(
                    numbers[-1]
                ).superseded_by is None else None  # type: ignore[union-attr]
            one.consolidate()
            first = exported(one)
            two.import_(io.BytesIO(first.encode("utf-8")))
            assert exported(two) == first
            assert two.verify() == []
            again = two.import_(io.BytesIO(first.encode("utf-8")))
            assert again.scenes == 0 and again.known == two.stats().scenes + two.stats().arcs + two.stats().sagas
            assert exported(two) == first


@pytest.fixture
def lines(memory: SceneMemory) -> list[str]:
    for i in range(4):
        memory.add(scene(f"Reply {i}."), text=f"topic {i}", session="s")
    return exported(memory).splitlines()


def changed(line: str, **fields: object) -> str:
    return json.dumps(json.loads(line) | fields, ensure_ascii=True)


STRAY_LINK = json.dumps({"kind": "link", "source": "0" * 32, "target": "1" * 32, "type": "recalled", "weight": 1})


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"kind":"scene"}', "uid"),
        ('{"kind":"poem"}', "kind"),
        ('{"kind":"scene","kind":"scene"}', "twice"),
        ("[" * 100_000, "not JSON"),
        (STRAY_LINK, "no scene"),
        ({"strength": 2}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"created": "yesterday"}, "created"),
        ({"created": "2026-01-01"}, "created"),
        ({"text": "\ud800"}, "surrogate"),
        ({"text": "x" * 2_000_000}, "text"),
        ({"level": "epic"}, "level"),
        ({"pinned": 1}, "pinned"),
        ({"uid": "../../etc/passwd"}, "uid"),
        ({"scene": {"response": "x"}}, "missing"),
        ({"accepted": 1}, "accepted"),
        ({"accepted": [["2026-01-01T00:00:00+00:00", 2]]}, "accepted"),
        ({"accepted": [["soon", None]]}, "accepted"),
        ({"accepted": [None]}, "accepted"),
        ({"surprise": 1}, "unknown key"),
        ({"text": "another text"}, "stands for another scene"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_keeps_all_or_itself_out(
    opener: Opener, tmp_path: Path, lines: list[str], bad: str | dict[str, object], why: str
):
    fresh = opener(tmp_path / "fresh")
    if isinstance(bad, dict):
        uid = {} if "uid" in bad or bad.get("text") == "another text" else {"uid": "f" * 32}
        bad = changed(lines[2], **uid, **bad)
    broken = "\n".join([*lines[:4], bad, *lines[4:]]).encode("utf-8")
    with pytest.raises(InputError, match=rf"<import>:5: .*{why}.*nothing was imported"):
        fresh.import_(io.BytesIO(broken))
    assert fresh.stats().scenes == 0
    done = fresh.import_(io.BytesIO(broken), skip_bad=True)
    assert (done.scenes, done.links, done.bad_lines) == (4, 3, 1)
    assert done.bad[0][0] == 5 and why in done.bad[0][1]
    assert fresh.verify() == [] and fresh.stats().unembedded == 0


def test_a_line_that_never_ends_is_passed_over(opener: Opener, tmp_path: Path, lines: list[str]):
    fresh = opener(tmp_path / "fresh")
    broken = "\n".join([*lines[:3], "x" * 20_000_000, *lines[3:]]).encode("utf-8")
    done = fresh.import_(io.BytesIO(broken), skip_bad=True)
    assert done.scenes == 4 and done.bad == [(4, "longer than 8388608 bytes, which is the limit")]


def test_links_that_close_a_circle_are_passed_over(opener: Opener, tmp_path: Path, lines: list[str]):
    scenes = [json.loads(line) for line in lines if '"kind":"scene"' in line]
    circle = {
        "kind": "link",
        "source": scenes[0]["uid"],
        "target": scenes[3]["uid"],
        "type": "predecessor",
        "weight": 1,
    }
    fresh = opener(tmp_path / "fresh")
    done = fresh.import_(io.BytesIO("\n".join([*lines, json.dumps(circle)]).encode()), skip_bad=True)
    assert done.bad_lines == 1 and "circle" in done.bad[0][1]
    assert len(fresh.chain(1).scenes) == 4


def test_scenes_that_supersede_each_other_are_untangled(opener: Opener, tmp_path: Path, lines: list[str]):
    a, b = json.loads(lines[1]), json.loads(lines[2])
    text = [lines[0], changed(lines[1], superseded_by=b["uid"]), changed(lines[2], superseded_by=a["uid"])]
    fresh = opener(tmp_path / "fresh")
    done = fresh.import_(io.BytesIO("\n".join(text).encode()), skip_bad=True)
    assert (done.scenes, done.bad_lines) == (2, 1) and "circle" in done.bad[0][1]
    old, new = fresh.get(1), fresh.get(2)
    assert old is not None and old.superseded_by == 2 and new is not None and new.superseded_by is None
    assert [hit.scene.id for hit in fresh.recall("topic", 5)] == [2] and fresh.verify() == []
    with pytest.raises(InputError, match="circle"):
        opener(tmp_path / "strict").import_(io.BytesIO("\n".join(text).encode()))


def test_a_scene_never_supersedes_itself_nor_what_superseded_it_over_others(
    opener: Opener, tmp_path: Path, lines: list[str]
):
    uids = [json.loads(line)["uid"] for line in lines[1:5]]
    text = [lines[0], *(changed(line, superseded_by=uids[n]) for line, n in zip(lines[1:5], (1, 2, 0, 3), strict=True))]
    fresh = opener(tmp_path / "fresh")
    assert fresh.import_(io.BytesIO("\n".join(text).encode()), skip_bad=True).bad_lines == 2
    found = [fresh.get(number) for number in (1, 2, 3, 4)]
    assert [one.superseded_by for one in found if one is not None] == [2, 3, None, None]


@pytest.mark.parametrize("head", ["", "{}", '{"format":"ltm-memory","version":3}', '{"format":"ltm-memory"}', "\xff"])
def test_what_is_no_export_is_refused(memory: SceneMemory, head: str):
    with pytest.raises(InputError, match="<import>"):
        memory.import_(io.BytesIO(head.encode("latin-1") + b"\n"))


def test_export_to_a_file_and_import_from_it(opener: Opener, tmp_path: Path, lines: list[str]):
    memory = opener()
    assert memory.export_file(tmp_path / "out.jsonl") == 4
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines() == lines
    fresh = opener(tmp_path / "fresh")
    assert fresh.import_path(tmp_path / "out.jsonl").scenes == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh", "memory", "out.jsonl"]


CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Vera",
        "description": "{{char}} keeps a lighthouse.",
        "personality": "patient",
        "scenario": "",
        "first_mes": "Hello, {{user}}!\nMind the stairs.",
        "mes_example": "",
        "character_book": {
            "entries": [
                {"keys": ["lamp", "lens"], "content": "The lamp is from 1871.", "enabled": True, "name": "The lamp"},
                {"keys": ["cat"], "content": "No cat lives here.", "enabled": False},
            ]
        },
    },
}
BOOK = {"entries": {"0": {"key": ["Орден"], "content": "Орден основан в 1204 году.", "comment": "", "disable": False}}}


def png(kind: bytes, payload: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    text = kind + b"\0" + base64.b64encode(payload)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"tEXt", text) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["json", "chara", "ccv3"])
def test_a_character_card_becomes_pinned_scenes(memory: SceneMemory, tmp_path: Path, form: str):
    raw = json.dumps(CARD).encode()
    path = tmp_path / ("vera.json" if form == "json" else "vera.png")
    path.write_bytes(raw if form == "json" else png(form.encode(), raw))
    done = memory.import_path(path)
    assert (done.scenes, done.known) == (4, 0)
    assert memory.stats().pinned == 4
    (hit,) = memory.recall("who polishes the lens", 1, chain_depth=0)
    assert hit.scene.scene.response == "The lamp is from 1871." and hit.scene.keys == ("lamp", "lens")
    told = [one.scene.response for one in memory.scenes()]
    assert "Vera keeps a lighthouse." in told and "Hello, you!\nMind the stairs." in told
    assert memory.import_path(path).known == 4 and memory.stats().scenes == 4


def test_a_lorebook_becomes_pinned_scenes(memory: SceneMemory, tmp_path: Path):
    path = tmp_path / "world.json"
    path.write_text(json.dumps(BOOK), encoding="utf-8")
    assert memory.import_path(path).scenes == 1
    assert memory.recall("что за Ордена", 1)[0].scene.scene.resonance_center == "Орден"


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"entries": 3}', b'{"entries": [{"content": 3}]}', b'{"name": "x"}', b"\xff\xfe",
     b"[" * 99999, b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXtchara\0", png(b"chara", b"{")[:60],
     png(b"chara", b"?"),
     b'{"entries": [{"content": "' + b"x" * 200_000 + b'"}]}'],
)  # fmt: skip
def test_what_is_no_card_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"card\.json"):
        read_lore(path)


def test_a_faiss_folder_is_taken_without_faiss(memory: SceneMemory, tmp_path: Path):
    folder = tmp_path / "memory_faiss"
    folder.mkdir()
    (folder / "scene_embeddings.index").write_bytes(b"anything")
    records = [
        {"text": "the harbour at night", "session": "s", "scene": scene("Lights.").to_dict()},
        scene("Bare.").to_dict(),
    ]
    (folder / "meta.json").write_text(json.dumps({"scenes": records}), encoding="utf-8")
    assert memory.import_path(folder).scenes == 2
    assert memory.recall("harbour", 1)[0].scene.text == "the harbour at night"
    (folder / "meta.json").write_text('{"scenes": [{"scene": {}}]}', encoding="utf-8")
    with pytest.raises(InputError, match=r"scenes\[0\]"):
        memory.import_path(folder)


def test_a_faiss_folder_round_trip(opener: Opener, tmp_path: Path):
    faiss = pytest.importorskip("faiss")
    memory = opener()
    for i in range(5):
        memory.add(scene(f"Reply {i}."), text=f"topic{i} word", session="s")
    assert memory.export_faiss(tmp_path / "memory_faiss") == 5
    index = faiss.read_index(str(tmp_path / "memory_faiss" / "scene_embeddings.index"))
    assert (index.ntotal, index.d) == (5, 64)
    with pytest.raises(InputError, match="holds a memory already"):
        memory.export_faiss(tmp_path / "memory_faiss")
    fresh = opener(tmp_path / "fresh")
    assert fresh.import_path(tmp_path / "memory_faiss").scenes == 5
