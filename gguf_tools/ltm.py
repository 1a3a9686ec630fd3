"""The `ltm.*` entries of a bundle, checked for type, presence and version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from gguf_tools import keys
from gguf_tools.errors import BadLtmValue, NewerFormat
from gguf_tools.printable import printable
from gguf_tools.records import GgufInfo

__all__ = ["MAX_TEXT", "ltm_entries"]

# As for the YAML files themselves.
MAX_TEXT = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


def ltm_entries(info: GgufInfo) -> Mapping[str, str]:
    """The `ltm.*` entries by full key, in the order of the file; empty for a plain GGUF.

    Keys that this version doesn't know are kept: they may come from a later minor version.

    Raises:
        NewerFormat: the bundle's format version is newer than the newest known.
        BadLtmValue: an entry isn't a string, is too long, a required one is missing, a hash or number isn't one.
    """
    found = {key: field for key, field in info.fields.items() if key.startswith(keys.LTM_PREFIX)}
    if not found:
        return MappingProxyType({})
    entries: dict[str, str] = {}
    for key, field in found.items():
        shown = printable(key, 80)
        if not isinstance(field.value, str):
            raise BadLtmValue(info.path, f"'{shown}' is a {field.type.name}, it must be a STRING", offset=field.offset)
        # Eight bytes of the field are the length.
        if field.nbytes - 8 > MAX_TEXT:
            raise BadLtmValue(info.path, f"'{shown}' has {field.nbytes - 8} bytes, {MAX_TEXT} allowed")
        entries[key] = field.value
    _check_version(info, entries)
    for key in keys.LTM_REQUIRED:
        if not entries.get(key):
            raise BadLtmValue(info.path, f"has 'ltm.*' entries but no '{key}'")
    for key in (keys.LTM_BASE_SHA256, keys.LTM_LORA_SHA256, keys.LTM_SIDECAR_SHA256):
        if key in entries and not _SHA256.fullmatch(entries[key]):
            raise BadLtmValue(info.path, f"'{key}' is '{printable(entries[key], 70)}', not 64 hexadecimal digits")
    for key in entries:
        if key.startswith(keys.LTM_SCENE_TEMPLATE_PREFIX) and not keys.is_known_ltm_key(key):
            raise BadLtmValue(info.path, f"'{printable(key, 80)}': scene template names are kebab-case ASCII")
    return MappingProxyType(entries)


def _check_version(info: GgufInfo, entries: Mapping[str, str]) -> None:
    value = entries.get(keys.LTM_FORMAT)
    if value is None:
        raise BadLtmValue(info.path, f"has 'ltm.*' entries but no '{keys.LTM_FORMAT}'")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
        raise BadLtmValue(info.path, f"'{keys.LTM_FORMAT}' is '{printable(value, 40)}', not a whole number")
    if int(value) > keys.LTM_FORMAT_VERSION:
        raise NewerFormat(
            info.path, f"has bundle format version {value}, versions up to {keys.LTM_FORMAT_VERSION} are known"
        )
