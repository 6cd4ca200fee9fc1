"""Find the links of a decoded leaf, decide on each, and mark what is to change.

Marks are octet ranges of the decoded body, also where the markup could only be read as letters: a place that is no
place in the octets leaves the whole part alone.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from injector import html, label, links, text
from injector.charsets import charset_of, exact_codec
from injector.leaf import NO_LINES, Leaf
from injector.marks import CONSTANT, Found, Mark
from injector.message import IDENTITY
from injector.skip import Reason
from injector.wrapped import NEVER_WRAPPED

# The mails of a campaign hold the same links: each is judged once for all of them. Longer values are not kept.
MAX_REMEMBERED: Final = 2_000
# Python 3.11 takes its time to look a member of an enum up.
_NOTRACK: Final = links.LinkReason.NOTRACK


class Judgement(NamedTuple):
    """How links are judged: what the settings and the mail itself say."""

    #: In html.
    clicks: bool
    #: Clicks in plain text.
    text_links: bool
    skip: tuple[str, ...]
    public_url: str
    #: Leave a link alone whose visible text is an address.
    leave_visible: bool = False


def scan_leaf(leaf: Leaf, judgement: Judgement, numbers: dict[str, int]) -> Leaf:
    """Return *leaf* with its links found and judged; *numbers* are those of the destinations, the new ones added."""
    if leaf.pieces:
        return _numbered(leaf, numbers)
    charset = charset_of(leaf.part.parameters.get("charset"))
    if leaf.reason or leaf.body is None or charset is None:
        return leaf
    codec = exact_codec(charset, leaf.body)
    if codec is None or (leaf.part.encoding in IDENTITY and codec.startswith(NO_LINES)):
        return _left_alone(leaf, Reason.UNDECODABLE)
    if charset.wide:
        return _scan_wide(leaf, leaf.body, codec, judgement, numbers)
    return _scanned(leaf, Page(leaf.body, codec, sent_as=codec), judgement, numbers)


def scan_leaves(leaves: list[Leaf], judgement: Judgement, numbers: dict[str, int]) -> list[Leaf] | None:
    """Return *leaves* with their links found and judged; None when together they hold more than a mail can have.

    The destinations are entered into *numbers*, each with the next one.
    """
    scanned: list[Leaf] = []
    total = 0
    for leaf in leaves:
        scanned.append(scan_leaf(leaf, judgement, numbers))
        total += len(scanned[-1].found)
        if total > html.MAX_LINKS:
            return None
    return scanned


def _left_alone(leaf: Leaf, reason: Reason) -> Leaf:
    return Leaf(part=leaf.part, raw=leaf.raw, reason=reason)


def _numbered(leaf: Leaf, numbers: dict[str, int]) -> Leaf:
    """Give the destinations of a page in pieces their numbers in the mail."""
    known = [
        tuple([numbers.setdefault(url, len(numbers)) for url in piece.urls]) if piece.urls else ()
        for piece in leaf.pieces
    ]
    return msgspec.structs.replace(leaf, numbers=tuple(known))


class Page(NamedTuple):
    """A part as it is scanned."""

    octets: bytes
    #: That reads them.
    codec: str
    #: That of the part's own charset, in which a browser sends the queries of its links.
    sent_as: str


def _scanned(leaf: Leaf, page: Page, judgement: Judgement, numbers: dict[str, int]) -> Leaf:
    if leaf.part.kind == "text/plain":
        return _scan_text(leaf, page, judgement, numbers)
    try:
        seen = html.scan(page.octets)
    except html.ScanLimitError:
        return _left_alone(leaf, Reason.LINK_LIMIT)
    marks, found = judge_hrefs(seen.hrefs, page, judgement, numbers)
    return msgspec.structs.replace(leaf, marks=marks, found=found, pixel_at=seen.pixel_at)


def judge_hrefs(
    hrefs: Iterable[html.Href], page: Page, judgement: Judgement, numbers: dict[str, int]
) -> tuple[tuple[Mark, ...], tuple[Found, ...]]:
    """Return the edits that *hrefs* of *page* call for, sorted, and what was decided on each."""
    marks: list[Mark] = []
    found: list[Found] = []
    for href in hrefs:
        url, reason, mark = _judged(href, page, judgement, numbers)
        found.append(Found(value=href.value, element=href.element, url=url, reason=reason))
        if mark:
            marks.append(mark)
    marks.sort()
    return tuple(marks), tuple(found)


def _judged(
    href: html.Href, page: Page, judgement: Judgement, numbers: dict[str, int]
) -> tuple[str | None, str | None, Mark | None]:
    """Return the destination or the reason why there is none, and the edit."""
    if not judgement.clicks:
        return None, Reason.CLICKS_OFF, None
    if href.opt_out is not None:
        start, end = href.opt_out
        return None, links.LinkReason.OPT_OUT, Mark(start, end, CONSTANT)
    if href.element in NEVER_WRAPPED:
        return None, NEVER_WRAPPED[href.element], None
    judge = _verdict if len(href.value) <= MAX_REMEMBERED else _verdict.__wrapped__
    verdict = judge(href.value, page.codec, page.sent_as, judgement.skip, judgement.public_url)
    if verdict.url is None:
        return None, verdict.reason, _without_notrack(href, page) if verdict.reason == _NOTRACK else None
    if judgement.leave_visible and href.element == "a" and _shows_address(href, page):
        return None, links.LinkReason.VISIBLE_URL, None
    number = numbers.setdefault(verdict.url, len(numbers))
    return verdict.url, None, Mark(href.start, href.end, number)


@lru_cache(maxsize=2_048)
def _verdict(value: bytes, codec: str, sent_as: str, skip: tuple[str, ...], public_url: str) -> links.Verdict:
    # By position: an argument's name is part of what is remembered, and of what it costs to look that up.
    return links.judge(value, charset=codec, page=sent_as, skip=skip, public_url=public_url)


def _without_notrack(href: html.Href, page: Page) -> Mark:
    written = page.octets[href.start : href.end]
    return Mark(href.start, href.end, CONSTANT, written.replace(href.value, links.strip_notrack(href.value), 1))


def _shows_address(href: html.Href, page: Page) -> bool:
    return label.shows_address(page.octets, href.tag_end, charset=page.codec)


def _scan_text(leaf: Leaf, page: Page, judgement: Judgement, numbers: dict[str, int]) -> Leaf:
    octets, codec = page.octets, page.codec
    marks: list[Mark] = []
    found: list[Found] = []
    spans = text.scan(octets, charset=codec)
    if len(spans) > html.MAX_LINKS:
        return _left_alone(leaf, Reason.LINK_LIMIT)
    for start, end in spans:
        value = octets[start:end]
        url: str | None = None
        reason: str | None = Reason.CLICKS_OFF
        if judgement.text_links:
            verdict = links.judge_url(value.decode(codec), skip=judgement.skip, public_url=judgement.public_url)
            url, reason = verdict.url, verdict.reason
        if url is not None:
            marks.append(Mark(start, end, numbers.setdefault(url, len(numbers))))
        found.append(Found(value=value, element="text", url=url, reason=reason))
    return msgspec.structs.replace(leaf, marks=tuple(marks), found=tuple(found))


def _scan_wide(leaf: Leaf, body: bytes, codec: str, judgement: Judgement, numbers: dict[str, int]) -> Leaf:
    try:
        letters = body.decode(codec).encode()
        scanned = _scanned(leaf, Page(letters, "utf-8", sent_as=codec), judgement, numbers)
        places = _places(scanned, letters, codec)
    except UnicodeError:
        return _left_alone(leaf, Reason.UNDECODABLE)
    if b"".join(octets for _, octets in places.values()) != body:
        return _left_alone(leaf, Reason.CHARSET_ROUND_TRIP)
    return msgspec.structs.replace(
        scanned,
        codec=codec,
        marks=tuple(
            Mark(places[m.start][0], places[m.end][0], m.link, m.new.decode().encode(codec)) for m in scanned.marks
        ),
        pixel_at=places[scanned.pixel_at][0] if scanned.pixel_at >= 0 else -1,
    )


def _places(leaf: Leaf, letters: bytes, codec: str) -> dict[int, tuple[int, bytes]]:
    """Return for each end of a mark its place in the body, and the octets that stand there before it.

    Every piece is encoded alone. If all of them give the body back, each cut is a place where the codec's state is the
    initial one, and edits can be made there in octets.
    """
    places: dict[int, tuple[int, bytes]] = {0: (0, b"")}
    cuts = sorted({0, len(letters), max(leaf.pixel_at, 0)}.union(*((m.start, m.end) for m in leaf.marks)))
    for start, end in pairwise(cuts):
        octets = letters[start:end].decode().encode(codec)
        places[end] = places[start][0] + len(octets), octets
    return places
