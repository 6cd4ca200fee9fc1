"""Plan once what changes in a message, then render it for each recipient by splices over the bytes that came in.

Mail is never lost because it could not be tracked: a doubt, an error or a result that does not undo to the input
makes the message leave with its header edits alone.
"""

from contextlib import suppress
from itertools import pairwise
from typing import Final, Literal, Protocol

import msgspec

from injector import links
from injector.encodings import Splice, splice, undo
from injector.find import Judgement, scan_leaves
from injector.headers import (
    LIST_UNSUBSCRIBE,
    HeaderEdits,
    header_splices,
    sealed_splices,
    unsubscribe_lines,
)
from injector.leaf import Leaf, RewriteError, Values, open_leaf, place_leaf, render_leaf
from injector.message import Mail
from injector.policy import INLINE_PGP, SEAL_FIELDS, is_automatic, mail_reason, part_reason, sealed
from injector.skip import Reason

# Out of the flow and one pixel wide: nothing moves, and no client treats it as hidden content.
_PIXEL_STYLE: Final = b"position:absolute;width:1px;height:1px;margin:0;padding:0;border:0"
_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?"
_TRACK_HEADER: Final = "x-outrider-track"
_NO_UNSUBSCRIBE: Final = frozenset({Reason.DKIM_SIGNED, Reason.REPORT, Reason.AUTO_SUBMITTED})


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is injected, and into which mail."""

    #: Base of every injected URL.
    public_url: str
    opens: bool = True
    clicks: bool = True
    unsubscribe: bool = True
    #: Wrap links in text/plain parts too.
    text_links: bool = False
    #: Globs of URLs that are never wrapped.
    skip: tuple[str, ...] = ("*amsweb.php*",)
    #: A message that somebody signed: keep it as it is, or strip the signature and treat it like any other.
    dkim: Literal["keep", "strip"] = "keep"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One destination of a message; all hrefs that mean the same URL share its number."""

    number: int
    url: str
    #: The paths of the parts it stands in.
    parts: tuple[str, ...]
    #: In how many places it stands.
    count: int


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message."""

    content: bytes
    #: A pixel or a wrapped link is in it.
    injected: bool
    #: Why nothing is in it.
    reason: str | None
    #: Number of wrapped hrefs.
    links: int


class Minter(Protocol):
    """Makes the URLs of one recipient's message; each is complete and in ASCII."""

    def open(self) -> str:
        """Return the address of the pixel."""

    def click(self, link: int, url: str) -> str | None:
        """Return the address that leads to *url*; None leaves the link as it is, because it would be too long."""

    def unsubscribe(self) -> str:
        """Return the address of the one-click unsubscribe."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in a message, for whichever recipient."""

    mail: Mail
    options: Options
    #: Why nothing is injected; None: something is.
    reason: str | None
    links: tuple[Link, ...] = ()
    #: True: the message keeps its own Message-ID, because somebody signed it.
    keeps_message_id: bool = False
    #: Whether List-Unsubscribe is added.
    unsubscribe: bool = False
    #: Every part that was looked at, in the order of the message.
    leaves: tuple[Leaf, ...] = ()
    #: The path of the part that carries the pixel, if one does.
    pixel_part: str | None = None

    def render(self, minter: Minter, edits: HeaderEdits) -> Rendered:
        """Return the message for one recipient; never raises, and the same input gives the same bytes."""
        with suppress(Exception):
            return self._render(minter, edits)
        with suppress(Exception):
            return self._untouched(self.header_splices(minter, edits))
        with suppress(Exception):
            return self._untouched(self._plain_splices(edits, ()))
        at = self.mail.headers_start
        content = self.mail.content
        return Rendered(
            content=b"".join((content[:at], *edits.prepend, content[at:])),
            injected=False,
            reason=Reason.REWRITE_FAILED,
            links=0,
        )

    def header_splices(self, minter: Minter, edits: HeaderEdits) -> list[Splice]:
        """Return what changes in the header."""
        extra: tuple[bytes, ...] = ()
        if self.unsubscribe:
            extra = unsubscribe_lines(self.mail.headers, minter.unsubscribe(), public_url=self.options.public_url)
        return self._plain_splices(edits, extra)

    def body_splices(self, minter: Minter) -> tuple[list[Splice], int]:
        """Return what changes in the parts, and how many hrefs are wrapped."""
        values = self._values(minter)
        splices: list[Splice] = []
        wrapped = 0
        for leaf in self.leaves:
            if leaf.marks or leaf.long:
                more, count = render_leaf(leaf, values)
                splices += more
                wrapped += count
        return splices, wrapped

    def _render(self, minter: Minter, edits: HeaderEdits) -> Rendered:
        body, wrapped = self.body_splices(minter)
        # A part's own header may be the message's: its Content-Transfer-Encoding stands among the other edits.
        splices = sorted(self.header_splices(minter, edits) + body, key=_place)
        content = _checked(self.mail.content, splices)
        injected = bool(wrapped) or self.pixel_part is not None
        reason = None if injected else self.reason or Reason.NOTHING_TO_TRACK
        return Rendered(content=content, injected=injected, reason=reason, links=wrapped)

    def _untouched(self, splices: list[Splice]) -> Rendered:
        return Rendered(
            content=_checked(self.mail.content, splices),
            injected=False,
            reason=Reason.REWRITE_FAILED,
            links=0,
        )

    def _plain_splices(self, edits: HeaderEdits, extra: tuple[bytes, ...]) -> list[Splice]:
        if self.keeps_message_id:
            return sealed_splices(self.mail, edits)
        strip = SEAL_FIELDS if self.options.dkim == "strip" else ()
        return header_splices(self.mail, edits, extra=extra, strip=strip)

    def _values(self, minter: Minter) -> Values:
        pixel: bytes | None = None
        if self.pixel_part is not None:
            source = _attribute(minter.open())
            # The same recipient's pixel is there already when a message passes twice.
            if not any(leaf.body and source in leaf.body for leaf in self.leaves if leaf.pixel_at >= 0):
                pixel = b'<img src=%s width="1" height="1" alt="" style="%s">' % (source, _PIXEL_STYLE)
        minted = {link.number: minter.click(link.number, link.url) for link in self.links}
        return Values(
            pixel=pixel,
            urls={number: None if url is None else url.encode("ascii") for number, url in minted.items()},
            attributes={number: None if url is None else _attribute(url) for number, url in minted.items()},
        )


def plan(mail: Mail, options: Options, *, campaign: bool) -> Plan:
    """Decide what changes in *mail*; *campaign*: it belongs to one, so it offers to unsubscribe. Never raises."""
    keeps = True
    with suppress(Exception):
        keeps = options.dkim == "keep" and sealed(mail.headers)
        return _plan(mail, options, keeps=keeps, campaign=campaign)
    return Plan(mail=mail, options=options, reason=Reason.REWRITE_FAILED, keeps_message_id=keeps)


def _plan(mail: Mail, options: Options, *, keeps: bool, campaign: bool) -> Plan:
    opens, clicks = _tracked(mail, options)
    reason = mail_reason(mail, keep_seals=options.dkim == "keep")
    leaves = [] if reason else _open_leaves(mail, options)
    if any(leaf.body and INLINE_PGP in leaf.body for leaf in leaves):
        reason, leaves = Reason.INLINE_PGP, []
    judgement = Judgement(clicks, options.text_links, options.skip, options.public_url, {})
    if opens or clicks:
        scanned = scan_leaves(leaves, judgement)
        if scanned is None:
            reason = Reason.LINK_LIMIT
        leaves = scanned or []
    pixel_part = _pixel_part(leaves) if opens else None
    leaves = [place_leaf(leaf, pixel=leaf.part.path == pixel_part) for leaf in leaves]
    found_links = _links(leaves, judgement.numbers)
    if not reason and pixel_part is None and not found_links:
        reason = _why_nothing(leaves, tracking=opens or clicks)
    return Plan(
        mail=mail,
        options=options,
        reason=reason,
        links=found_links,
        keeps_message_id=keeps,
        unsubscribe=campaign
        and options.unsubscribe
        and not keeps
        and reason not in _NO_UNSUBSCRIBE
        and not is_automatic(mail.headers)
        and not mail.headers.count(LIST_UNSUBSCRIBE),
        leaves=tuple(leaves),
        pixel_part=pixel_part,
    )


def _tracked(mail: Mail, options: Options) -> tuple[bool, bool]:
    match (mail.headers.first(_TRACK_HEADER) or "").lower():
        case "all":
            return True, True
        case "clicks":
            return False, True
        case "opens":
            return True, False
        case "none":
            return False, False
        case _:
            return options.opens, options.clicks


def _open_leaves(mail: Mail, options: Options) -> list[Leaf]:
    return [open_leaf(mail.content, part, part_reason(part, text_links=options.text_links)) for part in mail.leaves]


def _pixel_part(leaves: list[Leaf]) -> str | None:
    """Return the path of the last html part of the first alternative, or of the message when it has none."""
    shown = [leaf.part for leaf in leaves if leaf.pixel_at >= 0]
    for part in shown:
        for kind, path in zip(part.enclosing, part.parents, strict=True):
            if kind == "multipart/alternative":
                return [other.path for other in shown if path in other.parents][-1]
    return shown[-1].path if shown else None


def _links(leaves: list[Leaf], numbers: dict[str, int]) -> tuple[Link, ...]:
    parts: dict[int, dict[str, None]] = {}
    counts: dict[int, int] = {}
    for leaf in leaves:
        for mark in leaf.marks:
            if mark.link >= 0:
                parts.setdefault(mark.link, {})[leaf.part.path] = None
                counts[mark.link] = counts.get(mark.link, 0) + 1
    return tuple(
        Link(number=number, url=url, parts=tuple(parts[number]), count=counts[number])
        for url, number in numbers.items()
        if number in counts
    )


def _why_nothing(leaves: list[Leaf], *, tracking: bool) -> Reason:
    if not tracking:
        return Reason.TRACKING_OFF
    shown = [leaf for leaf in leaves if leaf.part.kind == "text/html"]
    for leaf in shown:
        if leaf.reason:
            return leaf.reason
    return Reason.NOTHING_TO_TRACK if shown else Reason.NO_HTML


def _attribute(url: str) -> bytes:
    # Ours hold nothing to escape; looking is cheaper than escaping.
    octets = url.encode("ascii")
    return links.attribute(url) if octets.translate(None, _PLAIN) else b'"' + octets + b'"'


def _place(edit: Splice) -> tuple[int, int]:
    return edit.start, edit.end


def _checked(content: bytes, splices: list[Splice]) -> bytes:
    result = splice(content, splices)
    if undo(result, content, splices) != content or any(
        before.end > after.start for before, after in pairwise(splices)
    ):
        raise RewriteError
    return result
