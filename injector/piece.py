"""A piece of a page that is known already, and its lines with links, made for one recipient.

The mails of a campaign differ in a name and a link or two. Whatever else they hold was decoded, scanned, judged and
located with the first of them, and stands here: what is left for each recipient is to fill in the links.
"""

from binascii import a2b_qp
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from injector.encodings import MAX_LINE, Edit, fold, qp_text, touched_lines
from injector.marks import CONSTANT, PIXEL, PIXEL_HEAD, PIXEL_TAIL, Found, Mark, Values, pixel_of, with_pixel_at
from injector.quoted import places_of

_LAYOUTS_KEPT: Final = 8


class Layout(NamedTuple):
    """How lines with one new value of a certain length are folded, whatever plain octets it has."""

    #: Cuts the value where a soft line break goes into it.
    cut: Callable[[bytes], tuple[bytes, ...]]
    #: The lines, with a `%b` for each of its bits.
    lines: bytes


class Written(NamedTuple):
    """Lines that marks touch, encoded, `[start:end)` of their piece."""

    start: int
    end: int
    #: What stays of them: one more than there are marks. What stands around the pixel's address is among it.
    kept: tuple[bytes, ...]
    #: That decoded. The last ends in CRLF unless a soft line break leads on.
    meant: tuple[bytes, ...]
    marks: tuple[Mark, ...]
    #: The link of the only mark, or PIXEL; CONSTANT: there are several, or it is one.
    link: int
    #: Those of lines with one mark, by the length of the value: all tokens of a link are of one length. None: such a
    #: value came once so far, and a layout is worth its making when one comes again.
    layouts: dict[int, Layout | None]


class Piece(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Some whole lines of a page as it is sent, or of what base64 encodes, where text begins and text ends."""

    raw: bytes
    #: Its last line has its line end.
    ended: bool
    #: It is quoted-printable, or what base64 encodes; else it stands in no transfer encoding.
    quoted: bool
    base64: bool
    found: tuple[Found, ...]
    #: Its destinations: a mark's link is a number in here, not yet in the mail.
    urls: tuple[str, ...]
    #: In `raw`, sorted.
    marks: tuple[Mark, ...]
    #: The link of each mark that has one.
    links: tuple[int, ...]
    written: tuple[Written, ...]
    #: Where the last real `</body>` begins, in `raw`; -1: there is none.
    body_end: int
    #: Itself with the pixel, by the place where it was put so far.
    with_pixel: dict[int, "Piece"]


def fits(piece: Piece, raw: bytes, start: int) -> bool:
    """Tell whether *piece* stands at *start* of *raw*; one without a line end does only where *raw* ends with it."""
    return raw.startswith(piece.raw, start) and (piece.ended or start + len(piece.raw) == len(raw))


def placed(raw: bytes, body: bytes, marks: Sequence[Mark], *, quoted: bool) -> tuple[Mark, ...]:
    """Return *marks* of *body* as they stand in *raw*, which encodes it; raise `MisplacedError` if they cannot be."""
    if not quoted:
        return tuple(marks)
    flat = places_of(raw, body, marks)
    return tuple(
        Mark(start, end, mark.link, mark.new) for start, end, mark in zip(flat[::2], flat[1::2], marks, strict=True)
    )


def written_lines(raw: bytes, marks: Sequence[Mark], *, quoted: bool, base64: bool) -> tuple[Written, ...]:
    """Return the lines of *raw* that *marks* in it touch: none of what base64 encodes is written by itself."""
    if base64:
        return ()
    written: list[Written] = []
    at = 0
    for start, end, stays in touched_lines(raw, marks):
        own = tuple(marks[at : at + len(stays) - 1])
        kept = _around_pixel(stays, own, quoted=quoted)
        link = own[0].link if len(own) == 1 else CONSTANT
        written.append(Written(start, end, kept, _meant(kept) if quoted else (), own, link, {}))
        at += len(own)
    return tuple(written)


def _around_pixel(kept: tuple[bytes, ...], marks: tuple[Mark, ...], *, quoted: bool) -> tuple[bytes, ...]:
    """Return *kept* with the pixel's tag, so that its address alone goes between."""
    parts = list(kept)
    for at, mark in enumerate(marks):
        if mark.link == PIXEL:
            head, tail = (qp_text(PIXEL_HEAD), qp_text(PIXEL_TAIL)) if quoted else (PIXEL_HEAD, PIXEL_TAIL)
            parts[at] += head
            parts[at + 1] = tail + parts[at + 1]
    return tuple(parts)


def _meant(kept: tuple[bytes, ...]) -> tuple[bytes, ...]:
    *first, last = map(a2b_qp, kept)
    return (*first, last if kept[-1].endswith(b"=") else last + b"\r\n")


def with_pixel(piece: Piece, place: int) -> Piece:
    """Return *piece* with the pixel's mark at *place* of its octets."""
    known = piece.with_pixel.get(place)
    if known is None:
        marks = with_pixel_at(piece.marks, place)
        written = written_lines(piece.raw, marks, quoted=piece.quoted, base64=piece.base64)
        known = msgspec.structs.replace(piece, marks=marks, written=written, with_pixel={})
        piece.with_pixel[place] = known
    return known


def edits_of(pieces: Sequence[Piece], numbers: Sequence[tuple[int, ...]], values: Values) -> tuple[list[Edit], int]:
    """Return the edits of a page in *pieces* that bring *values* into it, and how many links are wrapped."""
    edits: list[Edit] = []
    wrapped = base = 0
    attributes, pixel = values.attributes, pixel_of(values)
    for piece, own in zip(pieces, numbers, strict=True):
        for start, end, link, constant in piece.marks:
            new = attributes[own[link]] if link >= 0 else pixel if link == PIXEL else constant
            if new is not None:
                edits.append((base + start, base + end, new))
                wrapped += link >= 0
        base += len(piece.raw)
    return edits, wrapped


def splices_of(
    pieces: Sequence[Piece], numbers: Sequence[tuple[int, ...]], values: Values, base: int
) -> tuple[list[Edit], int] | None:
    """Return the splices that carry *values* into *pieces*, which stand at *base*, and how many links are wrapped.

    *numbers* are, for each piece, the numbers of its destinations in the mail. None: for this recipient the page has to
    be gone through as a whole, for a link is left alone, or a line becomes too long.
    """
    splices: list[Edit] = []
    quoted: list[bytes] = []
    meant: list[bytes] = []
    wrapped = 0
    source, _, attributes, plain = values
    for piece, own in zip(pieces, numbers, strict=True):
        for start, end, kept, kept_meant, marks, link, layouts in piece.written:
            if link == CONSTANT:
                news = _values_of(marks, own, values)
            else:
                new = attributes[own[link]] if link >= 0 else source
                news = None if new is None else (new,)
            if news is None:
                return None
            if not piece.quoted:
                text = _between(kept, news)
                if len(text) > MAX_LINE:
                    return None
            elif plain and link != CONSTANT:
                text = _folded(kept, news, layouts)
                quoted.append(text)
                meant += (kept_meant[0], news[0], kept_meant[1])
            else:
                text = _freely_folded(kept, news)
                quoted.append(text)
                meant.append(_between(kept_meant, news))
            splices.append((base + start, base + end, text))
        wrapped += len(piece.links)
        base += len(piece.raw)
    # All that was written anew is decoded again, at once.
    quoted.append(b"")
    return (splices, wrapped) if a2b_qp(b"\r\n".join(quoted)) == b"".join(meant) else None


def _values_of(marks: tuple[Mark, ...], own: tuple[int, ...], values: Values) -> tuple[bytes, ...] | None:
    """Return the value of each of *marks*; None: one of them has none."""
    news: list[bytes] = []
    for _, _, link, constant in marks:
        new = values.attributes[own[link]] if link >= 0 else values.source if link == PIXEL else constant
        if new is None:
            return None
        news.append(new)
    return tuple(news)


def _folded(kept: tuple[bytes, ...], news: tuple[bytes, ...], layouts: dict[int, Layout | None]) -> bytes:
    """Return quoted-printable lines with a value, of octets that stand for themselves, between what is *kept*."""
    size = len(news[0])
    if size not in layouts:
        if len(layouts) < _LAYOUTS_KEPT:
            layouts[size] = None
        return _freely_folded(kept, news)
    layout = layouts[size]
    if layout is None:
        layout = layouts[size] = _layout(kept, size)
    return layout.lines % layout.cut(news[0])


def _freely_folded(kept: tuple[bytes, ...], news: tuple[bytes, ...]) -> bytes:
    """Return quoted-printable lines with *news* between what is *kept*."""
    text = _between(kept, [qp_text(new) for new in news])
    return fold(text, white_end=not kept[-1])


def _layout(kept: tuple[bytes, ...], size: int) -> Layout:
    """Return the layout of the lines that hold a plain value of *size* octets between what is *kept*."""
    head, tail = kept
    lines = fold(b"%b%b%b" % (head, b"x" * size, tail), white_end=not tail).split(b"=\r\n")
    sizes: list[int] = []
    templates: list[bytes] = []
    # Where a line begins, seen from where the value does.
    begin = -len(head)
    for line in lines:
        start, end = max(0, -begin), min(len(line), size - begin)
        if start < end:
            sizes.append(end - start)
            templates.append(b"%b%%b%b" % (_literal(line[:start]), _literal(line[end:])))
        else:
            templates.append(_literal(line))
        begin += len(line)
    return Layout(Struct("".join([f"{size}s" for size in sizes])).unpack, b"=\r\n".join(templates))


def _literal(octets: bytes) -> bytes:
    return octets.replace(b"%", b"%%")


def _between(kept: tuple[bytes, ...], news: Sequence[bytes]) -> bytes:
    if len(news) == 1:
        return b"%b%b%b" % (kept[0], news[0], kept[1])
    parts = [kept[0]]
    for new, tail in zip(news, kept[1:], strict=True):
        parts += (new, tail)
    return b"".join(parts)
