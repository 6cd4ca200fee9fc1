"""Find the links of a decoded leaf, decide on each, and mark what is to change.

Marks are octet ranges of the decoded body, also where the markup could only be read as letters: a place that is no
place in the octets leaves the whole part alone.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from injector import html, links, text
from injector.charsets import Charset, charset_of, exact_codec
from injector.leaf import CONSTANT, IDENTITY, NO_LINES, Found, Leaf, Mark
from injector.skip import Reason

# The mails of a campaign hold the same links: each is judged once for all of them. Longer values are not kept.
MAX_REMEMBERED: Final = 2_000
_judge = lru_cache(maxsize=2_048)(links.judge)


class Judgement(NamedTuple):
    """How the links of a mail are judged: the settings, and the numbers given to the destinations so far."""

    clicks: bool
    text_links: bool
    skip: tuple[str, ...]
    public_url: str
    numbers: dict[str, int]


def _scan_leaf(leaf: Leaf, judgement: Judgement) -> Leaf:
    """Return *leaf* with its links found and judged."""
    charset = charset_of(leaf.part.parameters.get("charset"))
    if leaf.reason or leaf.body is None or charset is None:
        return leaf
    if charset.wide:
        return _scan_wide(leaf, leaf.body, charset, judgement)
    return _scanned(leaf, leaf.body, charset.codec, judgement)


def scan_leaves(leaves: list[Leaf], judgement: Judgement) -> list[Leaf] | None:
    """Return *leaves* with their links found and judged; None when together they hold more than a mail can have."""
    scanned: list[Leaf] = []
    total = 0
    for leaf in leaves:
        scanned.append(_scan_leaf(leaf, judgement))
        total += len(scanned[-1].found)
        if total > html.MAX_LINKS:
            return None
    return scanned


def _left_alone(leaf: Leaf, reason: Reason) -> Leaf:
    return Leaf(part=leaf.part, raw=leaf.raw, reason=reason)


def _scanned(leaf: Leaf, octets: bytes, codec: str, judgement: Judgement) -> Leaf:
    if leaf.part.kind == "text/plain":
        return _scan_text(leaf, octets, codec, judgement)
    try:
        seen = html.scan(octets)
    except html.ScanLimitError:
        return _left_alone(leaf, Reason.LINK_LIMIT)
    marks: list[Mark] = []
    found: list[Found] = []
    for href in seen.hrefs:
        verdict, mark = _judged(href, octets, codec, judgement)
        found.append(
            Found(
                value=href.value,
                element=href.element,
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
    judge = _judge if len(href.value) <= MAX_REMEMBERED else links.judge
    verdict = judge(href.value, charset=codec, skip=judgement.skip, public_url=judgement.public_url)
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
    spans = text.scan(octets, charset=codec)
    if len(spans) > html.MAX_LINKS:
        return _left_alone(leaf, Reason.LINK_LIMIT)
    for start, end in spans:
        value = octets[start:end]
        url: str | None = None
        reason: str | None = Reason.CLICKS_OFF
        if judgement.clicks:
            verdict = links.judge_url(value.decode(codec), skip=judgement.skip, public_url=judgement.public_url)
            url, reason = verdict.url, verdict.reason
        if url is not None:
            marks.append(Mark(start, end, judgement.numbers.setdefault(url, len(judgement.numbers))))
        found.append(Found(value=value, element="text", url=url, reason=reason))
    return msgspec.structs.replace(leaf, marks=tuple(marks), found=tuple(found))


def _scan_wide(leaf: Leaf, body: bytes, charset: Charset, judgement: Judgement) -> Leaf:
    codec = exact_codec(charset, body)
    if codec is None or (leaf.part.encoding in IDENTITY and charset.codec.startswith(NO_LINES)):
        return _left_alone(leaf, Reason.UNDECODABLE)
    try:
        letters = body.decode(codec).encode()
        scanned = _scanned(leaf, letters, "utf-8", judgement)
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
