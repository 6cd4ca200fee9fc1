"""Remember the pieces of pages that came more than once, by their octets, and what stood behind which."""

import re
from typing import Final, NamedTuple

from injector import html
from injector.charsets import Charset, exact_codec
from injector.encodings import decode_qp, has_long_line
from injector.find import Judgement, Page, judge_hrefs
from injector.marks import PIXEL, with_pixel_at
from injector.piece import Piece, fits, placed, written_lines
from injector.policy import INLINE_PGP

# A line that begins with a tag, behind one that no soft line break of quoted-printable carries on.
_CUT: Final = rb"%b(?<!=\r\n)(?=[ \t]*+</?[A-Za-z])"
# Pieces are found by so many of their first octets, in which so many of them may be alike.
_HEAD: Final = 640
_ALIKE_KEPT: Final = 8
# So many octets tell where one may begin.
_TELLING: Final = 96
# After so many pages that were not known, one in so many is gone through to its end all the same: which ones is
# scattered, or a campaign whose mail takes turns with others' might never have one.
_IN_VAIN: Final = 16
_ONE_IN: Final = 8
_SCATTER, _SCATTERED = 2_654_435_761, 2**32
# Each of two generations; a piece takes so many beside its own.
_OVERHEAD: Final = 256
_OCTETS_KEPT: Final = 524_288
_SEEN_KEPT: Final = 8_192
# A pixel of ours: whether it is the same recipient's is asked of the page as a whole.
_OWN_PIXEL: Final = b"/track/o/"


class Rules(NamedTuple):
    """What the reading of a piece depends on beside its octets."""

    quoted: bool
    #: The pieces are of what base64 encodes.
    base64: bool
    charset: Charset
    judgement: Judgement

    @property
    def line_end(self) -> bytes:
        """How a line ends: within base64 mailers do as they like, for no line of it is sent as it is."""
        return b"\n" if self.base64 else b"\r\n"


class Memory:
    """The pieces that came in more than one page under the same rules; of the others, that they came.

    What was not asked for in a whole generation is forgotten with it. What came once is not kept, and so nothing
    personal, unless its mail is submitted again. Not for two threads at a time.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        #: Where a piece may end.
        self.cut: Final = re.compile(_CUT % rules.line_end)
        self._young: dict[bytes, list[Piece]] = {}
        self._old: dict[bytes, list[Piece]] = {}
        self._octets = 0
        self._beginnings: set[bytes] = set()
        # What stood behind a piece the last time: at once, and behind something new. None: the page began there.
        self._next: dict[Piece | None, Piece] = {}
        self._later: dict[Piece | None, Piece] = {}
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._seen_here: list[int] = []
        # Pages in a row that were not known.
        self._in_vain = 0

    def is_learning(self) -> bool:
        """Tell whether to go through a page to its end though much of it is new: where all are, one in eight."""
        return self._in_vain < _IN_VAIN or self._in_vain * _SCATTER % _SCATTERED < _SCATTERED // _ONE_IN

    def end_page(self, *, found: bool) -> None:
        """Take note of what was new in a page, and of whether it was *found* to be made of pieces."""
        self._in_vain = 0 if found else self._in_vain + 1
        self._seen.update(self._seen_here)
        self._seen_here.clear()
        if len(self._seen) >= _SEEN_KEPT:
            self._seen_before, self._seen = self._seen, set()

    def recall(self, raw: bytes, start: int, before: Piece | None = None, *, gap: bool = False) -> Piece | None:
        """Return the known piece at *start* of *raw*, behind the piece *before* or, with *gap*, behind what is new."""
        behind = self._later if gap else self._next
        piece = behind.get(before)
        if piece is not None and fits(piece, raw, start):
            return piece
        head = raw[start : start + _HEAD]
        for piece in self._young.get(head, ()):
            if fits(piece, raw, start):
                behind[before] = piece
                return piece
        for piece in self._old.get(head, ()):
            if fits(piece, raw, start):
                self.keep(piece, before, gap=gap)
                return piece
        return None

    def may_begin(self, raw: bytes, start: int) -> bool:
        """Tell whether to ask for a piece at *start* of *raw*: most often none begins so, which is told at once."""
        return raw[start : start + _TELLING] in self._beginnings

    def later(self, raw: bytes, start: int, before: Piece | None, *, within: int) -> int:
        """Return where in *raw*, *within* so many octets of *start*, that begins which came behind *before* and a gap.

        -1: it is not there.
        """
        piece = self._later.get(before)
        if piece is None:
            return -1
        # What is looked for costs by its length too.
        head = piece.raw[:_TELLING]
        at = raw.find(head, start + 1, start + within + len(head))
        if at < 0 or not fits(piece, raw, at):
            return -1
        return at if raw.endswith(self._rules.line_end, start, at) and not raw.endswith(b"=\r\n", start, at) else -1

    def see(self, octets: bytes) -> bool:
        """Tell whether such octets came in a page before."""
        mark = hash(octets)
        if mark in self._seen:
            return True
        self._seen_here.append(mark)
        return mark in self._seen_before

    def read(self, octets: bytes) -> Piece | None:
        """Read a piece that is not known; None: it cannot stand alone, or concerns the mail as a whole."""
        return _read(octets, self._rules)

    def keep(self, piece: Piece, before: Piece | None, *, gap: bool = False) -> None:
        """Remember *piece*, and that it stands behind *before* or, with *gap*, behind that and something new."""
        if self._octets > _OCTETS_KEPT:
            self._old, self._young, self._octets = self._young, {}, 0
            self._beginnings = {head[:_TELLING] for head in self._old}
            self._next.clear()
            self._later.clear()
        # One that is shorter than a head is found by what it stands behind, or where the page ends with it.
        alike = self._young.setdefault(piece.raw[:_HEAD], [])
        alike.insert(0, piece)
        del alike[_ALIKE_KEPT:]
        (self._later if gap else self._next)[before] = piece
        self._beginnings.add(piece.raw[:_TELLING])
        self._octets += len(piece.raw) + _OVERHEAD


def _read(raw: bytes, rules: Rules) -> Piece | None:
    body = decode_qp(raw) if rules.quoted else raw
    if body is None or not body.strip() or (not rules.base64 and has_long_line(raw)):
        return None
    if INLINE_PGP in body or _OWN_PIXEL in body:
        return None
    codec = rules.charset.codec
    if exact_codec(rules.charset, body) != codec:
        return None
    seen = html.scan_piece(body)
    if seen is None:
        return None
    hrefs, body_end = seen
    numbers: dict[str, int] = {}
    quoted = rules.quoted
    marks, found = judge_hrefs(hrefs, Page(body, codec, sent_as=codec), rules.judgement, numbers)
    # Where the pixel would go; whether it does is the page's business.
    if body_end is not None:
        marks = with_pixel_at(marks, body_end)
    marks = placed(raw, body, marks, quoted=quoted)
    if body_end is not None:
        [body_end] = [mark.start for mark in marks if mark.link == PIXEL]
        marks = tuple([mark for mark in marks if mark.link != PIXEL])
    return Piece(
        raw=raw,
        quoted=quoted,
        base64=rules.base64,
        found=found,
        urls=tuple(numbers),
        marks=marks,
        links=tuple([mark.link for mark in marks if mark.link >= 0]),
        ended=raw.endswith(rules.line_end),
        written=written_lines(raw, marks, quoted=quoted, base64=rules.base64),
        body_end=-1 if body_end is None else body_end,
        with_pixel={},
    )
