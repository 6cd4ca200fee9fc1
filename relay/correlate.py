"""Commit each message's correlation before a byte leaves, and tell a repeat from a new message.

A repeat is the same source, campaign, recipient and origin with the same body inside the window. Everything else under
the same identity is a new message with a key of its own: a deliberate re-send is never swallowed.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Protocol, assert_never

import msgspec

from ledger import ids
from ledger.ids import MessageKey
from ledger.mail import Correlated, Known, NewMessage
from relay import stamp
from relay.stamp import Addressed, Draft

# Each deliberate re-send of one identity takes the next generation; nobody re-sends this often in good faith.
MAX_GENERATIONS = 1000

# How often a message that another task has in flight is looked at again, in seconds.
_LOOK_AGAIN = 0.2


class Correlations(Protocol):
    """Where correlations are committed: `ledger.mail.MailLedger`."""

    @property
    def process(self) -> int:
        """Who we are in the ledger."""

    async def campaign(self, source: str, campaign_id: str, ams_mailing: int | None) -> int:
        """Return the row of a campaign."""

    async def correlate(self, message: NewMessage) -> Correlated | None:
        """Commit a correlation; none when its key exists."""

    async def find(self, keys: Sequence[MessageKey]) -> dict[MessageKey, Known]:
        """Return what is known of messages with these keys."""

    async def reopen(self, known: Known) -> bool:
        """Take a message to try it again."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Correlated, and ours to forward."""

    addressed: Addressed
    id: int
    #: An operator holds its campaign: store it instead.
    paused: bool


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Decided already: a repeat of what was sent or is queued, or suppressed."""

    addressed: Addressed


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """A repeat of what another task still has in flight after all the waiting."""

    addressed: Addressed


Standing = Ready | Done | Busy


class Repeat(Enum):
    """What a message under a known key is."""

    NEW = auto()
    DONE = auto()
    IN_FLIGHT = auto()
    AGAIN = auto()


def judge(known: Known, *, body_digest: bytes, window: int, now: datetime, process: int) -> Repeat:
    """Tell what a submission is, whose key the ledger knows.

    What *process*, ourselves, is said to have in flight is an orphan: whoever asks holds its identity in hand.
    """
    if known.body_digest != body_digest or (now - known.accepted_at).total_seconds() > window:
        return Repeat.NEW
    if known.status in {"sent", "queued", "suppressed"} or known.stored:
        return Repeat.DONE
    if known.status in {"failed", "refused"} or known.worker == process or not known.worked_on:
        return Repeat.AGAIN
    return Repeat.IN_FLIGHT


async def correlate(
    draft: Draft,
    recipient: str,
    *,
    ledger: Correlations,
    identity_key: bytes,
    campaign: int | None,
    submission: int | None,
    patience: float,
) -> Standing:
    """Commit *recipient*'s correlation and return where its message stands.

    The caller has the identity in hand (`relay.hands`). *patience* is how many seconds to wait for another process that
    has the same message in flight.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience
    generation = 0
    while generation < MAX_GENERATIONS:
        addressed = stamp.address(draft, recipient, identity_key=identity_key, generation=generation)
        message = _new_message(draft, addressed, identity_key=identity_key, campaign=campaign, submission=submission)
        correlated = await ledger.correlate(message)
        if correlated is not None:
            if correlated.suppressed:
                return Done(addressed=addressed)
            return Ready(addressed=addressed, id=correlated.id, paused=correlated.paused)
        known = (await ledger.find([addressed.key]))[addressed.key]
        repeat = judge(
            known,
            body_digest=draft.body_digest,
            window=draft.window,
            now=draft.submission.received_at,
            process=ledger.process,
        )
        match repeat:
            case Repeat.NEW:
                generation += 1
            case Repeat.DONE:
                return Done(addressed=addressed)
            case Repeat.AGAIN:
                if await ledger.reopen(known):
                    return Ready(addressed=addressed, id=known.id, paused=known.paused)
            case Repeat.IN_FLIGHT:
                if clock() > deadline:
                    return Busy(addressed=addressed)
                await asyncio.sleep(_LOOK_AGAIN)
            case _:
                assert_never(repeat)
    raise RuntimeError("one identity was submitted as a new message a thousand times")


def _new_message(
    draft: Draft, addressed: Addressed, *, identity_key: bytes, campaign: int | None, submission: int | None
) -> NewMessage:
    plan = draft.plan
    return NewMessage(
        key=addressed.key,
        accepted_at=draft.submission.received_at,
        campaign=campaign,
        submission=submission,
        generation=addressed.generation,
        size=len(draft.submission.content),
        links=sum(link.count for link in plan.links),
        injected=plan.reason is None,
        reason=plan.reason,
        source=draft.submission.source,
        campaign_reason=draft.campaign.reason,
        sender=draft.submission.sender,
        recipient=addressed.recipient,
        recipient_index=ids.recipient_index(identity_key, addressed.recipient),
        message_id=addressed.message_id,
        original_message_id=draft.original_id,
        body_digest=draft.body_digest,
        alias=None if draft.original_id is None else ids.alias_digest("message-id", "", draft.original_id),
    )
