"""Record a batch of events in one transaction: dedupe, attribution, events, engagement, counts, suppression, outboxes.

Recording the same event twice leaves one, so whoever reads the stream may fail and start over at any point. An event
that cannot be stored, or names no message of ours, never holds up its neighbours: it is parked with its reason, as it
came, and tried again when one of its ids leads to a message.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import structlog

from courier.attribute import Found, Missing, attribute
from courier.engagement import NOTHING, OWN, sum_up, tally_new
from courier.outbox import OPEN, ams_url
from courier.recorded import PARKED, Outcome, count
from courier.rows import counted, digest, event_row, moved_counts, newly_suppressed, parked_row
from courier.rules import Rules, labelled
from courier.settings import AmsSettings, CourierSettings
from courier.sighting import Reader, Sighting
from courier.sinks import Rule, seen, tellings
from courier.spans import spans
from ledger import attribution, engagements, outbox, parked, sinks
from ledger.attribution import Correlated
from ledger.engagements import StoredHit
from ledger.events import EventType
from ledger.numbers import note_numbers
from ledger.parked import ParkedEvent
from ledger.store import REFUSED_VALUE, Ledger, Session

log = structlog.get_logger()

UNDECODABLE = "undecodable"
REFUSED = "refused_value"

_MATCH_LIMIT = 1000
# So many transactions at once, where each has so many events at least.
_LANES, _LEAST_OF_A_LANE = 2, 100

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
        self._lanes = [asyncio.Lock() for _ in range(_LANES)]

    async def record(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Record events, given as entry id and bytes; when this returns each is stored or parked, durably.

        The next may be recorded meanwhile.

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
        lanes = (self._pass(at, lane) for at, lane in enumerate(_lanes(list(sightings.values()))))
        for outcome in await asyncio.gather(*lanes, return_exceptions=True):
            if outcome is not None:
                raise outcome
        # After the events: what is counted as recorded is. Should we end in between, all of it comes again.
        await note_numbers(self._ledger, spans(one.hit for one in sightings.values() if one.hit is not None))

    async def _pass(self, at: int, sightings: Sequence[Sighting]) -> None:
        # Batches that are recorded at the same time follow each other in each lane: a message's rows are in one lane,
        # so nobody waits for what another holds.
        async with self._lanes[at]:
            await self._store(sightings, _remember, self._park_refused)

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
        known: list[tuple[Sighting, Found]] = []
        left: list[ParkedEvent] = []
        for sighting in fresh:
            outcome = attribute(sighting, led)
            if isinstance(outcome, Missing):
                ledto = sum(found.get(one.named, 0) for one in sighting.names)
                left.append(parked_row(sighting, outcome, found=ledto, at=ours[sighting.id]))
            else:
                known.append((self._rules.placed(sighting, accepted_at=outcome.message.accepted_at), outcome))
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
        # What there is to tell of those of which nothing was told: nearly always they are still alone.
        told = tally_new(counted(known))
        first = {
            message: sum_up(told[message], injected=one.injected) for message, one in touched.items() if not one.engaged
        }
        # Held before the events are written and counted: two couriers with one message go one after the other.
        begun = await engagements.begin_engagements(session, first)
        before = await engagements.lock_engagements(session, touched.keys() - begun)
        await engagements.add_events(session, [event_row(sighting, found) for sighting, found in known])
        if before:
            told |= await engagements.tally(session, before)
        written = before | {message: first[message] for message in begun}
        before |= dict.fromkeys(begun, NOTHING)
        earlier: list[StoredHit] = []
        if revised := await self._rules.revise(session, known, told):
            told |= await engagements.tally(session, {hit.message for hit in revised})
            ids = {sighting.id for sighting, _ in known}
            earlier = [hit for hit in revised if hit.dedupe not in ids]
            known = labelled(known, revised)
        anew = {hit.message for hit in revised}
        after = {
            message: first[message]
            if message in begun and message not in anew
            else sum_up(told[message], injected=one.injected)
            for message, one in touched.items()
        }
        if differing := {message: row for message, row in after.items() if row != written[message]}:
            await engagements.write_engagements(session, differing)
        if deltas := moved_counts(before, after, touched):
            await engagements.add_deltas(session, deltas)
        if suppressed := newly_suppressed(known):
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
            ParkedEvent(dedupe=digest(raw), source=OWN, reason=UNDECODABLE, names=(), payload=raw) for raw in raws
        ]
        async with self._ledger.transaction() as session:
            await parked.park(session, events)
        PARKED.labels(OWN, UNDECODABLE).inc(len(raws))

    async def _park_refused(self, sighting: Sighting) -> None:
        async with self._ledger.transaction() as session:
            await parked.park(session, [parked_row(sighting, REFUSED)])

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
    noticed = {one.named for sighting in sightings if sighting.notice is not None for one in sighting.names}
    found = await attribution.count(session, noticed) if noticed else {}
    keys: set[bytes] = set()
    aliases: set[bytes] = set()
    for sighting in sightings:
        for lookup in sighting.names:
            (keys if lookup.own else aliases).add(lookup.named)
    own = await attribution.by_keys(session, keys)
    led = {key: [message] for key, message in own.items()}
    if aliases:
        recipients = {sighting.recipient for sighting in sightings if sighting.recipient}
        led |= await attribution.by_aliases(session, aliases, recipients)
    return led, found
