"""Decide who hears of an event beside AMS, what goes into a request, and what an answer leads to.

Pure: a plan yields the requests it wants made and is sent their answers; `courier.tell` makes them. The way of AMS
(`courier.outbox`) holds here too: an item is told, or waits, or is parked with the answer that refused it alone.
"""

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from courier.answer import NO_ANSWER, Accepted, Refused, Unanswered, worded
from courier.attribute import Found
from courier.engagement import OWN
from courier.outbox import Ending, Standing
from courier.outbox import turn as ams_turn
from courier.settings import ListmonkSettings, SinkSettings
from courier.sighting import Sighting
from injector.globs import matches_any
from ledger.events import EventType
from ledger.sinks import NewTelling, StoredEvent
from providers.notice import Bounce

#: The name of the sink that is listmonk.
LISTMONK = "listmonk"
#: Names that no webhook may have: what they would mean is taken.
TAKEN_NAMES = frozenset({"ams", LISTMONK})

#: Why an item of a sink that cannot tell a copy is parked: it may have been taken, and is not told twice unasked.
IN_DOUBT = "in doubt: "
STOPPED = IN_DOUBT + "we stopped before the answer came"

# What is wrong is what we sent; 413 has a meaning of its own. Every other 4xx is about us or the endpoint.
_ABOUT_CONTENT = frozenset({400, 413, 422})
_LATER = frozenset({408, 425, 429})
# The server behind a gateway may have taken it.
_UNSURE = frozenset({408, 504})
_LONGEST_WAIT = 86_400.0

# Refusals in a row, with nothing taken, after which they are about all items and not about each.
_PATIENCE = 5


class TooLarge(Refused, frozen=True, kw_only=True):
    """The body is larger than the receiver takes."""


class Later(Unanswered, frozen=True, kw_only=True):
    """The receiver cannot take it now; perhaps it said when."""

    seconds: float | None = None


class Closed(Unanswered, frozen=True, kw_only=True):
    """The receiver takes nothing from us: credentials, or the URL."""

    refusal: Refused


class Doubtful(Later, frozen=True, kw_only=True):
    """The request was out, and nothing says whether it was taken."""


Answer = Accepted | Refused | Unanswered


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """One item, ready for a request."""

    id: int
    #: What is told, in JSON.
    content: bytes
    #: When its event was recorded.
    at: datetime


#: What a plan asks for, a request with these, and how it ends.
Step = Sequence[Telling]
End = Ending[Telling]
Plan = Generator[Step, Answer, End]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Which events one sink hears of; what is empty does not narrow."""

    name: str
    events: frozenset[str] = frozenset()
    campaigns: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    machines: bool = True

    def kind(self, event: StoredEvent) -> str | None:
        """Return as what this sink hears of *event*; empty: it hears of each; none: it does not."""
        # History from elsewhere is no news.
        if event.teller.startswith(_IMPORTED):
            return None
        if self.name == LISTMONK:
            return bounce_kind(event.type, event.bounce) if event.subscribed else None
        if (self.events and event.type not in self.events) or (event.machine and not self.machines):
            return None
        # What a provider saw of a message with our own pixel and links we saw too, and it is told once.
        if event.injected and event.teller != OWN and event.type in _SEEN_BY_US:
            return None
        if self.sources and not matches_any(self.sources, event.source):
            return None
        if self.campaigns and (event.campaign_id is None or not matches_any(self.campaigns, event.campaign_id)):
            return None
        return ""


_IMPORTED = "import:"
_SEEN_BY_US = frozenset({EventType.OPENED, EventType.CLICKED})


def rules(sinks: Mapping[str, SinkSettings], listmonk: ListmonkSettings) -> tuple[Rule, ...]:
    """Return the rules of every sink that is configured."""
    named = [
        Rule(
            name=name,
            events=frozenset(sink.events),
            campaigns=sink.campaigns,
            sources=sink.sources,
            machines=sink.machines == "include",
        )
        for name, sink in sorted(sinks.items())
    ]
    return (*named, *([Rule(name=LISTMONK)] if listmonk.url else []))


def bounce_kind(what: str, bounce: str | None) -> str | None:
    """Return what listmonk calls an event: `hard`, `soft`, `complaint`; none for what is no bounce.

    Only a bounce that is known to be hard says that the address is dead, and only that ends a subscriber at once.
    """
    if what == EventType.COMPLAINED:
        return "complaint"
    bounced = what == EventType.BOUNCED or (what in {EventType.FAILED, EventType.REJECTED} and bounce is not None)
    return None if not bounced else "hard" if bounce == Bounce.HARD else "soft"


def seen(sighting: Sighting, found: Found) -> StoredEvent:
    """Return what decides who hears of *sighting*."""
    message, notice = found.message, sighting.notice
    return StoredEvent(
        message=message.id,
        event=sighting.id,
        recorded_at=None,
        type=sighting.type,
        teller=sighting.source,
        machine=sighting.machine,
        bounce=None if notice is None else notice.bounce,
        injected=message.injected,
        source=message.source,
        campaign_id=message.campaign_id,
        subscribed=message.subscribed,
    )


def tellings(wanted: Sequence[Rule], events: Sequence[StoredEvent]) -> list[NewTelling]:
    """Return who is to hear of *events*."""
    return [
        NewTelling(sink=rule.name, message=event.message, event=event.event, kind=kind, recorded_at=event.recorded_at)
        for event in events
        for rule in wanted
        if (kind := rule.kind(event)) is not None
    ]


def fill(items: Sequence[Telling], *, max_batch: int, max_bytes: int) -> Sequence[Telling]:
    """Return the items at the head of *items* that fit into one request: always one, never more than both limits."""
    room = max_bytes
    for count, item in enumerate(items[:max_batch]):
        room -= len(item.content) + 1
        if room < 0 and count:
            return items[:count]
    return items[:max_batch]


def read_status(status: int, text: str, retry_after: str | None, now: datetime) -> Answer:
    """Return what an HTTP answer means; *text* is the beginning of its body, *now* an aware time."""
    if 200 <= status <= 299:
        return Accepted()
    text = text or phrase(status)
    if status in _ABOUT_CONTENT:
        return (TooLarge if status == 413 else Refused)(code=status, message=text)
    reason = f"HTTP {status}"
    if status in _LATER or status >= 500:
        seconds = _seconds(retry_after, now)
        return (Doubtful if status in _UNSURE else Later)(reason=reason, seconds=seconds)
    return Closed(reason=reason, refusal=Refused(code=status, message=text))


def turn(batch: Sequence[Telling], standing: Standing, *, secret: str = "") -> Plan:
    """Plan a turn of a sink that takes batches: AMS's own way, but that any status proves that somebody is there.

    A sink that is closed to us is held at once. An item that is too large alone is parked; a batch that is too large
    ends the turn, and the next one is to be smaller.
    """
    plan = ams_turn(batch, standing, secret=secret)
    try:
        step = next(plan)
        while True:
            if isinstance(step, str):
                step = plan.send(Accepted())
                continue
            answer = yield step
            if isinstance(answer, Closed):
                return _closed(answer, [], secret)
            if isinstance(answer, TooLarge):
                parked = ((step[0], worded(answer, secret=secret)),) if len(step) == 1 else ()
                return Ending(parked=parked)
            step = plan.send(answer)
    except StopIteration as stop:
        ending: End = stop.value
        return ending


def singly(batch: Sequence[Telling], standing: Standing, *, secret: str = "", once: bool) -> Plan:
    """Plan a turn of a sink that takes one item at a time.

    What is refused is parked once something else was taken; when nothing is, the sink is held, and its next turn begins
    with another item. Told *once*, because the sink cannot tell a copy, what may have been taken is parked, in doubt.
    """
    first = standing.failures % len(batch) if standing.held is not None else 0
    suspects: list[tuple[Telling, str]] = []
    vouched = False
    for item in (*batch[first:], *batch[:first]):
        answer = yield [item]
        if isinstance(answer, Accepted):
            vouched = True
            continue
        if isinstance(answer, Refused):
            suspects.append((item, worded(answer, secret=secret)))
            if not vouched and (standing.held is not None or len(suspects) >= _PATIENCE):
                break
            continue
        sure = suspects if vouched else []
        if isinstance(answer, Closed):
            return _closed(answer, sure, secret)
        doubtful = [(item, IN_DOUBT + answer.reason)] if once and isinstance(answer, Doubtful) else []
        return Ending(
            parked=(*sure, *doubtful), error=NO_ANSWER + answer.reason, held=None if vouched else standing.held
        )
    if suspects and not vouched:
        return Ending(error=suspects[-1][1], held=suspects[-1][1])
    return Ending(parked=tuple(suspects))


def _closed(answer: Closed, parked: Sequence[tuple[Telling, str]], secret: str) -> End:
    reason = worded(answer.refusal, secret=secret)
    return Ending(parked=tuple(parked), error=reason, held=reason)


def phrase(status: int) -> str:
    """Return what a status means in HTTP's own words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no such status"


def _seconds(retry_after: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After names (RFC 9110 10.2.3), a day at most; none where it names none."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _LONGEST_WAIT)
    try:
        seconds = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)
