"""What the relay writes and reads of a message, as values: what `ledger.mail` takes and gives."""

from datetime import date, datetime

import msgspec

from ledger.ids import MessageId, MessageKey
from ledger.throttles import Throttle


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient's message as it is correlated: everything an event will ever be matched by."""

    key: MessageKey
    accepted_at: datetime
    campaign: int | None
    submission: int | None
    generation: int
    #: Octets of the submitted content.
    size: int
    links: int
    injected: bool
    reason: str | None
    source: str
    campaign_reason: str | None
    sender: str
    recipient: str
    recipient_index: bytes
    message_id: MessageId
    original_message_id: str | None
    body_digest: bytes
    #: The digest of the original Message-ID, as an alias; null where there was none.
    alias: bytes | None
    #: The 16 octets of the recipient's UUID in listmonk; null for everybody else's mail.
    subscriber: bytes | None = None


class Correlated(msgspec.Struct, frozen=True, kw_only=True):
    """A correlation that is committed."""

    id: int
    #: Whose turn with the row it is: ours.
    turn: int
    suppressed: bool
    #: An operator holds its campaign.
    paused: bool
    #: How fast its campaign's mail may leave; None for mail without a campaign.
    throttle: Throttle | None = None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A message that the ledger has already, under a key that came again."""

    id: int
    submission: int | None
    body_digest: bytes
    accepted_at: datetime
    status: str
    worker: int | None
    turn: int
    #: Its bytes are stored here, so a 250 was or may be given.
    stored: bool
    #: The process that holds it is alive.
    worked_on: bool
    paused: bool
    throttle: Throttle | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """A result: sent or failed, in the upstream's words, or refused when the mailer was told to come again."""

    id: int
    turn: int
    status: str
    upstream: str | None
    reply: str | None
    #: The digest of the upstream's own id, as an alias.
    alias: bytes | None
    #: Makes the failure event one, however often it is settled.
    dedupe: bytes
    #: The final dot was out without an answer.
    doubtful: bool = False


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is stored to be sent later."""

    id: int
    turn: int
    #: Its final dot is out: its task keeps it.
    dotted: bool
    #: Seconds until it is due.
    wait: float
    reply: str | None
    #: The upstream may have it: its final dot was out, and the connection was lost.
    doubtful: bool
    #: It was offered to an upstream, which counts as a try.
    tried: bool


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A queued message that this process has claimed."""

    id: int
    turn: int
    key: MessageKey
    generation: int
    accepted_at: datetime
    recipient: str
    message_id: MessageId
    attempts: int
    #: How often it was tried again although the upstream may have it.
    doubts: int
    body_day: date
    body: int
    throttle: Throttle | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a claim."""

    due: list[Due]
    #: How many were due and are not to be sent now: their campaign is held, or their recipient suppressed.
    passed: int


class Reopened(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is ours to try again."""

    turn: int
    #: An earlier try's final dot was out without an answer.
    doubtful: bool
    #: How often that was so, all in all.
    doubts: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A message that the ledger says we have in hand."""

    id: int
    turn: int
    status: str


class NotOursError(Exception):
    """The message was taken over while we had it: its final dot must not leave from here."""


class StoredBody(msgspec.Struct, frozen=True, kw_only=True):
    """A submission as it was stored: its envelope, what it was rendered with, its content."""

    envelope: bytes
    profile: bytes
    content: bytes
