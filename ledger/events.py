"""The events of a message's life, as they travel from the tracker to the ledger.

A hit holds keys, never addresses: the stream and the journal may be read by whoever runs Redis or the disk. Beside hits
there are providers' notices (`providers.notice`), which name the recipient.
"""

from enum import StrEnum

import msgspec


class EventType(StrEnum):
    """What happened to a message; the words of the console API."""

    #: A provider took it from us, and handed it on; both say nothing of the recipient.
    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    FAILED = "failed"
    #: A provider would not send it.
    REJECTED = "rejected"
    COMPLAINED = "complained"
    OPENED = "opened"
    CLICKED = "clicked"
    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBED = "subscribed"
    #: Not sent, because its recipient wants no more.
    SUPPRESSED = "suppressed"
    #: A provider said something that we have no word for.
    UNKNOWN = "unknown"

    # That of an enum is written in Python, and every event is counted by its type many times.
    __hash__ = str.__hash__


class Hit(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One request to a tracked URL, as the tracker saw it.

    It is appended to the stream (and, while Redis is away, to the journal) as MessagePack; `id` makes the copy that
    a crash may leave in both places one event. New fields go to the end with a default: old entries must decode.
    """

    #: 16 random bytes, made once when the request arrives.
    id: bytes
    #: `opened`, `clicked` or `unsubscribed`.
    type: EventType
    #: The 16 bytes of the message key.
    key: bytes
    #: When the request arrived, in milliseconds since the epoch.
    at_ms: int
    #: The number of the link in its message, counted from 0; -1 where there is none.
    link: int = -1
    #: The link's destination exactly as it was answered; empty where there is none.
    url: str = ""
    #: The request's method: `GET`, `HEAD` or `POST`.
    method: str = "GET"
    #: The client's network, truncated to /24 or /48 before anything is written; empty when unknown.
    network: str = ""
    #: The client's User-Agent, cut at 512 characters, control characters removed.
    user_agent: str = ""
    #: What the request itself said of its purpose (`Sec-Purpose`, `Purpose`, `X-Moz`…), cut at 64 characters.
    purpose: str = ""
    #: Which start of which tracker numbered it, 8 bytes; empty where nobody did.
    writer: bytes = b""
    #: Its number there, from 1.
    number: int = 0
    #: Every number up to this one was in the stream before it, or is among those lost.
    settled: int = 0
    #: So many hits of its writer could be kept nowhere.
    lost: int = 0


#: Encodes and decodes a `Hit`; one pair for everybody, so that the format cannot drift.
encode_hit = msgspec.msgpack.Encoder().encode
decode_hit = msgspec.msgpack.Decoder(Hit).decode
