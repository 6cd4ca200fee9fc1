"""Undo and redo quoted-printable, changing only the encoded lines that carry an edit; and what edits are.

What is produced is legal whatever came in: no line over 998 octets, no octet over 127 under an encoding that has none.
"""

import binascii
import re
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

MAX_LINE: Final = 998
QP_LINE: Final = 76

_QP_UNSAFE = re.compile(rb"[^\t\x20-\x3c\x3e-\x7e]")
_QP_PRINTABLE: Final = bytes(range(0x20, 0x7F)) + b"\t"
# What is left if there is room for it, or as much as fits beside a soft line break without cutting an escape.
_PIECE: Final = rb"(?s).{1,%d}+\Z|.{%d}(?:.(?==)|(?==)|..)"
_PIECES = re.compile(_PIECE % (QP_LINE, QP_LINE - 3))
_SOFT_PIECES = re.compile(_PIECE % (QP_LINE - 1, QP_LINE - 3))
_EQUALS: Final = ord("=")
_CR: Final = ord("\r")
# So few octets are walked from one `=` to the next.
_WALK: Final = 16


class Splice(NamedTuple):
    """Replace `[start:end)` by `new`."""

    start: int
    end: int
    new: bytes


#: By what splices are sorted; those of one place stay in their order.
BY_PLACE: Final = itemgetter(0, 1)

#: A splice where many are made: a plain tuple costs a tenth of a named one.
Edit = tuple[int, int, bytes]


def splice(content: bytes, splices: Iterable[Edit]) -> bytes:
    """Return *content* with *splices*, which are sorted and do not overlap."""
    # Views: of a message of 25 MB one copy is made, not two.
    view = memoryview(content)
    pieces: list[bytes | memoryview] = []
    pos = 0
    for start, end, new in splices:
        pieces += (view[pos:start], new)
        pos = end
    pieces.append(view[pos:])
    return b"".join(pieces)


def undo(result: bytes, content: bytes, splices: Iterable[Edit]) -> bytes:
    """Return *result* with every replacement taken out again and what it replaced put back from *content*."""
    pieces: list[bytes] = []
    pos = shift = 0
    for start, end, new in splices:
        pieces += (result[pos : start + shift], content[start:end])
        pos = start + shift + len(new)
        shift += len(new) - (end - start)
    pieces.append(result[pos:])
    return b"".join(pieces)


def differs_only_there(result: bytes, content: bytes, splices: Iterable[Edit]) -> bool:
    """Tell whether *result* is *content* with *splices*, which are sorted and do not overlap; False if they do.

    Every octet of both is looked at: what is beside the splices is the same, and what is in them is new.
    """
    view = memoryview(content)
    holds = result.startswith
    pos = at = 0
    for start, end, new in splices:
        if not pos <= start <= end or not holds(view[pos:start], at):
            return False
        at += start - pos
        if not holds(new, at):
            return False
        at += len(new)
        pos = end
    return pos <= len(content) and len(result) - at == len(content) - pos and result.endswith(view[pos:])


def has_long_line(body: bytes) -> bool:
    """Tell whether a line of *body* is over 998 octets (RFC 5321 4.5.3.1.6), its line end not counted."""
    pos = 0
    while len(body) - pos > MAX_LINE:
        line_end = body.rfind(b"\r\n", pos, pos + MAX_LINE + 2)
        if line_end < 0:
            return True
        pos = line_end + 2
    return False


def decode_qp(raw: bytes) -> bytes | None:
    """Return what *raw*, whose lines end in CRLF, encodes; None where `=` is neither an octet nor a soft line break."""
    body = binascii.a2b_qp(raw)
    # What the decoder had to repair makes its result longer than the count of `=` says. A regular expression that
    # looks at each of them would take four times as long as the decoder.
    open_end = raw.endswith(b"=")
    expected = len(raw) - 2 * (raw.count(b"=") - open_end) - raw.count(b"=\r\n") - open_end
    return body if len(body) == expected else None


def locate_qp(raw: bytes, offsets: Iterable[int], *, pos: int = 0, reached: int = 0) -> list[int]:
    """Return for each decoded offset, in rising order, the first place in the encoded *raw* behind what it follows.

    What stands before *pos* encodes *reached* octets.

    No table is built. Between two places every encoded octet gives at most one decoded octet, so a step by what is
    still missing never goes too far; counting runs at memory speed, and the last octets are walked.
    """
    places: list[int] = []
    count, find = raw.count, raw.find
    for offset in offsets:
        missing = offset - reached
        while missing > _WALK:
            step = pos + missing
            # Never stop inside `=3D` or a soft break: both are three octets long.
            if raw[step - 1] == _EQUALS:
                step += 2
            elif raw[step - 2] == _EQUALS:
                step += 1
            missing -= step - pos - 2 * count(b"=", pos, step) - count(b"=\r\n", pos, step)
            pos = step
        while missing:
            escape = find(b"=", pos, pos + missing)
            if escape < 0:
                pos += missing
                break
            missing -= escape - pos + (raw[escape + 1] != _CR)
            pos = escape + 3
        reached = offset
        places.append(pos)
    return places


def place_qp(
    raw: bytes, spans: Sequence[tuple[int, int, *tuple[object, ...]]], *, pos: int = 0, reached: int = 0
) -> list[int]:
    """Return for each decoded span, in rising order, start and end in the encoded *raw*, in as few lines as can be.

    What stands before *pos* encodes *reached* octets.
    """
    places = locate_qp(raw, [offset for span in spans for offset in span[:2]], pos=pos, reached=reached)
    for at in range(0, len(places), 2):
        # What stands behind a soft break begins in the next line.
        while places[at] < places[at + 1] and raw.startswith(b"=\r\n", places[at]):
            places[at] += 3
    return places


def qp_text(octets: bytes) -> bytes:
    """Return *octets* as quoted-printable without line breaks."""
    if not octets.translate(None, _QP_PRINTABLE):
        return octets.replace(b"=", b"=3D")
    return _QP_UNSAFE.sub(lambda found: b"=%02X" % found[0][0], octets)


class Line(NamedTuple):
    """Whole lines that edits touch, and what stands in them around the edits: one piece more than there are edits."""

    start: int
    end: int
    kept: tuple[bytes, ...]


def touched_lines(raw: bytes, places: Sequence[tuple[int, int, *tuple[object, ...]]]) -> list[Line]:
    """Return the lines of *raw* that *places* touch: sorted, apart, and edits of one line in one of them."""
    lines: list[Line] = []
    at, count, size = 0, len(places), len(raw)
    while at < count:
        place, after = places[at][:2]
        line_end = raw.rfind(b"\r\n", 0, place)
        start = line_end + 2 if line_end >= 0 else 0
        kept = [raw[start:place]]
        end = raw.find(b"\r\n", after)
        end = size if end < 0 else end
        at += 1
        while at < count and places[at][0] <= end:
            kept.append(raw[after : places[at][0]])
            after = places[at][1]
            if after > end:
                end = raw.find(b"\r\n", after)
                end = size if end < 0 else end
            at += 1
        kept.append(raw[after:end])
        lines.append(Line(start, end, tuple(kept)))
    return lines


def qp_splices(raw: bytes, edits: Sequence[Edit], base: int = 0) -> list[Splice]:
    """Return the splices that carry *edits* (places in the encoded *raw*, new octets decoded), folded legally.

    Only the lines that an edit touches are folded anew; the rest of *raw* stays as it is. *raw* stands at *base*.
    """
    splices: list[Splice] = []
    at = 0
    for start, end, kept in touched_lines(raw, edits):
        pieces = [kept[0]]
        for tail in kept[1:]:
            pieces += (qp_text(edits[at][2]), tail)
            at += 1
        splices.append(Splice(base + start, base + end, fold(b"".join(pieces), white_end=not kept[-1])))
    return splices


def long_qp_lines(raw: bytes) -> list[Splice]:
    """Return the splices that fold the lines over 998 octets of a quoted-printable body."""
    splices: list[Splice] = []
    if has_long_line(raw):
        pos = 0
        for line in raw.split(b"\r\n"):
            if len(line) > MAX_LINE:
                splices.append(Splice(pos, pos + len(line), fold(line)))
            pos += len(line) + 2
    return splices


def encode_qp(body: bytes) -> bytes:
    """Return *body*, whose lines end in CRLF, in quoted-printable."""
    return b"\r\n".join([fold(qp_text(line), white_end=True) for line in body.split(b"\r\n")])


def fold(line: bytes, *, white_end: bool = False) -> bytes:
    """Return the encoded *line*, which may end in the `=` of a soft break, in lines of 76 octets at most.

    White space that we put at its end, which *white_end* says, would be dropped on the way (RFC 2045 6.7 rule 3); what
    stood there already is left as it was.
    """
    soft = line[-1:] == b"="
    text = line[:-1] if soft else line
    if white_end and not soft and text.endswith((b" ", b"\t")):
        text = text[:-1] + b"=%02X" % text[-1]
    text = b"=\r\n".join((_SOFT_PIECES if soft else _PIECES).findall(text))
    return text + b"=" if soft else text
