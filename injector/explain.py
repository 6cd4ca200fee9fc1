"""Say, without sending anything, what would become of a message: every part, every link, every header, and why.

The report is made from the same plan that the relay renders, so it cannot say anything but what would happen.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from bs4 import BeautifulSoup

from injector.encodings import Splice, splice
from injector.headers import HeaderEdits
from injector.leaf import Found, Leaf
from injector.message import Mail, parse
from injector.plan import Minter, Options, Plan, plan
from injector.policy import part_reason
from injector.skip import Reason

# Reading a label builds a tree, which costs far more than all the rest: no label is worth more than this.
MAX_LABEL_SOURCE: Final = 200_000
MAX_LABEL: Final = 60
MAX_SHOWN: Final = 100


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


class PartReport(msgspec.Struct, frozen=True, kw_only=True):
    """One part that has no parts of its own."""

    path: str
    content_type: str
    charset: str | None
    encoding: str
    #: Size in octets as sent.
    size: int
    tracked: bool
    pixel: bool
    #: It leaves as quoted-printable because of a line over 998 octets.
    folded: bool
    reason: str | None
    links: tuple[LinkReport, ...]


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
    parts: tuple[PartReport, ...]
    difference: Difference


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
    planned = plan(mail, options, campaign=campaign)
    minter = minter or SampleMinter(options.public_url)
    edits = edits or HeaderEdits()
    rendered = planned.render(minter, edits)
    if rendered.reason == Reason.REWRITE_FAILED:
        splices: list[Splice] = []
    else:
        splices = sorted(planned.header_splices(minter, edits) + planned.body_splices(minter)[0])
    changes = [_change(content, each) for each in splices if each.new or each.end > each.start]
    in_header = sum(1 for change in changes if change.offset < mail.body_start)
    return Report(
        injected=rendered.injected,
        reason=rendered.reason,
        keeps_message_id=planned.keeps_message_id,
        message_id=mail.headers.first("message-id"),
        headers=tuple(changes[:in_header]),
        parts=tuple(_parts(mail, planned)),
        difference=_difference(content, rendered.content, splices, changes),
    )


def _change(content: bytes, edit: Splice) -> Change:
    return Change(
        offset=edit.start,
        removed=_shown(content[edit.start : edit.end]),
        added=_shown(edit.new),
        octets_removed=edit.end - edit.start,
        octets_added=len(edit.new),
    )


def _shown(octets: bytes) -> str:
    text = octets[: MAX_SHOWN + 1].decode("utf-8", "backslashreplace")
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


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


def _parts(mail: Mail, planned: Plan) -> Iterator[PartReport]:
    opened = {leaf.part.path: leaf for leaf in planned.leaves}
    numbers = {link.url: link.number for link in planned.links}
    for part in mail.leaves:
        leaf = opened.get(part.path)
        reason = leaf.reason if leaf else planned.reason or part_reason(part, text_links=False)
        links = tuple(_links(leaf, numbers)) if leaf else ()
        pixel = part.path == planned.pixel_part
        tracked = pixel or any(link.tracked for link in links)
        yield PartReport(
            path=part.path,
            content_type=part.kind,
            charset=part.parameters.get("charset"),
            encoding=part.encoding or "7bit",
            size=part.body_end - part.body_start,
            tracked=tracked,
            pixel=pixel,
            folded=bool(leaf and leaf.long),
            reason=None if tracked else reason or planned.reason or Reason.NOTHING_TO_TRACK,
            links=links,
        )


def _links(leaf: Leaf, numbers: dict[str, int]) -> Iterator[LinkReport]:
    labels = _labels(leaf)
    for found in leaf.found:
        yield LinkReport(
            written=found.value.decode("utf-8", "backslashreplace"),
            element=found.element,
            label=_label(found, labels),
            tracked=found.url is not None,
            url=found.url,
            number=None if found.url is None else numbers.get(found.url),
            reason=found.reason,
        )


def _labels(leaf: Leaf) -> dict[str, list[str]]:
    """Return the texts of the anchors by their href as BeautifulSoup reads it, in the order of the part."""
    if leaf.body is None or leaf.part.kind != "text/html" or len(leaf.body) > MAX_LABEL_SOURCE:
        return {}
    soup = BeautifulSoup(leaf.body, "html.parser", from_encoding=leaf.codec or leaf.part.parameters.get("charset"))
    labels: dict[str, list[str]] = {}
    for anchor in soup.find_all(["a", "area"]):
        text = " ".join(anchor.get_text(" ").split())
        labels.setdefault(str(anchor.get("href", "")), []).append(text[:MAX_LABEL])
    return labels


def _label(found: Found, labels: dict[str, list[str]]) -> str:
    texts = labels.get(found.url or found.value.decode("utf-8", "replace"), [])
    return texts.pop(0) if texts and found.element in {"a", "area"} else ""


def render_text(report: Report) -> str:
    """Return *report* for a person to read."""
    verdict = "tracked" if report.injected else f"not tracked: {report.reason}"
    lines = [f"Message {report.message_id or 'without Message-ID'}: {verdict}"]
    if report.keeps_message_id:
        lines.append("  keeps its Message-ID: somebody signed it")
    lines.append("Header")
    lines += [f"  at {change.offset}: {_change_text(change)}" for change in report.headers] or ["  unchanged"]
    for part in report.parts:
        lines += _part_text(part)
    difference = report.difference
    lines.append(
        f"Octets: {difference.size_before} in, {difference.size_after} out; {difference.kept} kept, "
        f"{difference.removed} removed, {difference.added} added in {len(difference.changes)} places; "
        + ("undone, they give the input back" if difference.reversible else "sent without changes to the body")
    )
    return "\n".join(lines) + "\n"


def _part_text(part: PartReport) -> list[str]:
    verdict = "tracked" if part.tracked else f"not tracked: {part.reason}"
    extras = (", with the pixel" if part.pixel else "") + (", folded as quoted-printable" if part.folded else "")
    charset = f"; charset={part.charset}" if part.charset else ""
    lines = [f"Part {part.path} {part.content_type}{charset} ({part.encoding}, {part.size} octets): {verdict}{extras}"]
    for link in part.links:
        label = f" “{link.label}”" if link.label else ""
        if link.tracked:
            lines.append(f"  link {link.number} <{link.element}>{label} tracked: {link.url}")
        else:
            lines.append(f"  <{link.element}>{label} left alone, {link.reason}: {link.written}")
    return lines


def _change_text(change: Change) -> str:
    removed = f"- {change.removed!r}" if change.octets_removed else ""
    added = f"+ {change.added!r}" if change.octets_added else ""
    return " ".join(part for part in (removed, added) if part)
