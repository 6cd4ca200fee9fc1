"""Find where edits stand in a quoted-printable part, and prove that what is sent decodes to what was meant.

Nothing is taken on trust: a place is one before which there stands what encodes all that comes before, and the lines
that are written anew are decoded again. The first is seen to once for all recipients, the second for each of them.
"""

from binascii import a2b_qp
from collections.abc import Sequence
from typing import Final

from injector.encodings import Edit, place_qp

# A quoted value begins with these octets at the least; few soft breaks stand among so few.
_HEAD: Final = 4
_QUOTES: Final = b"\"'"
# An escape makes three octets of one, and soft breaks come on top. What is further away is counted, not looked for.
_MOST: Final = 4
_NEAR: Final = 16


class MisplacedError(Exception):
    """What stands at a place that was found is something else; the mail is sent without tracking."""


def places_of(raw: bytes, body: bytes, spans: Sequence[tuple[int, int, *tuple[object, ...]]]) -> list[int]:
    """Return what `place_qp` returns for *spans* of *body*, which *raw* encodes, having decoded all up to the last.

    To look for a quotation mark is cheaper than to count escapes; that it is the one that was meant is seen then.
    """
    places: list[int] = []
    find = raw.find
    pos = reached = 0
    for span in spans:
        start, end = span[:2]
        gap, length = start - reached, end - start
        place = after = -1
        if length > _HEAD and body[start] in _QUOTES:
            # No octet takes less room when it is encoded.
            place = find(body[start : start + _HEAD], pos + gap, pos + _MOST * (gap + _NEAR))
            after = find(body[start : start + 1], place + length - 1, place + _MOST * length) + 1
        if (
            place < 0
            or after <= place
            or a2b_qp(raw[place:after]) != body[start:end]
            or a2b_qp(raw[pos:place]) != body[reached:start]
        ):
            place, after = place_qp(raw, [(start, end)], pos=pos, reached=reached)
            if a2b_qp(raw[pos:place]) != body[reached:start] or a2b_qp(raw[place:after]) != body[start:end]:
                raise MisplacedError
        places += (place, after)
        pos, reached = after, end
    return places


def decodes_to(
    raw: bytes, body: bytes, edits: Sequence[Edit], places: Sequence[Edit], splices: Sequence[Edit], base: int = 0
) -> bool:
    """Tell whether *raw*, which encodes *body*, will encode *body* with *edits* once it is changed by *splices*.

    *places* are those of the edits in *raw*, which stands at *base* of what is spliced. Each splice has to be of whole
    lines: then all that is beside it goes on to mean what it meant, and is not decoded again.
    """
    at, count, size = 0, len(edits), len(raw)
    for start, end, text in splices:
        begin, finish = start - base, end - base
        if not 0 <= begin <= finish <= size or (begin and not raw.startswith(b"\r\n", begin - 2)):
            return False
        if finish < size and not raw.startswith(b"\r\n", finish):
            return False
        line_end = raw[finish : finish + 2]
        old = a2b_qp(raw[begin:finish] + line_end)
        meant: list[bytes] = []
        if at < count and places[at][0] <= finish:
            pos = edits[at][0] - len(a2b_qp(raw[begin : places[at][0]]))
            behind = pos + len(old)
            if pos < 0 or not body.startswith(old, pos):
                return False
            while at < count and places[at][0] <= finish:
                offset, reach, new = edits[at]
                if not pos <= offset <= reach <= behind:
                    return False
                meant += (body[pos:offset], new)
                pos = reach
                at += 1
            old = body[pos:behind]
        meant.append(old)
        if a2b_qp(text + line_end) != b"".join(meant):
            return False
    return at == count
