"""Say, without sending anything, what would become of a message: every part, every link, every header, and why.

The report is made from the same plan that the relay renders, so it cannot say anything but what would happen.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from injector import html
from injector.charsets import charset_of
from injector.encodings import Splice, splice
from injector.headers import HeaderEdits
from injector.label import end_of
from injector.leaf import Leaf, open_leaf
from injector.message import Mail, Part, parse
from injector.plan import Minter, Options, Plan, plan
from injector.policy import part_reason
from injector.skip import Reason

MAX_LABEL: Final = 60
MAX_SHOWN: Final = 100
MAX_FIELD: Final = 500
#: Gmail shows no more of an HTML part, in octets with the transfer encoding undone; the pixel may then be lost too.
GMAIL_LIMIT: Final = 102 * 1024

_FIELD: Final = re.compile(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*")
# How services write the links that they track: a reader would be led through two services, and counted twice.
_TRACKED_ALREADY: Final = re.compile(
    r"/ls/click\?upn=|/wf/click\?upn=|/track/click[/?]|/L0/https?(?::|%3A)|/tr/cl/|/f/a/[^/]+~~/|/lnk/[A-Za-z0-9]{8}"
    r"|//click\.[a-z]|safelinks\.protection\.|/CL0/https?(?::|%3A)|/e3t/Ct[ac]/",
    re.IGNORECASE,
)


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a part."""

    #: As it stands in the part, character references included.
    written: str
    element: str
    #: What the reader sees, "" where that is not text.
    label: str
    tracked: bool
    #: The destination, when it is tracked, and its number in the message.
    url: str | None
    number: int | None
    reason: str | None
    #: What to look at, though it stands in nobody's way: `tracked_already`.
    warning: str | None = None


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """Whether Gmail shows an HTML part whole: its octets with the transfer encoding undone."""

    before: int
    after: int
    limit: int = GMAIL_LIMIT
    clipped: bool


class PartReport(msgspec.Struct, frozen=True, kw_only=True):
    """One part that has no parts of its own."""

    path: str
    content_type: str
    charset: str | None
    encoding: str
    #: Size in octets as it came, and as it leaves, in its transfer encoding.
    size: int
    size_after: int
    tracked: bool
    pixel: bool
    #: It leaves as quoted-printable because of a line over 998 octets.
    folded: bool
    reason: str | None
    links: tuple[LinkReport, ...]
    #: Of an HTML part that a reader sees.
    gmail: Clip | None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Octets that give way to others; both are shortened to 100 characters."""

    offset: int
    removed: str
    added: str
    octets_removed: int
    octets_added: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What the message that leaves differs by from the one that came in, in octets."""

    size_before: int
    size_after: int
    #: Octets of the input that are in the output unchanged.
    kept: int
    removed: int
    added: int
    changes: tuple[Change, ...]
    #: Taking the changes out again gives the input back.
    reversible: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one message."""

    injected: bool
    reason: str | None
    keeps_message_id: bool
    message_id: str | None
    headers: tuple[Change, ...]
    #: The whole fields that go, and those that come; each shortened to 500 characters.
    fields_removed: tuple[str, ...]
    fields_added: tuple[str, ...]
    parts: tuple[PartReport, ...]
    difference: Difference
    #: The domains for which it is signed again, last of all; the signatures themselves are not shown.
    resigned_for: tuple[str, ...]
    #: The header fields that ask for tracking or against it: what was understood, and what says nothing we know.
    heard: tuple[str, ...]
    unread: tuple[str, ...]


class SampleMinter:
    """Makes addresses of the usual length that lead nowhere, for a dry run without keys."""

    def __init__(self, public_url: str) -> None:
        self._base = public_url.rstrip("/")

    def open(self) -> str:
        """Return a sample address of a pixel."""
        return f"{self._base}/track/o/{'SAMPLE'.ljust(90, '-')}"

    def click(self, link: int, url: str) -> str | None:
        """Return a sample address of a link."""
        return f"{self._base}/track/c/{f'SAMPLE-{link}'.ljust(90 + 4 * len(url) // 3, '-')}"

    def unsubscribe(self) -> str:
        """Return a sample address of the one-click unsubscribe."""
        return f"{self._base}/unsubscribe/{'SAMPLE'.ljust(90, '-')}"


def explain(
    content: bytes,
    options: Options,
    *,
    campaign: bool,
    minter: Minter | None = None,
    edits: HeaderEdits | None = None,
) -> Report:
    """Return what the relay would do with *content*, whose lines end in CRLF."""
    mail = parse(content)
    planned = plan(mail, options, campaign=campaign, recalls=False)
    minter = minter or SampleMinter(options.public_url)
    edits = edits or HeaderEdits()
    rendered = planned.render(minter, edits)
    if rendered.reason == Reason.REWRITE_FAILED:
        splices: list[Splice] = []
    else:
        edits_made = [*planned.header_splices(minter, edits), *planned.body_splices(minter)[0]]
        splices = sorted(map(Splice._make, edits_made))
    changes = [_change(content, each) for each in splices if each.new or each.end > each.start]
    in_header = sum(1 for change in changes if change.offset < mail.body_start)
    left = parse(rendered.content)
    return Report(
        injected=rendered.injected,
        reason=rendered.reason,
        keeps_message_id=planned.keeps_message_id,
        message_id=_legible(mail.headers.first("message-id")),
        headers=tuple(changes[:in_header]),
        fields_removed=_missing(mail, left),
        fields_added=_missing(left, mail),
        parts=tuple(_parts(mail, planned, left)),
        difference=_difference(content, rendered.content, splices, changes),
        resigned_for=planned.resigned_for,
        heard=planned.consent.heard if planned.consent else (),
        unread=planned.consent.unread if planned.consent else (),
    )


def _change(content: bytes, edit: Splice) -> Change:
    return Change(
        offset=edit.start,
        removed=_shown(content[edit.start : edit.end]),
        added=_shown(edit.new),
        octets_removed=edit.end - edit.start,
        octets_added=len(edit.new),
    )


def _shown(octets: bytes, most: int = MAX_SHOWN) -> str:
    text = octets[: most + 1].decode("utf-8", "backslashreplace")
    return text if len(text) <= most else text[:most] + "…"


def _missing(mail: Mail, other: Mail) -> tuple[str, ...]:
    """Return the header fields of *mail* that *other* does not have, as they stand there."""
    there = Counter(_fields(other))
    missing: list[str] = []
    for field in _fields(mail):
        there[field] -= 1
        if there[field] < 0:
            missing.append(_shown(field, MAX_FIELD))
    return tuple(missing)


def _fields(mail: Mail) -> list[bytes]:
    return _FIELD.findall(mail.content[mail.headers_start : mail.body_start])


def _difference(content: bytes, result: bytes, splices: list[Splice], changes: list[Change]) -> Difference:
    removed = sum(change.octets_removed for change in changes)
    return Difference(
        size_before=len(content),
        size_after=len(result),
        kept=len(content) - removed,
        removed=removed,
        added=sum(change.octets_added for change in changes),
        changes=tuple(changes),
        reversible=splice(content, splices) == result,
    )


def _legible(value: str | None) -> str | None:
    """Return a header's text without the surrogates that stand for octets of no charset."""
    return None if value is None else value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _parts(mail: Mail, planned: Plan, left: Mail) -> Iterator[PartReport]:
    opened = {leaf.part.path: leaf for leaf in planned.leaves}
    numbers = {link.url: link.number for link in planned.links}
    parts_left = {part.path: part for part in left.leaves}
    for part in mail.leaves:
        leaf = opened.get(part.path)
        unseen = part_reason(part, text_links=False)
        reason = leaf.reason if leaf else planned.reason or unseen
        links = tuple(_links(leaf, numbers)) if leaf else ()
        pixel = part.path == planned.pixel_part
        tracked = pixel or any(link.tracked for link in links)
        after = parts_left.get(part.path, part)
        yield PartReport(
            path=part.path,
            content_type=part.kind,
            charset=_legible(part.parameters.get("charset")),
            encoding=_legible(part.encoding) or "7bit",
            size=part.body_end - part.body_start,
            size_after=after.body_end - after.body_start,
            tracked=tracked,
            pixel=pixel,
            folded=bool(leaf and leaf.long),
            reason=None if tracked else reason or planned.reason or Reason.NOTHING_TO_TRACK,
            links=links,
            gmail=None if unseen or part.kind != "text/html" else _clip(mail, part, left, after),
        )


def _clip(mail: Mail, part: Part, left: Mail, after: Part) -> Clip | None:
    came, leaves = open_leaf(mail.content, part, None).body, open_leaf(left.content, after, None).body
    if came is None or leaves is None:
        return None
    return Clip(before=len(came), after=len(leaves), clipped=len(leaves) > GMAIL_LIMIT)


def _links(leaf: Leaf, numbers: dict[str, int]) -> Iterator[LinkReport]:
    labels = _labels(leaf)
    for at, found in enumerate(leaf.found):
        yield LinkReport(
            written=found.value.decode("utf-8", "backslashreplace"),
            element=found.element,
            label=labels[at] if labels and found.element in {"a", "svg:a"} else "",
            tracked=found.url is not None,
            url=found.url,
            number=None if found.url is None else numbers.get(found.url),
            reason=found.reason,
            warning="tracked_already" if found.url and _TRACKED_ALREADY.search(found.url) else None,
        )


def _labels(leaf: Leaf) -> list[str]:
    """Return what a reader sees of each link, in the order of the part; nothing for what is not html."""
    if leaf.body is None or not leaf.found or leaf.part.kind != "text/html":
        return []
    charset = charset_of(leaf.part.parameters.get("charset"))
    codec = "utf-8" if leaf.codec else charset.codec if charset else "ascii"
    page = leaf.body.decode(leaf.codec).encode("utf-8", "replace") if leaf.codec else leaf.body
    # Loading it takes longer than all the rest.
    from bs4 import BeautifulSoup

    def read(at: int) -> str:
        markup = page[at : end_of(page, at)].decode(codec, "replace")
        soup = BeautifulSoup(f"<a>{markup}</a>", "html.parser")
        for line in soup.find_all(["br", "p", "div", "td"]):
            line.insert_before(" ")
        return " ".join(soup.get_text().split())[:MAX_LABEL]

    return [read(href.tag_end) for href in html.scan(page).hrefs]
