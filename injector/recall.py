"""Recognise in a page what earlier mails held, so that only what is new in it has to be read.

A page is cut at line ends into pieces that each begin and end in plain text. What a piece holds then depends on its
octets alone, and is remembered under them: no mail is compared with another one, and no campaign has to be known.
Of a piece that is new again and again the lines that are not become pieces of their own, and pieces that stand side by
side become one: in the end a page is a few long pieces around what is personal.
A page for which that does not hold, wherever the reason lies, is gone through as a whole.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from injector import base64, html
from injector.charsets import charset_of
from injector.find import Judgement
from injector.leaf import Leaf
from injector.marks import Found
from injector.memory import Memory, Rules
from injector.message import IDENTITY, Part
from injector.piece import Piece

#: A piece that nothing is known of has at least so many octets, if it is not the last; and none has more than so many.
LEAST: Final = 768
MOST: Final = 16_384
# Within so many octets behind what is new, something known is looked for: that is more than `LEAST`.
_NEAR: Final = 2_048
# Smaller pages, as they are sent, are gone through as fast; of a larger one too much would be kept.
_PAGE: Final = range(2_048, 524_288)
# Pieces cost more to read than the same octets of a page: one octet in so many may be new, or the page is read as a
# whole. A short piece counts as one of `LEAST`.
_SHARE: Final = 4
_ENCODINGS: Final = IDENTITY | {"quoted-printable", "base64"}


class New(NamedTuple):
    """A piece that is not known."""

    raw: bytes
    #: It came before, so that it is worth keeping.
    seen: bool
    #: It ends where something known begins, or with the page.
    closed: bool = False


# Each holds up to 1 MB. A message's own word on tracking makes other rules, as its charset and encoding do.
_memory: Final = lru_cache(maxsize=8)(Memory)


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
    raw = content[part.body_start : part.body_end]
    if rules.quoted and raw.endswith((b"=", b"=\r\n")):
        # Its last line ends nowhere.
        return None
    body = lines = None
    if rules.base64:
        body, lines = base64.read(raw) or (None, None)
        if lines is None:
            # Each of its lines has to be looked at in any case.
            return None
    page = raw if body is None else body
    pieces: list[Piece] = []
    try:
        cuts = _cut(page, memory)
        pieces = _pieces(cuts, memory)
        if pieces:
            _join(cuts, memory)
    finally:
        memory.end_page(found=bool(pieces))
    if not pieces:
        return None
    found: list[Found] = []
    pixel_at, start = len(page), 0
    for piece in pieces:
        if piece.body_end >= 0:
            pixel_at = start + piece.body_end
        found += piece.found
        start += len(piece.raw)
    if len(found) > html.MAX_LINKS:
        return None
    return Leaf(
        part=part,
        raw=raw,
        body=body,
        lines=lines,
        pieces=tuple(pieces),
        found=tuple(found),
        pixel_at=pixel_at,
        bare=part.encoding in IDENTITY,
    )


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
    """Return *raw* in pieces, known or new; nothing: too much of it is new, or after many such pages likely is."""
    cuts: list[Piece | New] = []
    size = len(raw)
    allowed = size // _SHARE + LEAST
    learning = memory.is_learning()
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
        # Once too much is new, all that is left to do is to have seen it.
        searched = not gap and allowed >= 0
        end, closed = _end(raw, start, memory, before) if searched else (_good_end(raw, start, memory), False)
        if not learning and not closed:
            return []
        octets = raw[start:end]
        new = New(octets, memory.see(octets), closed)
        if not new.seen:
            allowed -= max(len(octets), LEAST)
            if allowed < 0 and not learning:
                return []
        cuts.append(new)
        start = end
        gap = True
    # All of it was seen now: the next one like it finds more.
    return _narrowed(cuts, memory) if allowed >= 0 else []


def _good_end(raw: bytes, start: int, memory: Memory) -> int:
    """Return the end of what is new at *start*, behind which nothing known is looked for."""
    cut = memory.cut.search(raw, start + LEAST)
    return cut.end() if cut else len(raw)


def _end(raw: bytes, start: int, memory: Memory, before: Piece | None) -> tuple[int, bool]:
    """Return the end of what is new at *start*, and whether something known begins there, or nothing does."""
    end = memory.later(raw, start, before, within=_NEAR)
    if end >= 0:
        return end, True
    end = 0
    for cut in memory.cut.finditer(raw, start):
        at = cut.end()
        if memory.may_begin(raw, at) and memory.recall(raw, at, before, gap=True) is not None:
            return at, True
        if not end and at - start >= LEAST:
            end = at
        if at - start >= _NEAR:
            return end, False
    return (end, False) if end else (len(raw), True)


def _narrowed(cuts: Sequence[Piece | New], memory: Memory) -> list[Piece | New]:
    """Return *cuts* with what is new apart from the lines at its beginning and at its end that came before."""
    narrowed: list[Piece | New] = []
    for cut in cuts:
        if isinstance(cut, Piece) or cut.seen or not cut.closed:
            narrowed.append(cut)
        else:
            narrowed += _without_known_lines(cut, memory)
    return narrowed


def _without_known_lines(new: New, memory: Memory) -> list[New]:
    raw = new.raw
    ends = [cut.end() for cut in memory.cut.finditer(raw)]
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
    if part.kind != "text/html" or part.encoding not in _ENCODINGS:
        return None
    if judgement.leave_visible:
        # What a link shows may stand in the piece behind it.
        return None
    charset = charset_of(part.parameters.get("charset"))
    if charset is None or charset.wide:
        return None
    return Rules(part.encoding == "quoted-printable", part.encoding == "base64", charset, judgement)
