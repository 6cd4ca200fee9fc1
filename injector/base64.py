"""Undo base64, and carry edits of what it encodes back into it, changing as few of its lines as the encoding allows.

A character stands for six bits of the whole body. So what is untouched can only stay where as many octets stand before
it as before, up to a multiple of three.
"""

import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from pybase64 import b64decode, b64encode

from injector.encodings import MAX_LINE, Edit

LINE: Final = 76

#: No page has so many; to remember where each stands would take a gigabyte for the largest of mails.
MOST_LINES: Final = 100_000

_WHITE: Final = b" \t\r\n"
# So many lines are cut out of a text at once.
_CUT_AT_ONCE: Final = 128
_CUTTERS_KEPT: Final = 256


def encode(body: bytes) -> bytes:
    """Return *body* in base64, in lines of 76."""
    return _wrapped(b64encode(body), LINE)


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


def read(raw: bytes) -> tuple[bytes, Lines | None] | None:
    """Return what *raw* encodes, white space ignored, and its lines where they are regular.

    None for anything a decoder would have to repair.
    """
    lines = _regular_lines(raw)
    text = raw.replace(b"\r", b"").replace(b"\n", b"") if lines is None else _joined(raw, lines)
    with suppress(binascii.Error):
        return b64decode(text, validate=True), lines
    # Other white space is rare, and costs more to look for.
    with suppress(binascii.Error):
        return b64decode(text.translate(None, _WHITE), validate=True), None
    return None


def decode(raw: bytes) -> bytes | None:
    """Return what *raw* encodes, white space ignored; None for anything a decoder would have to repair."""
    found = read(raw)
    return found[0] if found else None


def _joined(raw: bytes, lines: Lines) -> bytearray:
    """Return regular *lines* without their ends, several times as fast as by a search for them."""
    width = lines.ends[0]
    text = bytearray(raw)
    del text[lines.end :]
    del text[width :: width + 2]
    # Of each line end one octet is left.
    del text[width :: width + 1]
    return text


def _regular_lines(raw: bytes) -> Lines | None:
    """Return the lines of *raw* if all but the last are as long as the first, and that may be sent.

    Only the places of their ends are looked at: whether characters alone stand in them is for the decoder to say.
    """
    end = len(raw.rstrip(b"\r\n"))
    tail = raw[end:]
    width = raw.find(b"\r\n", 0, end)
    width = end if width < 0 else width
    step = width + 2
    breaks = (end - 1) // step
    if not 0 < width <= MAX_LINE or end - breaks * step > width or tail != b"\r\n" * (len(tail) // 2):
        return None
    if raw[width:end:step] != b"\r" * breaks or raw[width + 1 : end : step] != b"\n" * breaks:
        return None
    starts = range(0, end - 2 * breaks, width)
    begins = range(0, end, step)
    return Lines(starts, begins, range(width, end + width, step), end, _width(width, len(starts)))


def lines_of(raw: bytes) -> Lines | None:
    """Return the lines of the base64 body *raw*, regular or not; None: there are too many to look at each."""
    if raw.count(b"\r\n") > MOST_LINES:
        return None
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


def carry(body: bytes, edits: Sequence[Edit], lines: Lines) -> list[Edit]:
    """Return the splices of the encoded body that carry *edits* of *body*, which it encodes in *lines*.

    Written anew are the lines with an edit, and those behind it until the edits together add or take a multiple of
    three octets: only then does each character of the rest stand for the same bits as before.
    """
    starts = lines.starts
    count, total = len(edits), len(starts)
    splices: list[Edit] = []
    at = 0
    while at < count:
        # The first character that holds a bit of an octet at `n` is 4n/3, rounded down; of what ends there none holds a
        # bit from 4n/3 on, rounded up.
        first = bisect_right(starts, 4 * edits[at][0] // 3) - 1
        begin = starts[first]
        pos = begin // 4 * 3
        pieces: list[bytes] = []
        shift = 0
        after = total
        while at < count and (after == total or 4 * edits[at][0] // 3 < starts[after]):
            start, end, new = edits[at]
            pieces += (body[pos:start], new)
            shift += len(new) - (end - start)
            pos = end
            at += 1
            # Where nothing is taken away, the line is touched all the same.
            after = total if shift % 3 else bisect_left(starts, max(4 * start // 3 + 1, -(-4 * end // 3)))
        chars: int | None = None
        if after < total:
            chars = begin % 4 + starts[after] - begin + shift // 3 * 4
            pieces.append(body[pos : -(-starts[after] // 4) * 3])
        else:
            pieces.append(body[pos:])
        text = b64encode(b"".join(pieces))[begin % 4 : chars]
        start, end = _whole_lines(lines, first, after, empty=not text)
        splices.append((start, end, _wrapped(text, lines.width)))
    return splices


def _whole_lines(lines: Lines, first: int, after: int, *, empty: bool) -> tuple[int, int]:
    """Return where the lines from *first* on to that *after* them stand."""
    start, end = lines.begins[first], min(lines.ends[after - 1], lines.end)
    if empty:
        # No empty line is left behind: its line end goes with it.
        if after < len(lines.begins):
            end = lines.begins[after]
        elif first:
            start = lines.ends[first - 1]
    return start, end


def _wrapped(text: bytes, width: int) -> bytes:
    lines: list[bytes] = []
    pos, count = 0, len(text) // width
    while count:
        some = min(count, _CUT_AT_ONCE)
        lines += _cutter(width, some)(text, pos)
        pos += some * width
        count -= some
    if pos < len(text):
        lines.append(text[pos:])
    return b"\r\n".join(lines)


@lru_cache(maxsize=_CUTTERS_KEPT)
def _cutter(width: int, count: int) -> Callable[[bytes, int], tuple[bytes, ...]]:
    """Return what cuts *count* lines of *width* octets out of a text: twice as fast as slices."""
    return Struct(f"{width}s" * count).unpack_from
