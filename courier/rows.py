"""Make what the recorder writes of a batch: events, counts, suppressions, parked events. Pure.

Of somebody who was erased nothing is gathered anew.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import msgspec

from courier.attribute import Found
from courier.engagement import all_changes
from courier.sighting import Sighting
from ledger.attribution import Correlated
from ledger.engagements import Engagement, NewEvent, Suppressed
from ledger.events import EventType
from ledger.parked import ParkedEvent
from providers.notice import Bounce

_DEDUPE_BYTES = 16
_WORDS = 2000
#: What may end campaigns for a recipient; of nearly all events nothing more is asked.
_ENDINGS = frozenset(
    {
        EventType.UNSUBSCRIBED,
        EventType.COMPLAINED,
        EventType.BOUNCED,
        EventType.REJECTED,
        EventType.FAILED,
    }
)


def counted(known: Iterable[tuple[Sighting, Found]]) -> Iterator[tuple[int, EventType, str, bool, datetime]]:
    """Yield what is to be counted of each message of which nothing was told, as far as anybody saw."""
    for sighting, found in known:
        message = found.message
        if not message.engaged:
            yield message.id, sighting.type, sighting.source, sighting.machine, sighting.at


def event_row(sighting: Sighting, found: Found) -> NewEvent:
    """Return an event as it is stored."""
    judgement, notice, message = sighting.judgement, sighting.notice, found.message
    # Of somebody who was erased nothing is gathered anew: the link may hold the address itself.
    erased = message.erased
    event = NewEvent(
        message=message.id,
        occurred_at=sighting.at,
        type=sighting.type,
        source=sighting.source,
        link=sighting.link,
        machine=sighting.machine,
        verdict=None if judgement is None else judgement.verdict,
        reason=None if judgement is None else judgement.evidence,
        url=None if erased else sighting.url or None,
        network=None if erased else _storable(sighting.network),
        user_agent=None if erased else _storable(sighting.user_agent),
        dedupe=sighting.id,
    )
    if notice is None:
        return event
    return msgspec.structs.replace(
        event,
        step=found.step,
        bounce=notice.bounce,
        smtp_code=_storable(notice.smtp_code),
        enhanced_code=_storable(notice.enhanced_code),
        description=None if erased else _storable(notice.description[:_WORDS]),
        raw=None if erased else notice.raw or None,
    )


def _storable(text: str) -> str | None:
    # PostgreSQL's text has no NUL; these are evidence only, so losing one is better than parking the event.
    return text.replace("\0", "") or None


def moved_counts(
    before: Mapping[int, Engagement], after: Mapping[int, Engagement], touched: Mapping[int, Correlated]
) -> dict[tuple[int, str], int]:
    """Return by how much each counter of each campaign moves, by the campaign's row and the counter's name."""
    pairs: dict[int, list[tuple[Engagement, Engagement]]] = {}
    for message, row in after.items():
        campaign = touched[message].campaign
        if campaign is not None:
            pairs.setdefault(campaign, []).append((before[message], row))
    return {
        (campaign, counter): amount
        for campaign, theirs in pairs.items()
        for counter, amount in all_changes(theirs).items()
    }


def newly_suppressed(known: Iterable[tuple[Sighting, Found]]) -> list[Suppressed]:
    """Return whom campaign mail no longer reaches; mail without a campaign is exempt from unsubscribes."""
    return [
        Suppressed(
            source=found.message.source,
            recipient_index=found.message.recipient_index,
            reason=sighting.type,
            message=found.message.id,
            at=sighting.at,
        )
        for sighting, found in known
        if sighting.type in _ENDINGS
        and _ends_campaigns(sighting, found.message)
        and _is_of_its_recipient(sighting, found.message)
    ]


def _is_of_its_recipient(sighting: Sighting, message: Correlated) -> bool:
    # The upstream may copy mail to somebody else under our key: what the copy does is nobody's wish but theirs.
    return bool(message.recipient_index) and sighting.recipient in {b"", message.recipient_index}


def _ends_campaigns(sighting: Sighting, message: Correlated) -> bool:
    match sighting.type:
        case EventType.UNSUBSCRIBED:
            return message.campaign is not None
        case EventType.COMPLAINED:
            return True
        case EventType.BOUNCED | EventType.REJECTED | EventType.FAILED:
            # The address is dead, whatever mail it was that found out.
            return sighting.notice is not None and sighting.notice.bounce is Bounce.HARD
        case _:
            return False


def parked_row(sighting: Sighting, reason: str, *, found: int = 0, at: datetime | None = None) -> ParkedEvent:
    """Return an event as it is set aside for *reason*; its names led to *found* messages, *at* was the first time."""
    return ParkedEvent(
        dedupe=sighting.id,
        source=sighting.source,
        reason=reason,
        names=tuple(dict.fromkeys(lookup.named for lookup in sighting.names)),
        payload=sighting.raw,
        found=found,
        recipient_index=sighting.recipient or None,
        parked_at=at,
    )


def digest(raw: bytes) -> bytes:
    """Return what makes the copies one of something that has no id which could be read."""
    return hashlib.sha256(raw).digest()[:_DEDUPE_BYTES]
