"""Plan once what changes in a message, then render it for each recipient by splices over the bytes that came in.

Mail is never lost because it could not be tracked: a doubt, an error or a result that does not undo to the input
makes the message leave with its header edits alone.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal, Protocol

import msgspec

from injector import links
from injector.consent import Consent, consent_of
from injector.encodings import BY_PLACE, Edit, differs_only_there, splice
from injector.find import Judgement, scan_leaf, scan_leaves
from injector.headers import (
    LIST_UNSUBSCRIBE,
    HeaderEdits,
    header_splices,
    sealed_splices,
    unsubscribe_lines,
)
from injector.leaf import Leaf, RewriteError, open_leaf, place_leaf, render_leaf, seven_bit
from injector.marks import Values
from injector.message import Mail
from injector.piece import splices_of
from injector.policy import (
    DKIM_SIGNATURE,
    INLINE_PGP,
    SEAL_FIELDS,
    is_automatic,
    mail_reason,
    part_reason,
    resigned_for,
    sealed,
)
from injector.recall import recall
from injector.skip import Reason

_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?"
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
    #: A link whose visible text is an address itself: wrap it like any other, or leave it alone.
    visible_urls: Literal["track", "leave"] = "track"
    #: A message that somebody signed: keep it as it is, or strip the signature and treat it like any other; `resign`
    #: does that, for a new signature in the old one's place, where every one names a domain whose key is held.
    dkim: Literal["keep", "strip", "resign"] = "keep"
    #: The domains whose keys are held, in lower case.
    dkim_domains: tuple[str, ...] = ()


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
    #: The domains whose dead signatures are taken off: whoever renders signs for each of them, last of all.
    resigned_for: tuple[str, ...] = ()
    #: Whether List-Unsubscribe is added.
    unsubscribe: bool = False
    #: What the message itself and the settings say about tracking; None: it was not read so far.
    consent: Consent | None = None
    #: Names of fields that go because what they ask for is done here.
    granted: tuple[str, ...] = ()
    #: Every part that was looked at, in the order of the message.
    leaves: tuple[Leaf, ...] = ()
    #: The path of the part that carries the pixel, if one does.
    pixel_part: str | None = None

    def render(self, minter: Minter, edits: HeaderEdits, *, eight_bit: bool = True) -> Rendered:
        """Return the message for one recipient; never raises, and the same input gives the same bytes.

        Without *eight_bit* every part that may be touched leaves in ASCII, as quoted-printable if need be.
        """
        with suppress(Exception):
            return self._render(minter, edits, eight_bit=eight_bit)
        # Nothing will be done here, so no request for it may be taken away.
        for offers in (self.unsubscribe, False):
            untracked = msgspec.structs.replace(self, granted=(), unsubscribe=offers)
            with suppress(Exception):
                return self._untouched(untracked.header_splices(minter, edits))
        at = self.mail.headers_start
        content = self.mail.content
        return Rendered(
            content=b"".join((content[:at], *edits.prepend, content[at:])),
            injected=False,
            reason=Reason.REWRITE_FAILED,
            links=0,
        )

    def header_splices(self, minter: Minter, edits: HeaderEdits) -> list[Edit]:
        """Return what changes in the header."""
        extra: tuple[bytes, ...] = ()
        if self.unsubscribe:
            extra = unsubscribe_lines(self.mail.headers, minter.unsubscribe(), public_url=self.options.public_url)
        return self._plain_splices(edits, extra)

    def body_splices(self, minter: Minter, *, eight_bit: bool = True) -> tuple[list[Edit], int]:
        """Return what changes in the parts, and how many hrefs are wrapped."""
        values = self._values(minter)
        splices: list[Edit] = []
        wrapped = 0
        for leaf in self.leaves:
            more, count = self._carried(leaf, values, eight_bit=eight_bit)
            splices += more
            wrapped += count
        return splices, wrapped

    def _carried(self, leaf: Leaf, values: Values, *, eight_bit: bool) -> tuple[Sequence[Edit], int]:
        if leaf.by_lines and (eight_bit or not leaf.bare or leaf.raw.isascii()):
            carried = splices_of(leaf.pieces, leaf.numbers, values, leaf.part.body_start)
            if carried is not None:
                return carried
        whole = self._whole(leaf) if leaf.by_lines else leaf
        whole = whole if eight_bit else seven_bit(whole)
        return render_leaf(whole, values)

    def _whole(self, leaf: Leaf) -> Leaf:
        """Return a page that was recognised by its pieces as if it had not been."""
        opened = open_leaf(self.mail.content, leaf.part, None)
        if leaf.numbers and self.consent:
            judgement = _judgement(self.options, self.consent)
            opened = scan_leaf(opened, judgement, {link.url: link.number for link in self.links})
        return place_leaf(opened, pixel=leaf.part.path == self.pixel_part)

    def _render(self, minter: Minter, edits: HeaderEdits, *, eight_bit: bool = True) -> Rendered:
        body, wrapped = self.body_splices(minter, eight_bit=eight_bit)
        # A part's own header may be the message's: its Content-Transfer-Encoding stands among the other edits.
        splices = sorted([*self.header_splices(minter, edits), *body], key=BY_PLACE)
        content = _checked(self.mail.content, splices)
        injected = bool(wrapped) or self.pixel_part is not None
        reason = None if injected else self.reason or Reason.NOTHING_TO_TRACK
        return Rendered(content=content, injected=injected, reason=reason, links=wrapped)

    def _untouched(self, splices: list[Edit]) -> Rendered:
        return Rendered(
            content=_checked(self.mail.content, splices),
            injected=False,
            reason=Reason.REWRITE_FAILED,
            links=0,
        )

    def _plain_splices(self, edits: HeaderEdits, extra: tuple[bytes, ...]) -> list[Edit]:
        if self.keeps_message_id:
            return sealed_splices(self.mail, edits)
        strip = (*self.granted, *self._dead_fields())
        return header_splices(self.mail, edits, extra=extra, strip=strip)

    def _dead_fields(self) -> tuple[str, ...]:
        if self.options.dkim == "strip":
            return SEAL_FIELDS
        return (DKIM_SIGNATURE,) if self.resigned_for else ()

    def _values(self, minter: Minter) -> Values:
        urls: dict[int, bytes | None] = {}
        for link in self.links:
            url = minter.click(link.number, link.url)
            urls[link.number] = None if url is None else url.encode("ascii")
        pixel = None if self.pixel_part is None else minter.open().encode("ascii")
        # Ours hold nothing to escape; looking is cheaper than escaping.
        plain = not b"".join([url for url in (*urls.values(), pixel) if url is not None]).translate(None, _PLAIN)
        quoted = _quoted if plain else _escaped
        source = None if pixel is None else quoted(pixel)
        # The same recipient's pixel is there already when a message passes twice.
        if source is not None and any(_holds(leaf, source) for leaf in self.leaves if leaf.pixel_at >= 0):
            source = None
        attributes = {number: None if url is None else quoted(url) for number, url in urls.items()}
        return Values(source=source, urls=urls, attributes=attributes, plain=plain)


def plan(mail: Mail, options: Options, *, campaign: bool, recalls: bool = True) -> Plan:
    """Decide what changes in *mail*; *campaign*: it belongs to one, so it offers to unsubscribe. Never raises.

    Without *recalls* nothing is taken from earlier mails: the same is rendered, and the plan holds its parts decoded.
    """
    keeps = True
    resigned: tuple[str, ...] = ()
    with suppress(Exception):
        resigned = resigned_for(mail, options.dkim_domains) if options.dkim == "resign" else ()
        keeps = sealed(mail.headers) and options.dkim != "strip" and not resigned
        planned = _plan(mail, options, keeps=keeps, campaign=campaign, recalls=recalls)
        return msgspec.structs.replace(planned, resigned_for=resigned) if resigned else planned
    return Plan(
        mail=mail,
        options=options,
        reason=Reason.REWRITE_FAILED,
        keeps_message_id=keeps,
        resigned_for=resigned,
    )


def _plan(mail: Mail, options: Options, *, keeps: bool, campaign: bool, recalls: bool) -> Plan:
    consent = consent_of(mail.headers, opens=options.opens, clicks=options.clicks)
    judgement = _judgement(options, consent)
    opens = consent.tracked[0]
    tracking = opens or judgement.clicks or judgement.text_links
    reason = mail_reason(mail, keep_seals=keeps)
    leaves = [] if reason else _open_leaves(mail, options, judgement if tracking and recalls else None)
    # What is recognised holds none.
    if any(leaf.body and not leaf.pieces and INLINE_PGP in leaf.body for leaf in leaves):
        reason, leaves = Reason.INLINE_PGP, []
    numbers: dict[str, int] = {}
    if tracking:
        scanned = scan_leaves(leaves, judgement, numbers)
        if scanned is None:
            reason = Reason.LINK_LIMIT
        leaves = scanned or []
    pixel_part = _pixel_part(leaves) if opens else None
    leaves = [place_leaf(leaf, pixel=leaf.part.path == pixel_part) for leaf in leaves]
    found_links = _links(leaves, numbers)
    if not reason and pixel_part is None and not found_links:
        reason = _why_nothing(leaves, tracking=tracking)
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
        consent=consent,
        granted=() if reason else consent.granted,
        leaves=tuple(leaves),
        pixel_part=pixel_part,
    )


def _judgement(options: Options, consent: Consent) -> Judgement:
    _, clicks, text_links = consent.tracked
    leave_visible = options.visible_urls == "leave"
    return Judgement(clicks, text_links and options.text_links, options.skip, options.public_url, leave_visible)


def _open_leaves(mail: Mail, options: Options, judgement: Judgement | None) -> list[Leaf]:
    """Return every part, decoded or, where *judgement* is known, recognised."""
    leaves: list[Leaf] = []
    for part in mail.leaves:
        reason = part_reason(part, text_links=options.text_links)
        known = recall(part, mail.content, judgement) if judgement and not reason else None
        leaves.append(known or open_leaf(mail.content, part, reason))
    return leaves


def _pixel_part(leaves: list[Leaf]) -> str | None:
    """Return the path of the last html part of the first alternative, or of the message when it has none."""
    shown = [leaf.part for leaf in leaves if leaf.pixel_at >= 0]
    for part in shown:
        for kind, path in zip(part.enclosing, part.parents, strict=True):
            if kind == "multipart/alternative":
                return [other.path for other in shown if path in other.parents][-1]
    return shown[-1].path if shown else None


def _links(leaves: list[Leaf], numbers: dict[str, int]) -> tuple[Link, ...]:
    counts: dict[int, int] = {}
    paths: dict[int, tuple[str, ...]] = {}
    for leaf in leaves:
        path = (leaf.part.path,)
        for number in leaf.links():
            if number not in counts:
                counts[number], paths[number] = 1, path
                continue
            counts[number] += 1
            if path[0] != paths[number][-1]:
                paths[number] += path
    return tuple(
        [
            Link(number=number, url=url, parts=paths[number], count=counts[number])
            for url, number in numbers.items()
            if number in counts
        ]
    )


def _why_nothing(leaves: list[Leaf], *, tracking: bool) -> Reason:
    if not tracking:
        return Reason.TRACKING_OFF
    shown = [leaf for leaf in leaves if leaf.part.kind == "text/html"]
    # Where no page is found, one may be in the multipart that could not be opened.
    unopened = [leaf for leaf in leaves if leaf.part.kind.startswith("multipart/")]
    for leaf in shown or unopened:
        if leaf.reason:
            return leaf.reason
    return Reason.NOTHING_TO_TRACK if shown else Reason.NO_HTML


def _holds(leaf: Leaf, source: bytes) -> bool:
    """Tell whether *source*, in ASCII, stands in the leaf, in whatever charset that is."""
    wanted = source.decode("ascii").encode(leaf.codec) if leaf.codec else source
    return leaf.body is not None and wanted in leaf.body


def _quoted(url: bytes) -> bytes:
    return b'"%b"' % url


def _escaped(url: bytes) -> bytes:
    return links.attribute(url.decode("ascii"))


def _checked(content: bytes, splices: list[Edit]) -> bytes:
    result = splice(content, splices)
    if not differs_only_there(result, content, splices):
        raise RewriteError
    return result
