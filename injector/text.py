"""Find the web addresses in a text/plain body, by offset, without the punctuation of the sentence around them.

Linear. Whatever follows an address will follow the new one, and a reader's program will take it for a part of that as
it did before; so an address is taken as far as such programs take it, or it is left out.
"""

import re
import unicodedata
from typing import Final

# An address runs up to a space, a control, an angle bracket, a quotation mark, or Markdown's `](`. Other schemes and
# bare hosts match too, so that an address in their query is not taken for one of its own; the look-behinds keep
# `xhttps://` and `user@https://` out. The count bounds the matcher's memory, far above the longest URL that is tracked.
_ADDRESS: Final = re.compile(
    rb"(?<![A-Za-z0-9+@])(?<![A-Za-z0-9][._-])"
    rb"(?:(?P<web>https?://)|[A-Za-z][A-Za-z0-9+-]{1,30}://|www\.|(?:mailto|sms|tel|xmpp|cid|data):)"
    rb"(?:[!#-;=?-\\^_a-~\x80-\xff]++|\](?!\()){1,2000}",
    re.IGNORECASE,
)
_NON_ASCII: Final = re.compile(r"[^\x00-\x7f]")
# Beyond ASCII an address may hold letters, marks, digits and symbols (emoji); punctuation and spaces end it.
_LEGIBLE: Final = frozenset("LMNS")
_OPT_OUT: Final = b'[[data-msys-clicktrack="0"]]'
_FINAL: Final = b".,;:!?'"
_EMPHASIS: Final = frozenset((b"*", b"_", b"~"))


def scan(text: bytes, *, charset: str = "utf-8") -> tuple[tuple[int, int], ...]:
    """Return the span of every http(s) URL in *text*, in a charset whose ASCII is ASCII.

    A URL is left out where nobody knows its end: it runs on into octets that are not in *charset*, or a line breaks it
    within angle brackets. So is one that its sender marked `[[data-msys-clicktrack="0"]]`.
    """
    if b"://" not in text:
        return ()
    spans = []
    for match in _ADDRESS.finditer(text):
        start, body = match.span("web")
        if start >= 0:
            end = _end(text, start, body, match.end(), charset)
            if end > body:
                spans.append((start, end))
    return tuple(spans)


def _end(text: bytes, start: int, body: int, limit: int, charset: str) -> int:
    """Return where the URL at *start* ends; *start* itself if it is left out."""
    mark = text.find(_OPT_OUT[:22], body, limit)
    if mark >= 0 and text.startswith(_OPT_OUT, mark):
        return start
    legible = _legible_end(text, body, limit, charset)
    end = start if legible is None else _trimmed(text, start, body, legible)
    if end == limit and text[start - 1 : start] == b"<" and text[end : end + 1] in {b"\r", b"\n"}:
        return start
    return end


def _legible_end(text: bytes, body: int, limit: int, charset: str) -> int | None:
    """Return where the first character stands that no URL holds; None if the octets are not in *charset*."""
    octets = text[body:limit]
    if octets.isascii():
        return limit
    try:
        characters = octets.decode(charset)
        for found in _NON_ASCII.finditer(characters):
            if unicodedata.category(found[0])[0] not in _LEGIBLE:
                return body + len(characters[: found.start()].encode(charset))
    except (LookupError, ValueError):
        return None
    return limit


def _trimmed(text: bytes, start: int, body: int, end: int) -> int:
    """Return *end* before the punctuation that belongs to the sentence: brackets only where none opens in the URL."""
    before = text[start - 1 : start]
    emphasis = before if before in _EMPHASIS else b""
    excess = {
        closing[0]: text.count(closing, body, end) - text.count(opening, body, end)
        for opening, closing in ((b"(", b")"), (b"[", b"]"), (b"{", b"}"))
    }
    while end > body:
        last = text[end - 1]
        if excess.get(last, 0) > 0:
            excess[last] -= 1
        elif last not in _FINAL and text[end - 1 : end] != emphasis:
            break
        end -= 1
    return end
