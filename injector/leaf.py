"""Plan and make the edits of one leaf: decode it, find its links, and carry each edit back through its encoding.

The edits are octet ranges of the decoded body. What is sent is decoded again and its edits undone: anything but the
decoded body that came in is an error, and then the whole mail leaves without tracking.
"""

from binascii import a2b_qp
from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from injector import html, links, text
from injector.charsets import Charset, charset_of, exact_codec
from injector.encodings import (
    Splice,
    decode_base64,
    decode_qp,
    encode_base64,
    encode_qp,
    has_long_line,
    locate_qp,
    long_qp_lines,
    qp_splices,
    splice,
    undo,
)
from injector.fields import Field
from injector.message import Part
from injector.skip import Reason

PIXEL: Final = -1
CONSTANT: Final = -2

_IDENTITY: Final = frozenset({"", "7bit", "8bit", "binary"})
# In these an octet 13 or 10 is half a letter: they cannot travel as lines.
_NO_LINES: Final = ("utf-16", "utf-32")


class RewriteError(Exception):
    """An edited part does not decode to what was meant; the mail is sent without tracking instead."""


class Mark(NamedTuple):
    """One edit of the decoded body: `[start:end)` gives way to a link, the pixel, or `new`."""

    start: int
    end: int
    #: The number of the link, or PIXEL, or CONSTANT.
    link: int
    new: bytes = b""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A link as it was found: its attribute value or text, and what was decided."""

    value: bytes
    element: str
    start: int
    #: The destination, when it is to be tracked.
    url: str | None
    reason: str | None


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
    found: tuple[Found, ...] = ()
    pixel_at: int = -1
    #: A line is over 998 octets, so the part must be folded whatever else happens to it.
    long: bool = False


class Judgement(NamedTuple):
    """How the links of a mail are judged: the settings, and the numbers given to the destinations so far."""

    clicks: bool
    text_links: bool
    skip: tuple[str, ...]
    public_url: str
    numbers: dict[str, int]


def open_leaf(content: bytes, part: Part, reason: Reason | None) -> Leaf:
    """Return *part* decoded; *reason* is why its links are not wrapped, if they are not."""
    raw = content[part.body_start : part.body_end]
    if reason not in {None, Reason.TEXT_LINKS_OFF}:
        return Leaf(part=part, raw=raw, reason=reason)
    body = _decoded(part.encoding, raw)
    if isinstance(body, Reason):
        return Leaf(part=part, raw=raw, reason=reason or body)
    charset = charset_of(part.parameters.get("charset"))
    if charset is None:
        reason = reason or Reason.UNKNOWN_CHARSET
    elif reason is None and not body.strip():
        reason = Reason.EMPTY
    may_fold = charset and not (part.encoding in _IDENTITY and charset.codec.startswith(_NO_LINES))
    return Leaf(part=part, raw=raw, body=body, reason=reason, long=bool(may_fold) and has_long_line(raw))


def _decoded(encoding: str, raw: bytes) -> bytes | Reason:
    match encoding:
        case "base64":
            body = decode_base64(raw)
        case "quoted-printable":
            body = decode_qp(raw)
        case _ if encoding in _IDENTITY:
            return raw
        case _:
            return Reason.UNKNOWN_ENCODING
    return Reason.UNDECODABLE if body is None else body


def scan_leaf(leaf: Leaf, judgement: Judgement) -> Leaf:
    """Return *leaf* with its links found and judged."""
    charset = charset_of(leaf.part.parameters.get("charset"))
    if leaf.reason or leaf.body is None or charset is None:
        return leaf
    if charset.wide:
        return _scan_wide(leaf, leaf.body, charset, judgement)
    return _scanned(leaf, leaf.body, charset.codec, judgement)


def _left_alone(leaf: Leaf, reason: Reason) -> Leaf:
    return Leaf(part=leaf.part, raw=leaf.raw, reason=reason)


def _scanned(leaf: Leaf, octets: bytes, codec: str, judgement: Judgement) -> Leaf:
    if leaf.part.kind == "text/plain":
        return _scan_text(leaf, octets, codec, judgement)
    try:
        seen = html.scan(octets)
    except html.ScanLimitError:
        return _left_alone(leaf, Reason.HTML_LIMIT)
    marks: list[Mark] = []
    found: list[Found] = []
    for href in seen.hrefs:
        verdict, mark = _judged(href, octets, codec, judgement)
        found.append(
            Found(
                value=href.value,
                element=href.element,
                start=href.start,
                url=verdict.url,
                reason=verdict.reason,
            )
        )
        if mark:
            marks.append(mark)
    marks.sort()
    return msgspec.structs.replace(leaf, marks=tuple(marks), found=tuple(found), pixel_at=seen.pixel_at)


class _Decision(NamedTuple):
    url: str | None
    reason: str | None


def _judged(href: html.Href, octets: bytes, codec: str, judgement: Judgement) -> tuple[_Decision, Mark | None]:
    if not judgement.clicks:
        return _Decision(None, Reason.CLICKS_OFF), None
    if href.opt_out is not None:
        start, end = href.opt_out
        return _Decision(None, links.LinkReason.OPT_OUT), Mark(start, end, CONSTANT)
    verdict = links.judge(href.value, charset=codec, skip=judgement.skip, public_url=judgement.public_url)
    if verdict.url is not None:
        number = judgement.numbers.setdefault(verdict.url, len(judgement.numbers))
        return _Decision(verdict.url, None), Mark(href.start, href.end, number)
    if verdict.reason == links.LinkReason.NOTRACK:
        written = octets[href.start : href.end]
        new = written.replace(href.value, links.strip_notrack(href.value), 1)
        return _Decision(None, verdict.reason), Mark(href.start, href.end, CONSTANT, new)
    return _Decision(None, verdict.reason), None


def _scan_text(leaf: Leaf, octets: bytes, codec: str, judgement: Judgement) -> Leaf:
    marks: list[Mark] = []
    found: list[Found] = []
    for start, end in text.scan(octets, charset=codec):
        value = octets[start:end]
        url: str | None = None
        reason: str | None = Reason.CLICKS_OFF
        if judgement.clicks:
            try:
                verdict = links.judge_url(value.decode(codec), skip=judgement.skip, public_url=judgement.public_url)
                url, reason = verdict.url, verdict.reason
            except UnicodeDecodeError:
                reason = Reason.UNDECODABLE
        if url is not None:
            marks.append(Mark(start, end, judgement.numbers.setdefault(url, len(judgement.numbers))))
        found.append(Found(value=value, element="text", start=start, url=url, reason=reason))
    return msgspec.structs.replace(leaf, marks=tuple(marks), found=tuple(found))


def _scan_wide(leaf: Leaf, body: bytes, charset: Charset, judgement: Judgement) -> Leaf:
    codec = exact_codec(charset, body)
    if codec is None or (leaf.part.encoding in _IDENTITY and charset.codec.startswith(_NO_LINES)):
        return _left_alone(leaf, Reason.UNDECODABLE)
    try:
        letters = body.decode(codec).encode()
    except UnicodeError:
        return _left_alone(leaf, Reason.UNDECODABLE)
    leaf = _scanned(leaf, letters, "utf-8", judgement)
    cuts = sorted({0, len(letters), max(leaf.pixel_at, 0)}.union(*((m.start, m.end) for m in leaf.marks)))
    # Every piece is encoded alone. If that gives the body back, each cut is a place where the codec's state is the
    # initial one, and the edits can be made there in octets.
    places = {0: 0}
    pieces: list[bytes] = []
    try:
        for start, end in pairwise(cuts):
            pieces.append(letters[start:end].decode().encode(codec))
            places[end] = places[start] + len(pieces[-1])
    except UnicodeError:
        pieces.clear()
    if b"".join(pieces) != body:
        return msgspec.structs.replace(leaf, reason=Reason.CHARSET_ROUND_TRIP, marks=(), found=(), pixel_at=-1)
    return msgspec.structs.replace(
        leaf,
        codec=codec,
        marks=tuple(Mark(places[m.start], places[m.end], m.link, m.new.decode().encode(codec)) for m in leaf.marks),
        pixel_at=places[leaf.pixel_at] if leaf.pixel_at >= 0 else -1,
    )


def place_leaf(leaf: Leaf, *, pixel: bool) -> Leaf:
    """Return *leaf* with the pixel, if it is to carry it, and every mark located in the encoded body."""
    marks = leaf.marks
    if pixel:
        marks = tuple(sorted((*marks, Mark(leaf.pixel_at, leaf.pixel_at, PIXEL))))
    places: tuple[int, ...] = ()
    if leaf.part.encoding == "quoted-printable":
        places = tuple(locate_qp(leaf.raw, [offset for mark in marks for offset in mark[:2]]))
    return msgspec.structs.replace(leaf, marks=marks, places=places)


class Values(NamedTuple):
    """What the marks become for one recipient: the pixel, and per link its URL and its quoted attribute value."""

    pixel: bytes
    urls: dict[int, bytes | None]
    attributes: dict[int, bytes | None]


def render_leaf(leaf: Leaf, values: Values) -> tuple[list[Splice], int]:
    """Return the splices of the content that carry this leaf's edits, and the number of wrapped links."""
    edits: list[Splice] = []
    places: list[Splice] = []
    wrapped = 0
    new_links = values.urls if leaf.part.kind == "text/plain" else values.attributes
    for at, (start, end, link, constant) in enumerate(leaf.marks):
        new = constant if link == CONSTANT else values.pixel if link == PIXEL else new_links[link]
        if new is None:
            continue
        wrapped += link >= 0
        if leaf.codec and link != CONSTANT:
            new = new.decode("ascii").encode(leaf.codec)
        edits.append(Splice(start, end, new))
        if leaf.places:
            places.append(Splice(leaf.places[2 * at], leaf.places[2 * at + 1], new))
    if not edits and not leaf.long:
        return [], 0
    encode = _ENCODERS.get(leaf.part.encoding, _identity)
    return encode(leaf, edits, places), wrapped


def _identity(leaf: Leaf, edits: list[Splice], _places: list[Splice]) -> list[Splice]:
    edited = splice(leaf.raw, edits)
    if leaf.long or has_long_line(edited):
        # RFC 5321 4.5.3.1.6: nobody has to take such a line, and a value cannot be broken.
        encoded = encode_qp(edited)
        _check(leaf, a2b_qp(encoded), edits)
        return [_relabel(leaf.part), Splice(leaf.part.body_start, leaf.part.body_end, encoded)]
    _check(leaf, edited, edits)
    return _shifted(leaf, edits)


def _base64(leaf: Leaf, edits: list[Splice], _places: list[Splice]) -> list[Splice]:
    encoded = encode_base64(splice(leaf.body or b"", edits), leaf.raw)
    _check(leaf, decode_base64(encoded), edits)
    return [Splice(leaf.part.body_start, leaf.part.body_end, encoded)]


def _quoted_printable(leaf: Leaf, edits: list[Splice], places: list[Splice]) -> list[Splice]:
    splices = qp_splices(leaf.raw, places)
    if leaf.long:
        touched = [(edit.start, edit.end) for edit in splices]
        folds = long_qp_lines(leaf.raw)
        splices += [fold for fold in folds if not any(start <= fold.start < end for start, end in touched)]
        splices.sort()
    _check(leaf, a2b_qp(splice(leaf.raw, splices)), edits)
    return _shifted(leaf, splices)


_ENCODERS: Final[dict[str, Callable[[Leaf, list[Splice], list[Splice]], list[Splice]]]] = {
    "base64": _base64,
    "quoted-printable": _quoted_printable,
}


def _shifted(leaf: Leaf, splices: list[Splice]) -> list[Splice]:
    start = leaf.part.body_start
    return [Splice(start + at, start + end, new) for at, end, new in splices]


def _check(leaf: Leaf, decoded: bytes | None, edits: list[Splice]) -> None:
    body = leaf.body
    if decoded is None or body is None or undo(decoded, body, edits) != body:
        raise RewriteError
    if leaf.codec:
        decoded.decode(leaf.codec)


def _relabel(part: Part) -> Splice:
    field: Field | None = part.encoding_field
    line = b"Content-Transfer-Encoding: quoted-printable\r\n"
    if part.lacks_mime_version:
        # RFC 2045 4: without it the label below means nothing.
        line = b"MIME-Version: 1.0\r\n" + line
    if field is None:
        return Splice(part.header_end, part.header_end, line)
    return Splice(field.start, field.end, line)
