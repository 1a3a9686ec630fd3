"""The messages of `ltm-edge stdio`: parameters and result of every method, and the notifications.

docs/stdio.schema.json is made of these records; requests are checked against them as they come in. What they hold is
protocol version 1: keys and methods may be added to it, nothing may be taken away or change its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field, Strict

from ltm_edge.errors import Problem, SchemaError
from ltm_edge.schemas.check import STRICT, Flag, Whole, check_record
from ltm_edge.schemas.yaml import YamlDocument

__all__ = [
    "METHODS",
    "NOTIFICATIONS",
    "PROTOCOL",
    "AddResult",
    "CancelParams",
    "CancelResult",
    "ChainResult",
    "CloseParams",
    "ConsolidateParams",
    "EditParams",
    "ExportResult",
    "FileParams",
    "ForgetParams",
    "ForgetResult",
    "GetResult",
    "ImportParams",
    "ImportResult",
    "InspectParams",
    "InspectResult",
    "Link",
    "ListParams",
    "MemoryAddParams",
    "Method",
    "NoticeParams",
    "OpenParams",
    "OpenResult",
    "PinParams",
    "RecallParams",
    "RecallResult",
    "Recalled",
    "SceneParams",
    "ScenesResult",
    "SendParams",
    "SendResult",
    "SessionParams",
    "ShutdownParams",
    "StatsResult",
    "Stored",
    "TokenParams",
    "VerifyResult",
    "check_params",
]

PROTOCOL = 1
MAX_VALUES = 512
"""Values that parameters may hold in all; each may have something wrong with it that has to be said."""

MAX_DEPTH = 32
"""Objects and lists that parameters may hold in one another, as in YAML files."""

RequestId = str | int | float | None
SessionId = Annotated[str, Field(max_length=64, description="what open returned")]
Form = Literal["auto", "text", "yaml", "json", "image", "refusal"]
Level = Literal["scene", "arc", "saga"]
SceneObject = Annotated[Mapping[str, Any], Field(description="a scene with the keys of scene.yaml")]
SceneReference = Annotated[
    Annotated[int, Strict()] | str, Field(description="a scene's id, its uid, or the beginning of its uid")
]
SettingValue = Annotated[float, Strict()] | Annotated[int, Strict()] | str | None

SettingValues = Annotated[Mapping[str, SettingValue], Field(description="such as temperature, max_tokens, seed")]


class _Params:
    """Of a method; what isn't known in them is refused."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True, slots=True)
class _OfSession(_Params):
    """Of a method that a session carries out."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class _OfSend:
    """Of a notification while a request is answered."""

    session: SessionId
    request: Annotated[RequestId, Field(description="id of the send")]


@dataclass(frozen=True, slots=True)
class OpenParams(_Params):
    """Load a bundle or a GGUF file (once for all sessions that ask for it alike) and start a conversation."""

    protocol: Annotated[Whole, Field(ge=1, description="version that the client speaks; newer ones are refused")] = 1
    bundle: Annotated[str | None, Field(description="path; null: the demo model")] = None
    overlay: Annotated[str | None, Field(description="folder with an overlay instead of the bundle's own")] = None
    gpu_layers: Annotated[Whole, Field(ge=0)] | Literal["auto", "all"] = "auto"
    device: str | None = None
    threads: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    ctx: Annotated[Whole, Field(ge=128, le=1 << 24, description="context in tokens")] | None = None
    flash_attn: Literal["auto", "on", "off"] = "auto"
    kv_type: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "f16"
    name: Annotated[str | None, Field(description="of the conversation, in the trace and in memory")] = None
    system: Annotated[str | None, Field(description="added to the system message")] = None
    template: Annotated[str | None, Field(description="of every turn; null: chosen for each request")] = None
    lang: Annotated[str | None, Field(description="of the answers; null: the request's")] = None
    form: Form = "auto"
    settings: SettingValues = field(default_factory=dict)
    memory: Annotated[str | None, Field(description="scene memory by its name in the data folder; null: none")] = None
    memory_folder: Annotated[str | None, Field(description="scene memory by its folder, instead of its name")] = None


@dataclass(frozen=True, slots=True)
class OpenResult:
    """A conversation has begun."""

    session: SessionId
    protocol: int
    version: Annotated[str, Field(description="of ltm-edge")]
    model: Annotated[Mapping[str, Any], Field(description="facts about the model and where it runs")]
    templates: tuple[str, ...]
    languages: tuple[str, ...]
    notices: Annotated[tuple[str, ...], Field(description="what people should be told")]


@dataclass(frozen=True, slots=True)
class CloseParams(_OfSession):
    """End a conversation: what runs is cancelled, what waits is answered with the error Cancelled."""


@dataclass(frozen=True, slots=True)
class SessionParams(_OfSession):
    """Of the session's scene memory."""


@dataclass(frozen=True, slots=True)
class SendParams(_OfSession):
    """Answer a request: text, or a PVQ with the keys of PVQ.yaml. Meanwhile `token` and `event` notifications come."""

    text: str | None = None
    pvq: Mapping[str, Any] | None = None
    form: Form | None = None
    template: str | None = None
    lang: str | None = None
    seed: Whole | None = None
    max_tokens: Whole | None = None
    channels: Annotated[str | None, Field(description="weights such as poet=0.7,ironist=0.3")] = None
    council: Annotated[str | None, Field(description="auto, on or off: whether several channels draft at once")] = None
    budget: Annotated[float, Field(gt=0.0, description="seconds from which no further draft begins")] | None = None
    stream: Annotated[Flag, Field(description="whether token and event notifications are wanted")] = True
    trace: Annotated[Flag, Field(description="whether the turn's trace is wanted in the result")] = False

    def __post_init__(self) -> None:
        if (self.text is None) == (self.pvq is None):
            raise ValueError("give either text or pvq")


@dataclass(frozen=True, slots=True)
class SendResult:
    """The answer; `partial` where it was cancelled or ran out of tokens."""

    text: Annotated[str, Field(description="in the form that was asked for")]
    form: str
    document: Annotated[str, Field(description="the scene as the model wrote it (YAML)")]
    scene: SceneObject | None
    partial: bool
    stop: Annotated[str, Field(description="eog (complete), length, cancelled or sink")]
    notices: tuple[str, ...]
    remark: Annotated[str, Field(description="what the critics objected to and what came of it; may be empty")]
    trace: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class CancelParams(_OfSession):
    """Stop what a session does and drop what waits in it; or only the request with this id."""

    request: Annotated[str, Strict()] | Annotated[int, Strict()] | None = None


@dataclass(frozen=True, slots=True)
class CancelResult:
    """A running answer returns partial; requests that waited are answered with the error Cancelled."""

    cancelled: Annotated[int, Field(description="how many requests this reached")]


@dataclass(frozen=True, slots=True)
class RecallParams(_OfSession):
    """The scenes of memory that resonate most with a text, best first, and what hangs on them."""

    text: str
    k: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    chain_depth: Annotated[Whole, Field(ge=0, le=100)] | None = None
    history: Annotated[Flag, Field(description="superseded scenes as well")] = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A scene in memory."""

    id: int
    uid: str
    level: Level
    created: Annotated[str, Field(description="ISO 8601, UTC")]
    session: Annotated[str, Field(description="name of the conversation it comes from")]
    template: str
    phase: str | None
    provenance: str
    strength: float
    pinned: bool
    echo: bool
    keys: tuple[str, ...]
    superseded_by: int | None
    superseded_at: str | None
    text: Annotated[str, Field(description="what the person said")]
    scene: SceneObject


@dataclass(frozen=True, slots=True)
class Recalled:
    """A scene that came back, and why."""

    id: int
    uid: str
    created: str
    score: float
    parts: Mapping[str, float]
    via: str
    of: int
    tokens: int
    scene: Stored


@dataclass(frozen=True, slots=True)
class RecallResult:
    """Hits by score, then the scenes along their chains."""

    scenes: tuple[Recalled, ...]


@dataclass(frozen=True, slots=True)
class ListParams(_OfSession):
    """Scenes, newest first."""

    name: Annotated[str | None, Field(description="only scenes of the conversation of this name")] = None
    level: Level | None = None
    pinned: Flag = False
    limit: Annotated[Whole, Field(ge=1, le=10_000)] = 100


@dataclass(frozen=True, slots=True)
class ScenesResult:
    """Scenes."""

    scenes: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class SceneParams(_OfSession):
    """One scene."""

    id: SceneReference


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two scenes."""

    source: int
    target: int
    kind: str
    weight: float


@dataclass(frozen=True, slots=True)
class GetResult:
    """A scene and its links."""

    scene: Stored
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class ChainResult:
    """The chain that a scene stands in, oldest first, and the summaries above it."""

    scenes: tuple[Stored, ...]
    summaries: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class MemoryAddParams(_OfSession):
    """Store a scene."""

    scene: SceneObject
    text: Annotated[str, Field(description="what was said to get it")] = ""
    name: Annotated[str, Field(description="of the conversation it belongs to")] = ""
    pinned: Flag = False


@dataclass(frozen=True, slots=True)
class EditParams(_OfSession):
    """Replace a scene by a new version; the old one stays as history."""

    id: SceneReference
    scene: SceneObject | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of it: `added`, `strengthened` (an older scene says the same) or `echo` (nothing new in it)."""

    id: int
    status: str
    superseded: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PinParams(_OfSession):
    """Pin a scene: always a candidate, never decays."""

    id: SceneReference
    pinned: Flag = True


@dataclass(frozen=True, slots=True)
class ForgetParams(_OfSession):
    """Forget scenes for good. Where several conditions are given all must hold."""

    ids: Annotated[tuple[SceneReference, ...], Field(max_length=250)] = ()
    query: Annotated[str | None, Field(description="scenes in which all these words stand")] = None
    before: Annotated[str | None, Field(description="scenes told before this time (ISO 8601 with its zone)")] = None
    name: Annotated[str | None, Field(description="scenes of the conversation of this name")] = None
    dry_run: Annotated[Flag, Field(description="only say what would go")] = False


@dataclass(frozen=True, slots=True)
class ForgetResult:
    """What is gone, older versions and summaries included."""

    forgotten: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConsolidateParams(_OfSession):
    """Write arcs of runs of linked, similar scenes, and sagas of arcs."""

    name: Annotated[str | None, Field(description="arcs of the conversation of this name only")] = None


@dataclass(frozen=True, slots=True)
class StatsResult:
    """Figures of a memory."""

    folder: str
    scenes: int
    arcs: int
    sagas: int
    links: int
    sessions: int
    pinned: int
    superseded: int
    echoes: int
    unembedded: int
    bytes: int
    embedders: Mapping[str, int]
    first: str | None
    last: str | None


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What is wrong with the memory; nothing where all is well."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileParams(_OfSession):
    """Write every scene and link to a file, as JSON Lines."""

    file: str


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Scenes that were written."""

    scenes: int


@dataclass(frozen=True, slots=True)
class ImportParams(_OfSession):
    """Take in an export, a character card, a lorebook, a FAISS folder."""

    file: str
    skip_bad: Annotated[Flag, Field(description="pass over lines that can't be read")] = False


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Scenes that are new, and those that were here already."""

    scenes: int
    known: int


@dataclass(frozen=True, slots=True)
class InspectParams(_Params):
    """What a GGUF file or a bundle holds, read from its header."""

    file: str


@dataclass(frozen=True, slots=True)
class InspectResult:
    """The object that `ltm-edge inspect --json` prints."""

    file: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShutdownParams(_Params):
    """Close everything; the answer to this is the last message."""


@dataclass(frozen=True, slots=True)
class TokenParams(_OfSend):
    """A piece of the document that is being written, of whole characters."""

    text: str


@dataclass(frozen=True, slots=True)
class EventParams(_OfSend):
    """A part of the turn begins, or another document than the one that streamed is the answer."""

    stage: Annotated[str | None, Field(description="recall, draft, council, critics, revise or store")]
    about: Annotated[str, Field(description="a few words for people; may be empty")]
    document: Annotated[str | None, Field(description="the document that takes the draft's place (YAML)")]


@dataclass(frozen=True, slots=True)
class NoticeParams:
    """A sentence for people."""

    session: SessionId
    text: str


class Method(NamedTuple):
    """Parameters and result of a method; the result None is null."""

    params: type
    result: type | None


METHODS: Mapping[str, Method] = {
    "open": Method(OpenParams, OpenResult),
    "close": Method(CloseParams, None),
    "send": Method(SendParams, SendResult),
    "cancel": Method(CancelParams, CancelResult),
    "recall": Method(RecallParams, RecallResult),
    "memory.list": Method(ListParams, ScenesResult),
    "memory.get": Method(SceneParams, GetResult),
    "memory.chain": Method(SceneParams, ChainResult),
    "memory.add": Method(MemoryAddParams, AddResult),
    "memory.edit": Method(EditParams, AddResult),
    "memory.pin": Method(PinParams, None),
    "memory.forget": Method(ForgetParams, ForgetResult),
    "memory.consolidate": Method(ConsolidateParams, ScenesResult),
    "memory.stats": Method(SessionParams, StatsResult),
    "memory.verify": Method(SessionParams, VerifyResult),
    "memory.compact": Method(SessionParams, None),
    "memory.export": Method(FileParams, ExportResult),
    "memory.import": Method(ImportParams, ImportResult),
    "inspect": Method(InspectParams, InspectResult),
    "shutdown": Method(ShutdownParams, None),
}

NOTIFICATIONS: Mapping[str, type] = {"token": TokenParams, "event": EventParams, "notice": NoticeParams}


def check_params(method: str, params: Mapping[str, Any]) -> Any:
    """The parameters of a request as the method's record.

    Raises:
        SchemaError: with all problems.
    """
    _check_size(method, params)
    return check_record(METHODS[method].params, YamlDocument(dict(params), method))


def _check_size(method: str, params: Mapping[str, Any]) -> None:
    """Refuse what is too much to be checked; counting ends soon after the limit."""
    count = 0
    left: list[tuple[object, int]] = [(params, 1)]
    while left:
        one, depth = left.pop()
        count += 1
        if not isinstance(one, (dict, list)):
            continue
        if depth > MAX_DEPTH:
            raise SchemaError(Problem(method, "", f"nested more than {MAX_DEPTH} deep; send something flatter"))
        if count + len(one) + len(left) > MAX_VALUES:
            raise SchemaError(Problem(method, "", f"more than {MAX_VALUES} values; send less, or name a file"))
        left.extend((value, depth + 1) for value in (one.values() if isinstance(one, dict) else one))
