"""What people paste, made safe to pass on: nothing of its meaning changed, and every change said aloud."""

from __future__ import annotations

import re
import unicodedata

from ltm_edge.errors import InputError

__all__ = ["MAX_REQUEST_BYTES", "clean_request", "is_blank"]

MAX_REQUEST_BYTES = 1_000_000

_SURROGATES = re.compile("[\ud800-\udfff]")
_PAIRS = re.compile("([\ud800-\udbff])([\udc00-\udfff])")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Embeddings, overrides and isolates make text show in another order than it is read in. The plain marks
# (U+200E, U+200F, U+061C) belong to ordinary right-to-left writing and stay.
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_NONCHARACTERS = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF)) + "]"
)
# A letter with its marks written apart, as file names on macOS are: the same text, but another for a tokenizer.
_DECOMPOSED = re.compile("[^\\W\\d_][\u0300-\u036f]+")


def _joined(match: re.Match[str]) -> str:
    high, low = ord(match[1]), ord(match[2])
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def is_blank(text: str) -> bool:
    """Whether nothing in a text can be seen: blanks, controls, formatting characters such as U+200B."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)


def clean_request(text: str) -> tuple[str, tuple[str, ...]]:
    """A request's text without what can't be passed on, and one notice for each kind of change.

    Removed: a byte order mark, control characters except line feed and tab, noncharacters, characters that reorder
    text. Lone surrogates become U+FFFD, all line breaks ``\\n``, letters with marks apart one letter.

    Raises:
        InputError: over 1 000 000 bytes of UTF-8, or no text.
    """
    if not isinstance(text, str):
        raise InputError(f"expected text, found a {type(text).__name__}")
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_REQUEST_BYTES:
        raise InputError(f"the request has {size} bytes; at most {MAX_REQUEST_BYTES}; shorten it or send it in parts")
    notices: list[str] = []

    def note(count: int, what: str) -> None:
        if count:
            notices.append(f"{count} {what}")

    text = _BREAKS.sub("\n", text.removeprefix("\ufeff"))
    text = _PAIRS.sub(_joined, text)
    text, count = _SURROGATES.subn("\ufffd", text)
    note(count, "broken characters (lone surrogates) replaced by U+FFFD")
    text, count = _CONTROLS.subn("", text)
    note(count, "control characters removed")
    text, count = _NONCHARACTERS.subn("", text)
    note(count, "noncharacters removed")
    text, count = _REORDERING.subn("", text)
    note(count, "characters that reorder text (bidirectional overrides) removed")
    text = _DECOMPOSED.sub(lambda match: unicodedata.normalize("NFC", match[0]), text)
    return text, tuple(notices)
