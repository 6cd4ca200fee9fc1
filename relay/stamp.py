"""Derive what identifies a submission's messages: campaign, origin, keys, Message-ID, Received line.

Pure: equal submission, equal result. What is decided here is what every later event is matched by.
"""

import hashlib
import re
from collections.abc import Iterable
from email.utils import format_datetime
from functools import lru_cache

import msgspec

import injector
from injector.dkim import Signer
from ledger import ids
from ledger.ids import MessageId, MessageKey
from providers.webhook import Provider
from relay.campaign import Campaign, campaign_of, subscriber_of
from relay.inject import Profile, UrlMinter
from relay.intake import Submission
from relay.settings import RelaySettings
from relay.sign import sign_again
from relay.vendor import vendor_fields

_DOMAIN = re.compile(
    r"\A(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z"
)
# RFC 5322 3.6.4 in the form that every provider and log can carry.
_MESSAGE_ID = re.compile(r"\A<?([!-;=?A-~]{1,200}@[!-;=?A-~]{1,200})>?\Z")

# Fields that travel adds: they differ between two submissions of one message.
_TRACE_FIELDS = (b"received:", b"return-path:", b"delivered-to:", b"x-received:")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A submission, read once: everything that its recipients' messages share."""

    submission: Submission
    plan: injector.Plan
    profile: Profile
    campaign: Campaign
    #: What makes a submission the same: its Message-ID, or a digest of its content.
    origin: bytes
    #: The Message-ID that it came with, normalised; none where there was none or it is not one.
    original_id: MessageId | None
    #: The message leaves with the Message-ID that it came with.
    keeps_id: bool
    body_digest: bytes
    #: Right side of the stamped Message-ID.
    domain: str
    #: Seconds in which the same submission is a repeat.
    window: int
    #: Who the recipient is in listmonk, as 16 octets; none for other mail, and for what is read from the queue.
    subscriber: bytes | None = None


class Addressed(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message: its key under a generation."""

    recipient: str
    key: MessageKey
    generation: int
    message_id: MessageId
    #: How often it was tried again although the upstream may have it.
    doubts: int = 0


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a submission beside its content, so that a retry sends what the first try would have sent."""

    submission: Submission
    campaign: Campaign


def draft_of(
    submission: Submission,
    *,
    settings: RelaySettings,
    ams_headers: Iterable[str],
    profile: Profile,
    campaign: Campaign | None = None,
    recalls: bool = True,
) -> Draft:
    """Read *submission* once; a stored one comes with the *campaign* that was read then.

    Without *recalls* nothing is taken from earlier mails, nor remembered for later ones: for what is read a second
    time, and in a thread of its own.
    """
    mail = injector.parse(submission.content)
    subscriber: bytes | None = None
    if campaign is None:
        campaign = campaign_of(mail.headers, names=settings.campaign_headers, ams_names=tuple(ams_headers))
        subscriber = subscriber_of(mail.headers, campaign)
    plan = injector.plan(mail, profile.options, campaign=campaign.id is not None, recalls=recalls)
    original_id = _original_id(mail.headers.first("Message-ID"))
    return Draft(
        submission=submission,
        plan=plan,
        profile=profile,
        campaign=campaign,
        origin=ids.origin_of_id(original_id)
        if original_id is not None
        else ids.origin_of_content(_content_digest(submission.content, mail.body_start)),
        original_id=original_id,
        keeps_id=plan.keeps_message_id or (settings.stamp == "missing" and original_id is not None),
        body_digest=hashlib.sha256(memoryview(submission.content)[mail.body_start :]).digest()[:16],
        domain=settings.message_id_domain
        or _domain_of(mail.headers.first("From"))
        or _domain_of(submission.sender)
        or profile.hostname,
        window=settings.repeat_window[0 if original_id is not None else 1],
        subscriber=subscriber,
    )


def address(draft: Draft, recipient: str, *, identity_key: bytes, generation: int) -> Addressed:
    """Return *recipient*'s message of this generation."""
    key = ids.message_key(
        identity_key,
        source=draft.submission.source,
        campaign=draft.campaign.id,
        recipient=recipient,
        origin=draft.origin,
        generation=generation,
    )
    kept = draft.original_id if draft.keeps_id else None
    return Addressed(
        recipient=recipient,
        key=key,
        generation=generation,
        message_id=kept or ids.normalise_message_id(f"{key}@{draft.domain}"),
    )


def stored(draft: Draft) -> bytes:
    """Return what is kept of *draft* beside its content."""
    submission = msgspec.structs.replace(draft.submission, content=b"", recipients=())
    return msgspec.msgpack.encode(Stored(submission=submission, campaign=draft.campaign))


def unstored(envelope: bytes, content: bytes) -> tuple[Submission, Campaign]:
    """Return what `stored` kept, with its content."""
    kept = msgspec.msgpack.decode(envelope, type=Stored)
    return msgspec.structs.replace(kept.submission, content=content), kept.campaign


def unique_recipients(recipients: Iterable[str]) -> list[str]:
    """Return *recipients* in order, those that normalise to one address once: they are one message."""
    first: dict[str, str] = {}
    for recipient in recipients:
        first.setdefault(ids.normalise_address(recipient), recipient)
    return list(first.values())


def render(
    draft: Draft, addressed: Addressed, minter: UrlMinter, signer: Signer, provider: Provider | None = None
) -> injector.Rendered:
    """Return the bytes that leave for one recipient through *provider*'s upstream; the same every time."""
    eight_bit = provider is None or provider.eight_bit
    rendered = draft.plan.render(minter, header_edits(draft, addressed, provider), eight_bit=eight_bit)
    if not (domains := draft.plan.resigned_for):
        return rendered
    content = sign_again(rendered.content, domains, signer=signer, pinned=draft.profile.dkim_keys)
    return msgspec.structs.replace(rendered, content=content)


def header_edits(draft: Draft, addressed: Addressed, provider: Provider | None = None) -> injector.HeaderEdits:
    """Return what changes in the header of one recipient's message."""
    # Read from the id itself: settings may have changed since it was given.
    keeps_id = draft.plan.keeps_message_id or addressed.message_id == draft.original_id
    strip = draft.profile.strip
    vendor = {} if provider is None else vendor_fields(draft.plan, provider, addressed.key, strip=strip)
    return injector.HeaderEdits(
        prepend=(received_line(draft, addressed), *vendor.values()),
        set_message_id=None if keeps_id else f"<{_message_id(addressed, provider)}>".encode("ascii", "replace"),
        remove=("Bcc", "Resent-Bcc", *strip, *vendor),
    )


def _message_id(addressed: Addressed, provider: Provider | None) -> str:
    """Return the Message-ID that leaves: a number behind the key, where *provider* may have seen the key's own."""
    if not addressed.doubts or provider is None or not provider.wants_fresh_ids:
        return addressed.message_id
    # Whoever reads it back finds the key all the same: no row of its own has to be committed first.
    key, _, domain = addressed.message_id.partition("@")
    return f"{key}.{addressed.doubts + 1}@{domain}"


def received_line(draft: Draft, addressed: Addressed) -> bytes:
    """Return our Received field (RFC 5321 4.4), without the recipient: a Bcc must not be read there."""
    submission = draft.submission
    # RFC 5321 4.1.3: an IPv6 address says so.
    host = f"IPv6:{submission.client}" if ":" in submission.client else submission.client
    client = f" ([{host}])" if host else ""
    return (
        f"Received: from {submission.helo or 'unknown'}{client}\r\n"
        f"\tby {draft.profile.hostname} with {submission.protocol} id {addressed.key};\r\n"
        f"\t{_date(submission.received_at.replace(microsecond=0))}\r\n"
    ).encode("ascii", "replace")


# Whole seconds are written, always in UTC, and many messages come in each.
_date = lru_cache(maxsize=64)(format_datetime)


def _original_id(value: str | None) -> MessageId | None:
    match = _MESSAGE_ID.match(value.strip()) if value is not None else None
    return None if match is None else ids.normalise_message_id(match[1])


def _content_digest(content: bytes, body_start: int) -> bytes:
    digest = hashlib.sha256()
    kept = True
    for line in content[:body_start].splitlines(keepends=True):
        if line[:1] not in {b" ", b"\t"}:
            kept = not line[:16].lower().startswith(_TRACE_FIELDS)
        if kept:
            digest.update(line)
    digest.update(memoryview(content)[body_start:])
    return digest.digest()


def _domain_of(value: str | None) -> str | None:
    """Return the domain, in A-labels, of a From value or an envelope sender; none when there is no plain one."""
    if not value:
        return None
    address = value[value.rfind("<") + 1 :].partition(">")[0] if "<" in value else value
    domain = ids.normalise_address(address.strip()).rpartition("@")[2]
    return domain if "@" in address and len(domain) <= 200 and _DOMAIN.match(domain) else None
