"""Record a batch of events in one transaction: dedupe, attribution, events, engagement, counts, suppression, outboxes.

Recording the same event twice leaves one, so whoever reads the stream may fail and start over at any point. An event
that cannot be stored, or names no message of ours, never holds up its neighbours: it is parked with its reason, as it
came, and tried again when one of its ids leads to a message.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import structlog

from courier.attribute import Found, Missing, attribute
from courier.engagement import OWN, Event, changes, sum_up, tallies
from courier.outbox import OPEN, ams_url
from courier.recorded import PARKED, Outcome, count
from courier.rules import Rules, labelled
from courier.settings import AmsSettings, CourierSettings
from courier.sighting import Reader, Sighting
from courier.sinks import Rule, seen, tellings
from courier.spans import spans
from ledger import attribution, engagements, outbox, parked, sinks
from ledger.attribution import Correlated
from ledger.engagements import Engagement, NewEvent, StoredHit, Suppressed
from ledger.events import EventType
from ledger.numbers import note_numbers
from ledger.parked import ParkedEvent
from ledger.store import REFUSED_VALUE, Ledger, Session
from providers.notice import Bounce

log = structlog.get_logger()

UNDECODABLE = "undecodable"
REFUSED = "refused_value"

_MATCH_LIMIT = 1000
# So many transactions at once, where each has so many events at least.
_LANES, _LEAST_OF_A_LANE = 2, 100
_DEDUPE_BYTES = 16
_WORDS = 2000

#: Makes events ours to record; returns those that are, by dedupe id, with when they were parked if they were.
_Claim = Callable[[Session, Collection[bytes]], Awaitable[Mapping[bytes, datetime | None]]]


class Recorder:
    """Writes hits and notices into the ledger. Without *settings* it goes by their defaults; *rules* are of sinks."""

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        *,
        ams: AmsSettings,
        settings: CourierSettings | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._ams = ams
        self._rules = Rules(settings or CourierSettings())
        self._sinks = tuple(rules)

    async def record(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Record events, given as entry id and bytes; when this returns each is stored or parked, durably.

        Raises what the driver raises while PostgreSQL is away: nothing, or a part, is stored then; record it again.
        """
        sightings: dict[bytes, Sighting] = {}
        unreadable: list[bytes] = []
        for _, raw in entries:
            sighting = self._reader.read(raw)
            if sighting is None:
                unreadable.append(raw)
            else:
                sightings.setdefault(sighting.id, sighting)
        if unreadable:
            await self._park_unreadable(unreadable)
        # One writes while PostgreSQL works for the other.
        lanes = (self._store(lane, _remember, self._park_refused) for lane in _lanes(list(sightings.values())))
        for outcome in await asyncio.gather(*lanes, return_exceptions=True):
            if outcome is not None:
                raise outcome
        # After the events: what is counted as recorded is. Should we end in between, all of it comes again.
        await note_numbers(self._ledger, spans(one.hit for one in sightings.values() if one.hit is not None))

    async def match_parked(self, *, since: datetime | None = None) -> int:
        """Record the parked events whose message has appeared, of those parked *since*; return how many were tried."""
        tried = 0
        while True:
            rows = await parked.matchable(self._ledger, list(Missing), _MATCH_LIMIT, since=since)
            sightings: list[Sighting] = []
            for dedupe, payload, _ in rows:
                sighting = self._reader.read(payload)
                if sighting is None or sighting.id != dedupe:
                    await parked.repark(self._ledger, dedupe, UNDECODABLE)
                else:
                    sightings.append(sighting)
            await self._store(sightings, parked.unpark, self._repark_refused)
            tried += len(rows)
            if len(rows) < _MATCH_LIMIT:
                return tried

    async def _store(
        self, sightings: Sequence[Sighting], claim: _Claim, refuse: Callable[[Sighting], Awaitable[None]]
    ) -> None:
        """Write *sightings* in one transaction; halve them until one that PostgreSQL refuses stands alone."""
        if not sightings:
            return
        try:
            async with self._ledger.transaction() as session:
                outcome = await self._write(session, sightings, claim)
        except REFUSED_VALUE as error:
            if len(sightings) == 1:
                log.warning("event_parked", reason=REFUSED, source=sightings[0].source, error=type(error).__name__)
                await refuse(sightings[0])
                PARKED.labels(sightings[0].source, REFUSED).inc()
                return
            middle = len(sightings) // 2
            await self._store(sightings[:middle], claim, refuse)
            await self._store(sightings[middle:], claim, refuse)
            return
        count(outcome)

    async def _write(self, session: Session, sightings: Sequence[Sighting], claim: _Claim) -> Outcome:
        ours = await claim(session, [sighting.id for sighting in sightings])
        fresh = [sighting for sighting in sightings if sighting.id in ours]
        if not fresh:
            return Outcome()
        led, found = await _resolve(session, fresh)
        attributed = [(sighting, attribute(sighting, led)) for sighting in fresh]
        known = [
            (self._rules.placed(sighting, accepted_at=outcome.message.accepted_at), outcome)
            for sighting, outcome in attributed
            if isinstance(outcome, Found)
        ]
        left = [
            _parked(
                sighting, outcome, found=sum(found.get(one.named, 0) for one in sighting.names), at=ours[sighting.id]
            )
            for sighting, outcome in attributed
            if not isinstance(outcome, Found)
        ]
        if left:
            await parked.park(session, left)
        if not known:
            return Outcome(parked=left)
        recorded, revised = await self._engage(session, known)
        return Outcome(recorded=recorded, parked=left, revised=revised)

    async def _engage(
        self, session: Session, known: Sequence[tuple[Sighting, Found]]
    ) -> tuple[Sequence[tuple[Sighting, Found]], Sequence[StoredHit]]:
        """Write what *known* tells; return it as it is judged now, and what was told otherwise before."""
        touched = {found.message.id: found.message for _, found in known}
        # Held before the events are written and counted: two couriers with one message go one after the other.
        begun = await engagements.begin_engagements(session, touched)
        before = await engagements.lock_engagements(session, touched.keys() - begun)
        await engagements.add_events(session, [_event(sighting, found) for sighting, found in known])
        told = await engagements.tally(session, before) if before else {}
        # Of these there is nothing to be read that we have not just written.
        told |= {message: tallies(events) for message, events in _by_message(known, begun).items()}
        before |= dict.fromkeys(begun, Engagement())
        earlier: list[StoredHit] = []
        if revised := await self._rules.revise(session, known, told):
            told |= await engagements.tally(session, {hit.message for hit in revised})
            ids = {sighting.id for sighting, _ in known}
            earlier = [hit for hit in revised if hit.dedupe not in ids]
            known = labelled(known, revised)
        after = {message: sum_up(told[message], injected=touched[message].injected) for message in touched}
        moved = {message: row for message, row in after.items() if row != before[message]}
        if moved:
            await engagements.write_engagements(session, moved)
        if deltas := _deltas(before, moved, touched):
            await engagements.add_deltas(session, deltas)
        if suppressed := _suppressed(known):
            await engagements.suppress(session, suppressed)
        if learnt := {(digest, found.message.id) for sighting, found in known for digest in sighting.learns}:
            await attribution.learn(session, sorted(learnt))
        if items := self._items(known):
            await outbox.queue(session, items)
        if withdrawn := self._withdrawn(earlier, touched):
            await outbox.withdraw(session, withdrawn)
        if self._sinks:
            await self._tell_sinks(session, known, earlier)
        return known, earlier

    def _items(self, known: Iterable[tuple[Sighting, Found]]) -> list[outbox.NewItem]:
        items: list[outbox.NewItem] = []
        for sighting, found in known:
            message = found.message
            # AMS counts by address, and there is none any more.
            if message.campaign is None or message.mailing is None or message.erased:
                continue
            url = ams_url(sighting, self._ams, injected=message.injected)
            if url is not None:
                items.append(
                    outbox.NewItem(mailing=message.mailing, campaign=message.campaign, message=message.id, url=url)
                )
        return items

    async def _tell_sinks(
        self, session: Session, known: Iterable[tuple[Sighting, Found]], revised: Iterable[StoredHit]
    ) -> None:
        """Queue for each sink what it hears of *known*; *revised* is a machine's now, of which some do not hear."""
        # Of somebody who was erased nobody hears.
        events = [seen(sighting, found) for sighting, found in known if not found.message.erased]
        if asked := tellings(self._sinks, events):
            await sinks.queue(session, asked)
        people_only = [rule.name for rule in self._sinks if not rule.machines]
        if people_only and (withdrawn := [(hit.message, hit.dedupe) for hit in revised]):
            await sinks.withdraw(session, people_only, withdrawn)

    def _withdrawn(self, revised: Iterable[StoredHit], touched: Mapping[int, Correlated]) -> list[outbox.Withdrawn]:
        """Return what AMS is not to hear of any more, where it hears of no machines."""
        if not self._ams.url or self._ams.machines == "include":
            return []
        return [
            outbox.Withdrawn(campaign=message.campaign, message=message.id, url=url, recorded_at=hit.recorded_at)
            for hit in revised
            if (message := touched[hit.message]).campaign is not None
            # What a provider saw of a message with our own links was never queued.
            and (hit.source == OWN or not message.injected)
            and (url := OPEN if hit.type is EventType.OPENED else hit.url)
        ]

    async def _park_unreadable(self, raws: Sequence[bytes]) -> None:
        log.warning("events_parked", reason=UNDECODABLE, events=len(raws))
        events = [
            ParkedEvent(dedupe=_digest(raw), source=OWN, reason=UNDECODABLE, names=(), payload=raw) for raw in raws
        ]
        async with self._ledger.transaction() as session:
            await parked.park(session, events)
        PARKED.labels(OWN, UNDECODABLE).inc(len(raws))

    async def _park_refused(self, sighting: Sighting) -> None:
        async with self._ledger.transaction() as session:
            await parked.park(session, [_parked(sighting, REFUSED)])

    async def _repark_refused(self, sighting: Sighting) -> None:
        await parked.repark(self._ledger, sighting.id, REFUSED)


def _lanes(sightings: Sequence[Sighting]) -> list[Sequence[Sighting]]:
    """Return *sightings* in parts that are written at once; those that name the same message are in the same one."""
    if len(sightings) < _LEAST_OF_A_LANE * _LANES:
        return [sightings]
    lanes: list[list[Sighting]] = [[] for _ in range(_LANES)]
    for sighting in sightings:
        lanes[sighting.names[0].named[-1] % _LANES if sighting.names else 0].append(sighting)
    return [lane for lane in lanes if lane]


async def _remember(session: Session, dedupes: Collection[bytes]) -> dict[bytes, datetime | None]:
    return dict.fromkeys(await engagements.remember(session, dedupes))


async def _resolve(
    session: Session, sightings: Sequence[Sighting]
) -> tuple[dict[bytes, list[Correlated]], dict[bytes, int]]:
    """Return the messages to which each id leads, and to how many each led just before: for those of notices."""
    lookups = {lookup for sighting in sightings for lookup in sighting.names}
    noticed = {one.named for sighting in sightings if sighting.notice is not None for one in sighting.names}
    found = await attribution.count(session, noticed) if noticed else {}
    own = await attribution.by_keys(session, {lookup.named for lookup in lookups if lookup.own})
    led = {key: [message] for key, message in own.items()}
    aliases = {lookup.named for lookup in lookups if not lookup.own}
    if aliases:
        recipients = {sighting.recipient for sighting in sightings if sighting.recipient}
        led |= await attribution.by_aliases(session, aliases, recipients)
    return led, found


def _by_message(known: Iterable[tuple[Sighting, Found]], messages: Collection[int]) -> dict[int, list[Event]]:
    events: dict[int, list[Event]] = {message: [] for message in messages}
    for sighting, found in known:
        if (mine := events.get(found.message.id)) is not None:
            mine.append(
                Event(
                    dedupe=sighting.id,
                    type=sighting.type,
                    source=sighting.source,
                    machine=sighting.machine,
                    at=sighting.at,
                )
            )
    return events


def _event(sighting: Sighting, found: Found) -> NewEvent:
    judgement, notice, message = sighting.judgement, sighting.notice, found.message
    # Of somebody who was erased nothing is gathered anew: the link may hold the address itself.
    erased = message.erased
    return NewEvent(
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
        step=None if notice is None else found.step,
        bounce=None if notice is None else notice.bounce,
        smtp_code=None if notice is None else _storable(notice.smtp_code),
        enhanced_code=None if notice is None else _storable(notice.enhanced_code),
        description=None if notice is None or erased else _storable(notice.description[:_WORDS]),
        raw=None if notice is None or erased else notice.raw or None,
    )


def _storable(text: str) -> str | None:
    # PostgreSQL's text has no NUL; these are evidence only, so losing one is better than parking the event.
    return text.replace("\0", "") or None


def _deltas(
    before: Mapping[int, Engagement], moved: Mapping[int, Engagement], touched: Mapping[int, Correlated]
) -> Counter[tuple[int, str]]:
    deltas: Counter[tuple[int, str]] = Counter()
    for message, row in moved.items():
        campaign = touched[message].campaign
        if campaign is not None:
            for counter, amount in changes(before[message], row).items():
                deltas[campaign, counter] += amount
    return Counter({name: amount for name, amount in deltas.items() if amount})


def _suppressed(known: Iterable[tuple[Sighting, Found]]) -> list[Suppressed]:
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
        if _ends_campaigns(sighting, found.message) and _is_of_its_recipient(sighting, found.message)
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


def _parked(sighting: Sighting, reason: str, *, found: int = 0, at: datetime | None = None) -> ParkedEvent:
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


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_DEDUPE_BYTES]
