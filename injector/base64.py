"""Undo base64, and carry edits of what it encodes back into it, changing as few of its lines as the encoding allows.

A character stands for six bits of the whole body. So what is untouched can only stay where as many octets stand before
it as before, up to a multiple of three.
"""

import binascii
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from injector.encodings import MAX_LINE, Edit, Splice

LINE: Final = 76

_WHITE: Final = b" \t\r\n"


def decode(raw: bytes) -> bytes | None:
    """Return what *raw* encodes, white space ignored; None for anything a decoder would have to repair."""
    quick = _decoded_regular(raw)
    if quick is not None:
        return quick
    try:
        body = binascii.a2b_base64(raw.translate(None, _WHITE), strict_mode=True)
    except binascii.Error:
        return None
    # Python's decoder lets padding pass that pads nothing.
    return body if raw.count(b"=") == -len(body) % 3 else None


def _decoded_regular(raw: bytes) -> bytes | None:
    """Return what *raw* encodes if it is written in regular lines: what the decoder passed over is known then."""
    try:
        body = binascii.a2b_base64(raw)
    except binascii.Error:
        return None
    padding = b"=" * (-len(body) % 3)
    ends = raw.count(b"=") == len(padding) and raw.rstrip(_WHITE).endswith(padding)
    return body if ends and _regular_lines(raw, len(body)) is not None else None


def reread(raw: bytes) -> bytes | None:
    """Return what *raw*, written here, encodes; None where it is no base64.

    Faster than `decode`: what is no character of base64 would be passed over, and such has no way into *raw*.
    """
    try:
        body = binascii.a2b_base64(raw)
    except binascii.Error:
        return None
    padding = b"=" * (-len(body) % 3)
    quick = raw.count(b"=") == len(padding) and raw.rstrip(_WHITE).endswith(padding)
    return body if quick else decode(raw)


def encode(body: bytes) -> bytes:
    """Return *body* in base64, in lines of 76."""
    return _wrapped(binascii.b2a_base64(body, newline=False), LINE)


class Lines(NamedTuple):
    """Where the lines of a base64 body stand; those that hold nothing but white space are left out."""

    #: For each line, the number of characters before it, white space not counted.
    starts: Sequence[int]
    #: For each line, its place in the body, and that of its end; the last may be shorter than its end says.
    begins: Sequence[int]
    ends: Sequence[int]
    #: Where the last line ends.
    end: int
    #: The length of the lines that are written anew.
    width: int


def lines_of(raw: bytes, size: int) -> Lines:
    """Return the lines of the base64 body *raw*, which decodes to *size* octets."""
    return _regular_lines(raw, size) or _irregular_lines(raw)


def _regular_lines(raw: bytes, size: int) -> Lines | None:
    chars = (size + 2) // 3 * 4
    width = raw.find(b"\r\n")
    width = len(raw) if width < 0 else width
    count = -(-chars // width) if width else 0
    text_end = chars + 2 * (count - 1)
    if count and len(raw.rstrip(b"\r\n")) == text_end and _is_regular(raw, width, text_end, count):
        step = width + 2
        begins = range(0, count * step, step)
        ends = range(width, width + count * step, step)
        return Lines(range(0, chars, width), begins, ends, text_end, _width(width, count))
    return None


def _is_regular(raw: bytes, width: int, end: int, count: int) -> bool:
    # There are as many characters that are none of base64 as the line ends need; so if all line ends are where they
    # belong, no other white space stands anywhere.
    breaks = count - 1
    return raw[width : end : width + 2] == b"\r" * breaks and raw[width + 1 : end : width + 2] == b"\n" * breaks


def _irregular_lines(raw: bytes) -> Lines:
    starts: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    chars = widest = pos = 0
    for line in raw.split(b"\r\n"):
        held = len(line.translate(None, _WHITE))
        if held:
            starts.append(chars)
            begins.append(pos)
            ends.append(pos + len(line))
            chars += held
            widest = max(widest, held)
        pos += len(line) + 2
    if not starts:
        return Lines((0,), (0,), (0,), 0, LINE)
    return Lines(starts, begins, ends, ends[-1], _width(widest, len(starts)))


def _width(widest: int, count: int) -> int:
    # A body of one line says nothing about the length of its lines, unless it is longer than they may be.
    width = max(widest, LINE) if count < 2 else widest
    return LINE if width > MAX_LINE else width


def place(lines: Lines, spans: Sequence[tuple[int, int, *tuple[object, ...]]]) -> list[int]:
    """Return for each span of the decoded body the number of the first line it is in, and of the first that is free."""
    starts, total = lines.starts, len(lines.starts)
    placed: list[int] = []
    for span in spans:
        start, end = span[:2]
        # The first character that holds a bit of the span, and the first behind it that holds none.
        char = start // 3 * 4 + start % 3
        behind = end // 3 * 4 + (0, 2, 3)[end % 3]
        if isinstance(starts, range):
            first = min(char // starts.step, total - 1)
            placed += (first, min(max(-(-behind // starts.step), first + 1), total))
        else:
            first = bisect_right(starts, char) - 1
            placed += (first, bisect_left(starts, behind, first + 1))
    return placed


def carry(body: bytes, edits: Sequence[Edit], places: Sequence[Edit], lines: Lines) -> list[Splice]:
    """Return the splices of the encoded body that carry *edits* of *body*, which it encodes; *places* are their lines.

    Written anew are the lines with an edit, and those behind it until the edits together add or take a multiple of
    three octets: only then does each character of the rest stand for the same bits as before.
    """
    starts = lines.starts
    count, total = len(edits), len(starts)
    splices: list[Splice] = []
    at = 0
    while at < count:
        first = places[at][0]
        begin = starts[first]
        pos = begin // 4 * 3
        pieces: list[bytes] = []
        shift = 0
        while True:
            start, end, new = edits[at]
            pieces += (body[pos:start], new)
            shift += len(new) - (end - start)
            pos = end
            after = total if shift % 3 else places[at][1]
            at += 1
            if at == count or (after < total and places[at][0] >= after):
                break
        chars: int | None = None
        if after < total:
            chars = begin % 4 + starts[after] - begin + shift // 3 * 4
            pieces.append(body[pos : -(-starts[after] // 4) * 3])
        else:
            pieces.append(body[pos:])
        text = binascii.b2a_base64(b"".join(pieces), newline=False)[begin % 4 : chars]
        splices.append(_lines_splice(lines, first, after, text))
    return splices


def carried(body: bytes, edits: Sequence[Edit], splices: Sequence[Edit], lines: Lines) -> bool:
    """Tell whether *splices* of the encoded body, which are sorted, carry *edits*; decoding only the lines they touch.

    False too where that cannot be told from these lines alone. All the rest goes on to mean what it meant if the lines
    are regular and begin with an octet, and what comes in their place does too, and ends with one.
    """
    starts = lines.starts
    if not isinstance(starts, range) or starts.step % 4:
        return False
    step, held = starts.step + 2, starts.step // 4 * 3
    at, count = 0, len(edits)
    for start, end, text in splices:
        last = end == lines.end
        if start % step or not (last or end % step == starts.step):
            return False
        pos = start // step * held
        behind = len(body) if last else (end // step + 1) * held
        pieces: list[bytes] = []
        while at < count and edits[at][1] <= behind and (last or edits[at][0] < behind):
            begin, reach, new = edits[at]
            if begin < pos:
                return False
            pieces += (body[pos:begin], new)
            pos = reach
            at += 1
        pieces.append(body[pos:behind])
        meant = b"".join(pieces)
        if decode(text) != meant or not (last or len(meant) % 3 == 0):
            return False
    return at == count


def _lines_splice(lines: Lines, first: int, after: int, text: bytes) -> Splice:
    start, end = lines.begins[first], min(lines.ends[after - 1], lines.end)
    if not text:
        # No empty line is left behind: its line end goes with it.
        if after < len(lines.begins):
            end = lines.begins[after]
        elif first:
            start = lines.ends[first - 1]
    return Splice(start, end, _wrapped(text, lines.width))


def _wrapped(text: bytes, width: int) -> bytes:
    # Faster than slices; the pattern is compiled once.
    return b"\r\n".join(re.findall(b"(?s).{1,%d}" % width, text))
