"""Recognise in a page what earlier mails held, so that only what is new in it has to be read.

A page is cut at line ends into pieces that each begin and end in plain text. What a piece holds then depends on its
octets alone, and is remembered under them: no mail is compared with another one, and no campaign has to be known.
A page for which that does not hold, wherever the reason lies, is gone through as a whole.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from injector import html
from injector.charsets import Charset, charset_of, exact_codec
from injector.encodings import decode_qp, has_long_line
from injector.find import Judgement, Page, judge_hrefs
from injector.leaf import IDENTITY, Leaf
from injector.marks import PIXEL, Found, Mark
from injector.message import Part
from injector.piece import Piece, placed, written_lines
from injector.policy import INLINE_PGP

# A line that begins with a tag, behind one that a soft line break does not carry on.
_CUT: Final = re.compile(rb"\r\n(?<!=\r\n)(?=[ \t]*+</?[A-Za-z])")
#: A piece that nothing is known of has at least so many octets, if it is not the last; and none has more than so many.
LEAST: Final = 768
MOST: Final = 16_384
# Pieces are found by so many of their first octets, in which so many of them may be alike.
_HEAD: Final = 640
_ALIKE_KEPT: Final = 8
# So many octets tell where one begins.
_TELLING: Final = 96
# Within so many octets behind what is new, something known is looked for.
_NEAR: Final = 2_048
# Smaller pages are gone through as fast; of a larger one too much would be kept.
_PAGE: Final = range(2_048, 524_288)
# Pieces cost more to read than the same octets of a page: one in four may be new, or the page is read as a whole.
_OCTETS_FOR_A_NEW_ONE: Final = 4 * LEAST
# After so many pages that were not known, one in so many is looked at.
_IN_VAIN: Final = 16
_ONE_IN: Final = 8
# Each of two generations; a piece takes so many beside its own.
_OVERHEAD: Final = 256
_OCTETS_KEPT: Final = 524_288
_SEEN_KEPT: Final = 8_192
# A pixel of ours: whether it is the same recipient's is asked of the page as a whole.
_OWN_PIXEL: Final = b"/track/o/"


class Rules(NamedTuple):
    """What the reading of a piece depends on beside its octets."""

    quoted: bool
    charset: Charset
    judgement: Judgement


class Memory:
    """The pieces that came in more than one page under the same rules; of the others, that they came.

    What was not asked for in a whole generation is forgotten with it. Nothing personal is kept: it comes once.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._young: dict[bytes, list[Piece]] = {}
        self._old: dict[bytes, list[Piece]] = {}
        self._octets = 0
        # What stood behind a piece the last time: at once, and behind something new. None: the page began there.
        self._next: dict[Piece | None, Piece] = {}
        self._later: dict[Piece | None, Piece] = {}
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._seen_here: list[int] = []
        # Pages in a row that were gone through as a whole.
        self._in_vain = 0

    def worth_asking(self) -> bool:
        """Tell whether to ask for the pieces of a page: where each is new again and again, of one in eight."""
        if self._in_vain < _IN_VAIN:
            return True
        self._in_vain += 1
        return self._in_vain % _ONE_IN == 0

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
        if piece is not None and raw.startswith(piece.raw, start):
            return piece
        head = raw[start : start + _HEAD]
        for piece in self._young.get(head, ()):
            if raw.startswith(piece.raw, start):
                behind[before] = piece
                return piece
        for piece in self._old.get(head, ()):
            if raw.startswith(piece.raw, start):
                self.keep(piece, before, gap=gap)
                return piece
        return None

    def later(self, raw: bytes, start: int, before: Piece | None) -> int:
        """Return where that begins in *raw* which came behind *before* and something new; -1: not near *start*."""
        piece = self._later.get(before)
        if piece is None:
            return -1
        # What is looked for costs by its length too.
        head = piece.raw[:_TELLING]
        at = raw.find(head, start + 1, start + _NEAR + len(head))
        if at < 0 or not raw.startswith(piece.raw, at):
            return -1
        return at if raw.endswith(b"\r\n", start, at) and not raw.endswith(b"=\r\n", start, at) else -1

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
            self._next.clear()
            self._later.clear()
        # The head of a shorter one is found where the page ends with it; else by what it stands behind.
        alike = self._young.setdefault(piece.raw[:_HEAD], [])
        alike.insert(0, piece)
        del alike[_ALIKE_KEPT:]
        (self._later if gap else self._next)[before] = piece
        self._octets += len(piece.raw) + _OVERHEAD


class New(NamedTuple):
    """A piece that is not known."""

    raw: bytes
    #: It came before, so that it is worth keeping.
    seen: bool


_memory: Final = lru_cache(maxsize=4)(Memory)


def forget() -> None:
    """Forget everything."""
    _memory.cache_clear()


def recall(part: Part, content: bytes, judgement: Judgement) -> Leaf | None:
    """Return the html *part* of *content* as pieces, its links found; None: it has to be gone through as a whole."""
    size = part.body_end - part.body_start
    rules = _rules_for(part, judgement) if size in _PAGE else None
    if rules is None:
        return None
    memory = _memory(rules)
    if not memory.worth_asking():
        return None
    raw = content[part.body_start : part.body_end]
    cuts = _cut(raw, memory)
    pieces = _pieces(cuts, memory)
    if pieces:
        _join(cuts, memory)
    memory.end_page(found=bool(pieces))
    if not pieces:
        return None
    found: list[Found] = []
    pixel_at, start = size, 0
    for piece in pieces:
        if piece.body_end >= 0:
            pixel_at = start + piece.body_end
        found += piece.found
        start += len(piece.raw)
    return Leaf(part=part, raw=raw, pieces=tuple(pieces), found=tuple(found), pixel_at=pixel_at, bare=not rules.quoted)


def _pieces(cuts: Sequence[Piece | New], memory: Memory) -> list[Piece]:
    """Return *cuts* with what is new in them read; nothing: the page does not end where they do."""
    pieces: list[Piece] = []
    unended = b""
    before: Piece | None = None
    gap = False
    for cut in cuts:
        if isinstance(cut, Piece) and not unended:
            pieces.append(cut)
            before, gap = cut, False
            continue
        octets = unended + cut.raw
        if len(octets) > MOST:
            return []
        # Longer than was cut out, it has to have come before as a whole: each of its cuts may have, beside others.
        seen = memory.see(octets) if unended else isinstance(cut, New) and cut.seen
        piece = memory.read(octets)
        # Without one it ends inside of something that may end in the next.
        unended = octets if piece is None else b""
        if piece is None:
            continue
        pieces.append(piece)
        if seen:
            memory.keep(piece, before, gap=gap)
            before = piece
        gap = not seen
    return [] if unended else pieces


def _cut(raw: bytes, memory: Memory) -> list[Piece | New]:
    """Return *raw* in pieces, known or new; nothing: too many of them are new."""
    cuts: list[Piece | New] = []
    size = len(raw)
    unseen = size // _OCTETS_FOR_A_NEW_ONE + 1
    start = 0
    before: Piece | None = None
    gap = False
    while start < size:
        piece = memory.recall(raw, start, before, gap=gap)
        if piece is not None:
            cuts.append(piece)
            start += len(piece.raw)
            before, gap = piece, False
            continue
        end, known_behind = (_good_end(raw, start), False) if gap else _end(raw, start, memory, before)
        new = New(raw[start:end], memory.see(raw[start:end]))
        unseen -= not new.seen
        cuts += _narrowed(new, memory) if known_behind else [new]
        start = end
        gap = True
    # All of it was seen now: the next one like it finds more.
    return cuts if unseen >= 0 else []


def _good_end(raw: bytes, start: int) -> int:
    """Return the end of what is new at *start*, behind which nothing known is looked for."""
    cut = _CUT.search(raw, start + LEAST)
    return cut.end() if cut else len(raw)


def _end(raw: bytes, start: int, memory: Memory, before: Piece | None) -> tuple[int, bool]:
    """Return the end of what is new at *start*, and whether something known begins there, or nothing does."""
    end = memory.later(raw, start, before)
    if end >= 0:
        return end, True
    end = 0
    for cut in _CUT.finditer(raw, start):
        at = cut.end()
        if memory.recall(raw, at, before, gap=True) is not None:
            return at, True
        if not end and at - start >= LEAST:
            end = at
        if at - start >= _NEAR:
            return end, False
    return (end, False) if end else (len(raw), True)


def _narrowed(new: New, memory: Memory) -> list[New]:
    """Return *new* without the lines at its beginning and at its end that came before, and these for themselves."""
    raw = new.raw
    ends = [] if new.seen else [cut.end() for cut in _CUT.finditer(raw)]
    if not ends:
        return [new]
    lines = [raw[start:end] for start, end in pairwise((0, *ends, len(raw)))]
    unseen = [at for at, line in enumerate(lines) if not memory.see(line)]
    if not unseen:
        return [new]
    parts = lines[: unseen[0]], lines[unseen[0] : unseen[-1] + 1], lines[unseen[-1] + 1 :]
    return [New(b"".join(part), part is not parts[1]) for part in parts if part]


def _join(cuts: Sequence[Piece | New], memory: Memory) -> None:
    """Make one piece of the first known ones that stand side by side: few are faster than many."""
    run: list[Piece] = []
    size = 0
    last: Piece | None = None
    gap = False
    behind = last, gap
    for cut in cuts:
        piece = cut if isinstance(cut, Piece) else None
        if piece is None or size + len(piece.raw) > MOST:
            if len(run) > 1:
                break
            run, size = [], 0
        if piece is not None:
            behind = behind if run else (last, gap)
            run.append(piece)
            size += len(piece.raw)
            last = piece
        gap = piece is None
    if len(run) > 1:
        octets = b"".join([piece.raw for piece in run])
        joined = memory.read(octets) if memory.see(octets) else None
        if joined is not None:
            memory.keep(joined, behind[0], gap=behind[1])


def _rules_for(part: Part, judgement: Judgement) -> Rules | None:
    # In base64 no line is where it was once a name is longer. What a link shows may stand in the piece behind it.
    quoted = part.encoding == "quoted-printable"
    if part.kind != "text/html" or not (quoted or part.encoding in IDENTITY) or judgement.leave_visible:
        return None
    charset = charset_of(part.parameters.get("charset"))
    if charset is None or charset.wide:
        return None
    return Rules(quoted, charset, judgement)


def _read(raw: bytes, rules: Rules) -> Piece | None:
    body = decode_qp(raw) if rules.quoted else raw
    if body is None or not body.strip() or has_long_line(raw):
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
        marks = tuple(sorted((*marks, Mark(body_end, body_end, PIXEL))))
    marks = placed(raw, body, marks, quoted=quoted)
    if body_end is not None:
        [body_end] = [mark.start for mark in marks if mark.link == PIXEL]
        marks = tuple([mark for mark in marks if mark.link != PIXEL])
    return Piece(
        raw=raw,
        quoted=quoted,
        found=found,
        urls=tuple(numbers),
        marks=marks,
        written=written_lines(raw, marks, quoted=quoted),
        body_end=-1 if body_end is None else body_end,
        with_pixel={},
    )
