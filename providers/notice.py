"""What a provider tells of one message, in one vocabulary for all of them.

It is a superset of django-anymail's `AnymailTrackingEvent`. A notice travels from the tracker to the courier as
MessagePack, and rests that way while nobody knows its message; unlike a hit it holds the recipient's address.
"""

from enum import StrEnum

import msgspec


class What(StrEnum):
    """What happened to the message."""

    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    FAILED = "failed"
    REJECTED = "rejected"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBED = "subscribed"
    OPENED = "opened"
    CLICKED = "clicked"
    #: Something that this version has no word for; kept with its raw text, and changes nothing.
    UNKNOWN = "unknown"


class Bounce(StrEnum):
    """Why mail came back. Only a hard one says that the address is dead."""

    HARD = "hard"
    SOFT = "soft"
    #: The receiver refused this message or its sender: the address may be well.
    BLOCK = "block"
    #: The provider did not try: its own list knows the address.
    SUPPRESSED = "suppressed"
    UNKNOWN = "unknown"


class Step(StrEnum):
    """By what a notice names its message; the order in which they are believed."""

    #: Our Message-ID, or the mailer's own where that was kept.
    MESSAGE_ID = "message_id"
    #: The id in the upstream's answer to the final dot.
    REPLY_ID = "reply_id"
    #: The message key that we put into a vendor's header, tag or metadata.
    TOKEN = "token"  # noqa: S105 - a word of the vocabulary
    #: The provider's own id, learnt from an earlier notice.
    PROVIDER_ID = "provider_id"
    #: An id of a whole batch, with the recipient.
    BATCH = "batch"


class Name(msgspec.Struct, frozen=True, array_like=True):
    """One id of the message in a notice."""

    step: Step
    value: str


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of one recipient's message. What the provider left out is empty. New fields need a default."""

    provider: str
    what: What
    #: What makes the copies of this event one: the provider's own event id, or what `docs/providers.md` names instead.
    dedupe: str
    #: When it happened, in milliseconds since the epoch; none: when it arrived.
    at_ms: int | None = None
    #: The address as the provider spells it.
    recipient: str = ""
    #: Every id that may name the message, in any order.
    names: tuple[Name, ...] = ()
    bounce: Bounce | None = None
    #: `550`, and `5.1.1`.
    smtp_code: str = ""
    enhanced_code: str = ""
    #: Why, in the provider's words or the receiving server's.
    description: str = ""
    #: Where a click went.
    url: str = ""
    user_agent: str = ""
    #: Of whoever opened or clicked; truncated to its network before it is stored.
    ip: str = ""
    #: The provider's own sign that a machine did it, in its word (`proxy_open`); empty: it said nothing.
    machine: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    #: The event as it came, in JSON.
    raw: bytes = b""


#: A notice as it travels and rests, and back. Hits are MessagePack arrays and notices maps, so their bytes tell.
encode_notice = msgspec.msgpack.Encoder().encode
decode_notice = msgspec.msgpack.Decoder(Notice).decode
