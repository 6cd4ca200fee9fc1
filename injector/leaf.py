"""Decode a leaf, and carry the edits of its decoded body back through its transfer encoding.

The edits are octet ranges of the decoded body. What was written anew is decoded again and its edits undone: anything
but the decoded body that came in is an error, and then the whole mail leaves without tracking.
"""

from binascii import a2b_qp
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from injector import base64
from injector.charsets import charset_of, exact_codec
from injector.encodings import (
    Edit,
    Splice,
    decode_qp,
    differs_only_there,
    encode_qp,
    has_long_line,
    long_qp_lines,
    qp_splices,
    splice,
)
from injector.fields import Field
from injector.marks import CONSTANT, PIXEL, Found, Mark, Values, pixel_of, with_pixel_at
from injector.message import IDENTITY, Part
from injector.piece import Piece, edits_of, with_pixel
from injector.quoted import decodes_to, places_of
from injector.skip import Reason

# In these an octet 13 or 10 is half a letter: they cannot travel as lines.
NO_LINES: Final = ("utf-16", "utf-32")


class RewriteError(Exception):
    """An edited part does not decode to what was meant; the mail is sent without tracking instead."""


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A part that the reader sees, decoded, and what is to change in it."""

    part: Part
    raw: bytes
    #: The body with its transfer encoding undone; None when it is not looked into.
    body: bytes | None = None
    #: The codec through which the body is edited; None: as octets.
    codec: str | None = None
    reason: Reason | None = None
    marks: tuple[Mark, ...] = ()
    #: The marks in the encoded body, flat: start, end, start, end … Quoted-printable only.
    places: tuple[int, ...] = ()
    #: Base64 only; before its marks are placed, only where they are regular. None: all of it is written anew.
    lines: base64.Lines | None = None
    #: What it consists of where it was recognised piece by piece, and not looked into: `body` if that is base64, else
    #: `raw`; and, for each piece, the numbers of its destinations.
    pieces: tuple[Piece, ...] = ()
    numbers: tuple[tuple[int, ...], ...] = ()
    found: tuple[Found, ...] = ()
    #: Where the pixel goes: in the decoded body, or in what is in pieces; -1: nowhere.
    pixel_at: int = -1
    #: A line is over 998 octets, so the part must be folded whatever else happens to it.
    long: bool = False
    #: It stands in no transfer encoding, and may leave in one.
    bare: bool = False

    def links(self) -> list[int]:
        """Return the number of each link in it that is to be wrapped, in order."""
        if not self.pieces:
            return [link for _, _, link, _ in self.marks if link >= 0]
        pairs = zip(self.pieces, self.numbers, strict=False)
        return [numbers[link] for piece, numbers in pairs for link in piece.links]

    @property
    def by_lines(self) -> bool:
        """Whether its lines are known as they are sent."""
        return bool(self.pieces) and self.body is None


def open_leaf(content: bytes, part: Part, reason: Reason | None) -> Leaf:
    """Return *part* decoded; *reason* is why its links are not wrapped, if they are not."""
    if reason not in {None, Reason.TEXT_LINKS_OFF}:
        # Nobody looks into it: an attachment is not held a second time.
        return Leaf(part=part, raw=b"", reason=reason)
    raw = content[part.body_start : part.body_end]
    body: bytes | None
    lines: base64.Lines | None = None
    match part.encoding:
        case "base64":
            body, lines = base64.read(raw) or (None, None)
        case "quoted-printable":
            body = decode_qp(raw)
        case encoding if encoding in IDENTITY:
            body = raw
        case _:
            return Leaf(part=part, raw=raw, reason=reason or Reason.UNKNOWN_ENCODING)
    if body is None:
        return Leaf(part=part, raw=raw, reason=reason or Reason.UNDECODABLE)
    charset = charset_of(part.parameters.get("charset"))
    if charset is None:
        reason = reason or Reason.UNKNOWN_CHARSET
    elif reason is None and not body.strip():
        reason = Reason.EMPTY
    elif reason is None and exact_codec(charset, body) is None:
        reason = Reason.UNDECODABLE
    bare = part.encoding in IDENTITY
    may_fold = charset is not None and not (bare and charset.codec.startswith(NO_LINES))
    long = may_fold and lines is None and has_long_line(raw)
    return Leaf(part=part, raw=raw, body=body, lines=lines, reason=reason, long=long, bare=bare and may_fold)


def seven_bit(leaf: Leaf) -> Leaf:
    """Return *leaf* as it goes where octets over 127 are not taken: it leaves as quoted-printable if it holds some."""
    # What a line too long asks for is just that.
    return msgspec.structs.replace(leaf, long=True) if leaf.bare and not leaf.raw.isascii() else leaf


def place_leaf(leaf: Leaf, *, pixel: bool) -> Leaf:
    """Return *leaf* with the pixel, if it is to carry it, and every mark located in the encoded body."""
    if leaf.pieces:
        return _with_pixel(leaf) if pixel else leaf
    marks = leaf.marks
    if pixel:
        marks = with_pixel_at(marks, leaf.pixel_at)
    places: tuple[int, ...] = ()
    lines = leaf.lines
    if not marks or leaf.body is None:
        return leaf
    if leaf.part.encoding == "quoted-printable":
        places = tuple(places_of(leaf.raw, leaf.body, marks))
    elif leaf.part.encoding == "base64":
        lines = lines or base64.lines_of(leaf.raw)
    return msgspec.structs.replace(leaf, marks=marks, places=places, lines=lines)


def _with_pixel(leaf: Leaf) -> Leaf:
    # It goes near the end.
    pieces = list(leaf.pieces)
    start = len(leaf.raw if leaf.body is None else leaf.body)
    for at in reversed(range(len(pieces))):
        start -= len(pieces[at].raw)
        if start <= leaf.pixel_at:
            pieces[at] = with_pixel(pieces[at], leaf.pixel_at - start)
            break
    return msgspec.structs.replace(leaf, pieces=tuple(pieces))


def render_leaf(leaf: Leaf, values: Values) -> tuple[Sequence[Edit], int]:
    """Return the splices of the content that carry this leaf's edits, and the number of wrapped links."""
    placed: list[Edit] = []
    if leaf.pieces:
        edits, wrapped = edits_of(leaf.pieces, leaf.numbers, values)
    else:
        edits, placed, wrapped = _edits(leaf, values)
    if not edits and not leaf.long:
        return [], 0
    encode = _ENCODERS.get(leaf.part.encoding, _identity)
    splices = encode(leaf, edits, placed)
    if leaf.codec:
        # Letters whose codec has states may be right one by one and not together.
        splice(leaf.body or b"", edits).decode(leaf.codec)
    return splices, wrapped


def _edits(leaf: Leaf, values: Values) -> tuple[list[Edit], list[Edit], int]:
    """Return what *values* make of the marks: in the decoded body, and where that is known in the encoded one."""
    edits: list[Edit] = []
    placed: list[Edit] = []
    places = leaf.places
    wrapped = 0
    pixel = pixel_of(values)
    new_links = values.urls if leaf.part.kind == "text/plain" else values.attributes
    for at, (start, end, link, constant) in enumerate(leaf.marks):
        new = constant if link == CONSTANT else pixel if link == PIXEL else new_links[link]
        if new is None:
            continue
        wrapped += link >= 0
        if leaf.codec and link != CONSTANT:
            new = new.decode("ascii").encode(leaf.codec)
        edits.append((start, end, new))
        if places:
            placed.append((places[2 * at], places[2 * at + 1], new))
    return edits, placed, wrapped


def _identity(leaf: Leaf, edits: list[Edit], _placed: list[Edit]) -> list[Edit]:
    edited = splice(leaf.raw, edits)
    if leaf.long or has_long_line(edited):
        # RFC 5321 4.5.3.1.6: nobody has to take such a line, and a value cannot be broken.
        encoded = encode_qp(edited)
        _check(leaf, a2b_qp(encoded), edits)
        return [_relabel(leaf.part), Splice(leaf.part.body_start, leaf.part.body_end, encoded)]
    _check(leaf, edited, edits)
    return _shifted(leaf, edits)


def _base64(leaf: Leaf, edits: list[Edit], _placed: list[Edit]) -> list[Edit]:
    body = leaf.body or b""
    if leaf.long or leaf.lines is None:
        encoded = base64.encode(splice(body, edits)) + (b"\r\n" if leaf.raw.endswith(b"\r\n") else b"")
        splices = [(0, len(leaf.raw), encoded)]
    else:
        splices = base64.carry(body, edits, leaf.lines)
    _check(leaf, base64.decode(splice(leaf.raw, splices)), edits)
    return _shifted(leaf, splices)


def _quoted_printable(leaf: Leaf, edits: list[Edit], placed: list[Edit]) -> list[Edit]:
    base = leaf.part.body_start
    splices: list[Edit] = [*qp_splices(leaf.raw, placed, base)]
    if leaf.long:
        touched = [edit[:2] for edit in splices]
        folds = _shifted(leaf, long_qp_lines(leaf.raw))
        splices += [fold for fold in folds if not any(start <= fold[0] < end for start, end in touched)]
        splices.sort()
    if leaf.body is None or not decodes_to(leaf.raw, leaf.body, edits, placed, splices, base):
        raise RewriteError
    return splices


_ENCODERS: Final[dict[str, Callable[[Leaf, list[Edit], list[Edit]], list[Edit]]]] = {
    "base64": _base64,
    "quoted-printable": _quoted_printable,
}


def _shifted(leaf: Leaf, splices: Iterable[Edit]) -> list[Edit]:
    base = leaf.part.body_start
    return [(base + start, base + end, new) for start, end, new in splices]


def _check(leaf: Leaf, decoded: bytes | None, edits: list[Edit]) -> None:
    if decoded is None or leaf.body is None or not differs_only_there(decoded, leaf.body, edits):
        raise RewriteError


def _relabel(part: Part) -> Splice:
    field: Field | None = part.encoding_field
    line = b"Content-Transfer-Encoding: quoted-printable\r\n"
    if part.lacks_mime_version:
        # RFC 2045 4: without it the label below means nothing.
        line = b"MIME-Version: 1.0\r\n" + line
    if field is None:
        return Splice(part.header_end, part.header_end, line)
    return Splice(field.start, field.end, line)
