"""Putting a calibration into an overlay's text, so that all else, comments too, stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.schemas.overlay import Calibration, CriticName, parse_overlay

__all__ = ["with_calibration"]

_ROOT = re.compile(r"ltm_overlay:[ \t]*(?:#.*)?$")
_KEY = re.compile(r"([ ]+)([a-z_]+):")


def with_calibration(
    text: str, calibration: Mapping[CriticName, Mapping[str, Calibration]], where: str, remark: str = ""
) -> str:
    """The overlay's text with its `calibration:` replaced, or added at its end.

    Args:
        text: an `ltm_overlay_config.yaml`.
        calibration: by critic and language.
        where: the file's name, for messages.
        remark: what stands beside the key as a comment, one line.

    Raises:
        SchemaError: the text is no overlay.
        InputError: it is written in a way that it can't be put into.
    """
    before = parse_overlay(text, where)
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    root = next((i for i, line in enumerate(lines) if _ROOT.match(line)), None)
    keys = [(i, found) for i, line in enumerate(lines) if root is not None and i > root and (found := _KEY.match(line))]
    if not keys:
        raise InputError(f"{where}: ltm_overlay isn't written one key a line; put the calibration in by hand")
    indent = min((found[1] for _, found in keys), key=len)
    block = _block(calibration, indent, remark)
    start = next((i for i, found in keys if found[1] == indent and found[2] == "calibration"), None)
    if start is None:
        lines += ["", *block]
    else:
        end = start + 1
        while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > len(indent)):
            end += 1
        while not lines[end - 1].strip():  # blank lines belong to what follows
            end -= 1
        lines[start:end] = block
    written = "\n".join(lines) + "\n"
    try:
        after = parse_overlay(written, where)
    except SchemaError as error:
        raise InputError(f"{where}: the calibration can't be put in: {error}; put it in by hand") from error
    if after != replace(before, calibration={name: dict(of) for name, of in calibration.items()}):
        raise InputError(f"{where}: the calibration can't be put in without a change to something else; do it by hand")
    return written


def _block(calibration: Mapping[CriticName, Mapping[str, Calibration]], indent: str, remark: str) -> list[str]:
    head = f"{indent}calibration:"
    lines = [f"{head:<28}# {remark}" if remark else head]
    for name, languages in calibration.items():
        lines.append(f"{indent}  {name}:")
        lines += [
            f"{indent}    {lang}: {{shift: {_number(one.shift)}, slope: {_number(one.slope)}, "
            f"weight: {_number(one.weight)}}}"
            for lang, one in languages.items()
        ]
    return lines


def _number(value: float) -> str:
    return repr(float(value))
