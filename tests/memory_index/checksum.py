"""XXH64 by its specification (Collet, xxHash 0.1.1), to forge index files whose checksums are right."""

from __future__ import annotations

import struct

_P = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_ALL = (1 << 64) - 1


def _rotl(x: int, by: int) -> int:
    return ((x << by) | (x >> (64 - by))) & _ALL


def _round(lane: int, word: int) -> int:
    return _rotl((lane + word * _P[1]) & _ALL, 31) * _P[0] & _ALL


def xxh64(data: bytes) -> int:
    """With seed 0."""
    whole = len(data) // 32 * 32
    if whole:
        lanes = [(_P[0] + _P[1]) & _ALL, _P[1], 0, -_P[0] & _ALL]
        words = struct.unpack(f"<{whole // 8}Q", data[:whole])
        for i in range(0, len(words), 4):
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], words[i + lane])
        value = sum(map(_rotl, lanes, (1, 7, 12, 18))) & _ALL
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _P[0] + _P[3]) & _ALL
    else:
        value = _P[4]
    value = (value + len(data)) & _ALL
    rest = data[whole:]
    while len(rest) >= 8:
        value = (_rotl(value ^ _round(0, int.from_bytes(rest[:8], "little")), 27) * _P[0] + _P[3]) & _ALL
        rest = rest[8:]
    if len(rest) >= 4:
        value = (_rotl(value ^ int.from_bytes(rest[:4], "little") * _P[0] & _ALL, 23) * _P[1] + _P[2]) & _ALL
        rest = rest[4:]
    for byte in rest:
        value = _rotl(value ^ byte * _P[4] & _ALL, 11) * _P[0] & _ALL
    value = (value ^ value >> 33) * _P[1] & _ALL
    value = (value ^ value >> 29) * _P[2] & _ALL
    return value ^ value >> 32
