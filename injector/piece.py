"""A piece of a page that is known already, and its lines with links, made for one recipient.

The mails of a campaign differ in a name and a link or two. Whatever else they hold was decoded, scanned, judged and
located with the first of them, and stands here: what is left for each recipient is to fill in the links.
"""

from binascii import a2b_qp
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from injector.encodings import MAX_LINE, Line, Splice, fold, qp_text, touched_lines
from injector.marks import PIXEL, Found, Mark, Values
from injector.quoted import places_of

# Of a link's own octets, those that stand for themselves. `=` does not.
_PLAIN: Final = bytes(range(0x21, 0x7F)).replace(b"=", b"")
_CUTS_KEPT: Final = 8

#: How a text is cut into lines, by its length.
Cuts = dict[int, tuple[slice, ...]]


class Written(NamedTuple):
    """Lines that marks touch, encoded, and what their kept pieces mean."""

    line: Line
    #: The kept pieces decoded. The last ends in CRLF unless a soft line break leads on.
    meant: tuple[bytes, ...]
    #: Where lines with one link were cut so far. The tokens of a link are all of one length.
    cuts: Cuts


class Piece(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Some whole lines of an encoded page, where text begins and text ends."""

    raw: bytes
    #: It is quoted-printable; else it stands in no transfer encoding.
    quoted: bool
    found: tuple[Found, ...]
    #: Its destinations: a mark's link is a number in here, not yet in the mail.
    urls: tuple[str, ...]
    #: In `raw`, sorted.
    marks: tuple[Mark, ...]
    written: tuple[Written, ...]
    #: Where the last real `</body>` begins, in `raw`; -1: there is none.
    body_end: int


def placed(raw: bytes, body: bytes, marks: Sequence[Mark], *, quoted: bool) -> tuple[Mark, ...]:
    """Return *marks* of *body* as they stand in *raw*, which encodes it; raise `MisplacedError` if they cannot be."""
    if not quoted:
        return tuple(marks)
    flat = places_of(raw, body, marks)
    return tuple(
        Mark(start, end, mark.link, mark.new) for start, end, mark in zip(flat[::2], flat[1::2], marks, strict=True)
    )


def written_lines(raw: bytes, marks: Sequence[Mark], *, quoted: bool) -> tuple[Written, ...]:
    """Return the lines of *raw* that *marks* in it touch."""
    return tuple([Written(line, _meant(line.kept) if quoted else (), {}) for line in touched_lines(raw, marks)])


def _meant(kept: tuple[bytes, ...]) -> tuple[bytes, ...]:
    *first, last = map(a2b_qp, kept)
    return (*first, last if kept[-1].endswith(b"=") else last + b"\r\n")


def with_pixel(piece: Piece, place: int) -> Piece:
    """Return *piece* with the pixel's mark at *place* of its octets."""
    marks = tuple(sorted((*piece.marks, Mark(place, place, PIXEL))))
    return msgspec.structs.replace(piece, marks=marks, written=written_lines(piece.raw, marks, quoted=piece.quoted))


def splices_of(
    pieces: Sequence[Piece], numbers: Sequence[tuple[int, ...]], values: Values, base: int
) -> tuple[list[Splice], int] | None:
    """Return the splices that carry *values* into *pieces*, which stand at *base*, and how many links are wrapped.

    *numbers* are, for each piece, the numbers of its destinations in the mail. None: for this recipient the page has to
    be gone through as a whole, for a link is left alone, or a line becomes too long.
    """
    splices: list[Splice] = []
    quoted: list[bytes] = []
    meant: list[bytes] = []
    wrapped = 0
    for piece, own in zip(pieces, numbers, strict=True):
        if piece.written:
            news: list[bytes] = []
            for _, _, link, constant in piece.marks:
                new = values.attributes[own[link]] if link >= 0 else values.pixel if link == PIXEL else constant
                if new is None:
                    return None
                wrapped += link >= 0
                news.append(new)
            at = 0
            for (start, end, kept), plain, cuts in piece.written:
                here = news[at : at + len(kept) - 1]
                at += len(here)
                if piece.quoted:
                    text = _folded(kept, here, cuts)
                    quoted.append(text)
                    meant.append(_between(plain, here))
                else:
                    text = _between(kept, here)
                    if len(text) > MAX_LINE:
                        return None
                splices.append(Splice(base + start, base + end, text))
        base += len(piece.raw)
    # All that was written anew is decoded again, at once.
    quoted.append(b"")
    return (splices, wrapped) if a2b_qp(b"\r\n".join(quoted)) == b"".join(meant) else None


def _folded(kept: tuple[bytes, ...], news: list[bytes], cuts: Cuts) -> bytes:
    """Return quoted-printable lines with *news* between what is kept of them."""
    if len(news) == 1 and not news[0].translate(None, _PLAIN):
        text = b"%b%b%b" % (kept[0], news[0], kept[1])
        known = cuts.get(len(text))
        if known is not None:
            return b"=\r\n".join([text[cut] for cut in known])
        folded = fold(text, white_end=not kept[1])
        lines = folded.split(b"=\r\n")
        if b"".join(lines) == text and len(cuts) < _CUTS_KEPT:
            ends = list(accumulate(map(len, lines)))
            cuts[len(text)] = tuple(map(slice, [0, *ends], ends))
        return folded
    text = _between(kept, [qp_text(new) for new in news])
    return fold(text, white_end=not kept[-1])


def _between(kept: tuple[bytes, ...], news: list[bytes]) -> bytes:
    if len(news) == 1:
        return b"%b%b%b" % (kept[0], news[0], kept[1])
    parts = [kept[0]]
    for new, tail in zip(news, kept[1:], strict=True):
        parts += (new, tail)
    return b"".join(parts)
