"""Undo and redo the transfer encodings of a part, changing only the encoded lines that carry an edit.

What is produced is legal whatever came in: no line over 998 octets, no octet over 127 under an encoding that has none.
"""

import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MAX_LINE: Final = 998
QP_LINE: Final = 76
BASE64_LINE: Final = 76

_QP_UNSAFE = re.compile(rb"[^\t\x20-\x3c\x3e-\x7e]")
_QP_PRINTABLE: Final = bytes(range(0x20, 0x7F)) + b"\t"
_QP_SOFT_BREAKS = re.compile(rb"(?:=\r\n)++")
_EQUALS: Final = ord("=")
_WHITE: Final = b" \t\r\n"


class Splice(NamedTuple):
    """Replace `[start:end)` by `new`."""

    start: int
    end: int
    new: bytes


def splice(content: bytes, splices: Iterable[Splice]) -> bytes:
    """Return *content* with *splices*, which are sorted and do not overlap."""
    pieces: list[bytes] = []
    pos = 0
    for start, end, new in splices:
        pieces += (content[pos:start], new)
        pos = end
    pieces.append(content[pos:])
    return b"".join(pieces)


def undo(result: bytes, content: bytes, splices: Iterable[Splice]) -> bytes:
    """Return *result* with every replacement taken out again and what it replaced put back from *content*."""
    pieces: list[bytes] = []
    pos = shift = 0
    for start, end, new in splices:
        pieces += (result[pos : start + shift], content[start:end])
        pos = start + shift + len(new)
        shift += len(new) - (end - start)
    pieces.append(result[pos:])
    return b"".join(pieces)


def has_long_line(body: bytes) -> bool:
    """Tell whether a line of *body* is over 998 octets (RFC 5321 4.5.3.1.6), its line end not counted."""
    pos = 0
    while len(body) - pos > MAX_LINE:
        line_end = body.rfind(b"\r\n", pos, pos + MAX_LINE + 2)
        if line_end < 0:
            return True
        pos = line_end + 2
    return False


def decode_base64(raw: bytes) -> bytes | None:
    """Return what *raw* encodes, white space ignored; None for anything a decoder would have to repair."""
    try:
        return binascii.a2b_base64(raw.translate(None, _WHITE), strict_mode=True)
    except binascii.Error:
        return None


def encode_base64(body: bytes, like: bytes) -> bytes:
    """Return *body* in base64 with the line length and the white space at both ends of *like*."""
    text = like.strip(_WHITE)
    before = like[: like.find(text[:1])] if text else b""
    after = like[len(before) + len(text) :]
    width = text.find(b"\n")
    width = len(text[:width].rstrip(_WHITE)) if width >= 0 else max(len(text), BASE64_LINE)
    # Whole groups of four, so that each line can be encoded alone; a line too long to send becomes an ordinary one.
    width = BASE64_LINE if width > MAX_LINE or width < 4 else width - width % 4
    encoded = binascii.b2a_base64(body, newline=False)
    lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
    return before + b"\r\n".join(lines) + after


def decode_qp(raw: bytes) -> bytes | None:
    """Return what *raw*, whose lines end in CRLF, encodes; None where `=` is neither an octet nor a soft line break."""
    body = binascii.a2b_qp(raw)
    # What the decoder had to repair makes its result longer than the count of `=` says. A regular expression that
    # looks at each of them would take four times as long as the decoder.
    open_end = raw.endswith(b"=")
    expected = len(raw) - 2 * (raw.count(b"=") - open_end) - raw.count(b"=\r\n") - open_end
    return body if len(body) == expected else None


def locate_qp(raw: bytes, offsets: Sequence[int]) -> list[int]:
    """Return for each decoded offset, in rising order, its place in the encoded *raw*.

    Between two places every encoded octet gives at most one decoded octet, so a step by what is still missing never
    goes too far; counting runs at memory speed, and no table of lines is built.
    """
    places: list[int] = []
    pos = reached = 0
    for offset in offsets:
        while reached < offset:
            step = pos + offset - reached
            # Never stop inside `=3D` or a soft break: both are three octets long.
            if raw[step - 1] == _EQUALS:
                step += 2
            elif raw[step - 2] == _EQUALS and step - 2 >= pos:
                step += 1
            soft = raw.count(b"=\r\n", pos, step)
            gained = step - pos - 2 * raw.count(b"=", pos, step) - soft
            if not gained and (breaks := _QP_SOFT_BREAKS.match(raw, pos)):
                step = max(step, breaks.end())
            reached += gained
            pos = step
        places.append(pos)
    return places


def qp_text(octets: bytes) -> bytes:
    """Return *octets* as quoted-printable without line breaks."""
    if not octets.translate(None, _QP_PRINTABLE):
        return octets.replace(b"=", b"=3D")
    return _QP_UNSAFE.sub(lambda found: b"=%02X" % found[0][0], octets)


def qp_splices(raw: bytes, edits: Sequence[Splice]) -> list[Splice]:
    """Return the splices that carry *edits* (places in the encoded *raw*, new octets decoded), folded legally.

    Only the lines that an edit touches are folded anew; the rest of *raw* stays as it is.
    """
    splices: list[Splice] = []
    at = 0
    while at < len(edits):
        first = edits[at]
        line_end = raw.rfind(b"\r\n", 0, first.start)
        start = line_end + 2 if line_end >= 0 else 0
        pieces = [raw[start : first.start]]
        end = -1
        while True:
            edit = edits[at]
            at += 1
            pieces.append(qp_text(edit.new))
            if edit.end > end:
                end = raw.find(b"\r\n", edit.end)
                end = len(raw) if end < 0 else end
            if at == len(edits) or edits[at].start > end:
                break
            pieces.append(raw[edit.end : edits[at].start])
        tail = raw[edit.end : end]
        pieces.append(tail)
        splices.append(Splice(start, end, _fold(b"".join(pieces), white_end=not tail)))
    return splices


def long_qp_lines(raw: bytes) -> list[Splice]:
    """Return the splices that fold the lines over 998 octets of a quoted-printable body."""
    splices: list[Splice] = []
    if has_long_line(raw):
        pos = 0
        for line in raw.split(b"\r\n"):
            if len(line) > MAX_LINE:
                splices.append(Splice(pos, pos + len(line), _fold(line)))
            pos += len(line) + 2
    return splices


def encode_qp(body: bytes) -> bytes:
    """Return *body*, whose lines end in CRLF, in quoted-printable."""
    return b"\r\n".join([_fold(qp_text(line), white_end=True) for line in body.split(b"\r\n")])


def _fold(line: bytes, *, white_end: bool = False) -> bytes:
    # `line` is encoded and may end in the `=` of a soft break. White space we put at the end of a line would be
    # dropped on the way (RFC 2045 6.7 rule 3); white space that stood there already is left as it was.
    soft = line.endswith(b"=")
    text = line[:-1] if soft else line
    if white_end and not soft and text.endswith((b" ", b"\t")):
        text = text[:-1] + b"=%02X" % text[-1]
    room = QP_LINE - soft
    if len(text) > room:
        pieces: list[bytes] = []
        pos = 0
        while len(text) - pos > room:
            cut = pos + QP_LINE - 1
            if text[cut - 1] == _EQUALS:
                cut -= 1
            elif text[cut - 2] == _EQUALS:
                cut -= 2
            pieces.append(text[pos:cut])
            pos = cut
        pieces.append(text[pos:])
        text = b"=\r\n".join(pieces)
    return text + b"=" if soft else text
