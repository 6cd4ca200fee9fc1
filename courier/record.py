"""Record a batch of hits in one transaction: dedupe, events, engagement, counts, suppression, outbox.

Recording the same hit twice leaves one event, so whoever reads the stream may fail and start over at any point. A hit
that cannot be stored never holds up its neighbours: it is parked with its reason, as it came.
"""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import prometheus_client
import structlog

from courier.classify import Judgement, judge
from courier.engagement import changes, sum_up
from courier.outbox import ams_url
from courier.settings import AmsSettings
from ledger import engagements, outbox
from ledger.engagements import Correlated, Engagement, NewEvent, ParkedEvent, Suppressed
from ledger.events import EventType, Hit, decode_hit
from ledger.ids import KEY_BYTES
from ledger.store import REFUSED_VALUE, Ledger, Session

log = structlog.get_logger()

RECORDED = prometheus_client.Counter(
    "outrider_recorded_events", "Events recorded, by what happened and who did it.", ["type", "verdict"]
)
PARKED = prometheus_client.Counter("outrider_parked_events", "Events parked, by the reason.", ["reason"])

#: The source of events that our own tracker saw.
TRACKER = "tracker"

UNKNOWN_KEY = "unknown_key"
UNDECODABLE = "undecodable"
REFUSED = "refused_value"

_MATCH_LIMIT = 1000
_DEDUPE_BYTES = 16
_HITS = frozenset({EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Until the year 9999, the last that Python counts.
_LATEST_MS = 253_402_300_799_999

#: Makes events ours to record, and returns the dedupe ids of those that are: nobody has, or had parked, the rest.
_Claim = Callable[[Session, Collection[bytes]], Awaitable[set[bytes]]]


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """A hit that could be read, as it came, and what we make of it."""

    hit: Hit
    raw: bytes
    judgement: Judgement

    @property
    def at(self) -> datetime:
        """When it happened."""
        return _EPOCH + timedelta(milliseconds=self.hit.at_ms)


class Recorder:
    """Writes hits into the ledger."""

    def __init__(self, ledger: Ledger, *, ams: AmsSettings) -> None:
        self._ledger = ledger
        self._ams = ams

    async def record(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Record hits, given as entry id and bytes; when this returns each is stored or parked, durably.

        Raises what the driver raises while PostgreSQL is away: nothing, or a part, is stored then; record it again.
        """
        sightings: dict[bytes, Sighting] = {}
        unreadable: list[bytes] = []
        for _, raw in entries:
            sighting = sight(raw)
            if sighting is None:
                unreadable.append(raw)
            else:
                sightings.setdefault(sighting.hit.id, sighting)
        if unreadable:
            await self._park_unreadable(unreadable)
        await self._store(list(sightings.values()), engagements.remember, self._park_refused)

    async def match_parked(self) -> int:
        """Record the parked hits whose message has appeared since, and return how many were looked at."""
        looked_at = 0
        while True:
            rows = await engagements.matchable(self._ledger, TRACKER, UNKNOWN_KEY, _MATCH_LIMIT)
            sightings: list[Sighting] = []
            for dedupe, payload in rows:
                sighting = sight(payload)
                if sighting is None:
                    await engagements.repark(self._ledger, dedupe, UNDECODABLE)
                else:
                    sightings.append(sighting)
            await self._store(sightings, engagements.unpark, self._repark_refused)
            looked_at += len(rows)
            if len(rows) < _MATCH_LIMIT:
                return looked_at

    async def _store(
        self, sightings: Sequence[Sighting], claim: _Claim, refuse: Callable[[Sighting], Awaitable[None]]
    ) -> None:
        """Write *sightings* in one transaction; halve them until one that PostgreSQL refuses stands alone."""
        if not sightings:
            return
        try:
            async with self._ledger.transaction() as session:
                recorded, parked = await self._write(session, sightings, claim)
        except REFUSED_VALUE as error:
            if len(sightings) == 1:
                log.warning("hit_parked", reason=REFUSED, error=type(error).__name__)
                await refuse(sightings[0])
                PARKED.labels(REFUSED).inc()
                return
            middle = len(sightings) // 2
            await self._store(sightings[:middle], claim, refuse)
            await self._store(sightings[middle:], claim, refuse)
            return
        for (kind, verdict), amount in recorded.items():
            RECORDED.labels(kind, verdict).inc(amount)
        if parked:
            PARKED.labels(UNKNOWN_KEY).inc(parked)

    async def _write(
        self, session: Session, sightings: Sequence[Sighting], claim: _Claim
    ) -> tuple[Counter[tuple[str, str]], int]:
        """Write what is new of *sightings*; return what was recorded, by type and verdict, and how many were parked."""
        ours = await claim(session, [sighting.hit.id for sighting in sightings])
        fresh = [sighting for sighting in sightings if sighting.hit.id in ours]
        if not fresh:
            return Counter(), 0
        messages = await engagements.resolve(session, {sighting.hit.key for sighting in fresh})
        known = [sighting for sighting in fresh if sighting.hit.key in messages]
        unknown = [sighting for sighting in fresh if sighting.hit.key not in messages]
        if unknown:
            await engagements.park(session, [_parked(sighting, UNKNOWN_KEY) for sighting in unknown])
        if known:
            await self._engage(session, known, messages)
        return Counter((sighting.hit.type, sighting.judgement.verdict) for sighting in known), len(unknown)

    async def _engage(
        self, session: Session, sightings: Sequence[Sighting], messages: Mapping[bytes, Correlated]
    ) -> None:
        touched = {messages[sighting.hit.key].id: messages[sighting.hit.key] for sighting in sightings}
        # Held before the events are written and counted: two couriers with one message go one after the other.
        before = await engagements.hold_engagements(session, touched)
        await engagements.add_events(session, [_event(sighting, messages) for sighting in sightings])
        told = await engagements.tally(session, touched)
        after = {message: sum_up(told[message]) for message in touched}
        moved = {message: row for message, row in after.items() if row != before[message]}
        if moved:
            await engagements.write_engagements(session, moved)
        if deltas := _deltas(before, moved, touched):
            await engagements.add_deltas(session, deltas)
        if suppressed := _suppressed(sightings, messages):
            await engagements.suppress(session, suppressed)
        if items := self._items(sightings, messages):
            await outbox.queue(session, items)

    def _items(self, sightings: Iterable[Sighting], messages: Mapping[bytes, Correlated]) -> list[outbox.NewItem]:
        items: list[outbox.NewItem] = []
        for sighting in sightings:
            message = messages[sighting.hit.key]
            # AMS counts by address, and there is none any more.
            if message.campaign is None or message.mailing is None or message.erased:
                continue
            url = ams_url(sighting.hit, sighting.judgement, self._ams)
            if url is not None:
                items.append(
                    outbox.NewItem(mailing=message.mailing, campaign=message.campaign, message=message.id, url=url)
                )
        return items

    async def _park_unreadable(self, raws: Sequence[bytes]) -> None:
        log.warning("hits_parked", reason=UNDECODABLE, hits=len(raws))
        events = [
            ParkedEvent(dedupe=_digest(raw), source=TRACKER, reason=UNDECODABLE, named=b"", payload=raw) for raw in raws
        ]
        async with self._ledger.transaction() as session:
            await engagements.park(session, events)
        PARKED.labels(UNDECODABLE).inc(len(raws))

    async def _park_refused(self, sighting: Sighting) -> None:
        async with self._ledger.transaction() as session:
            await engagements.park(session, [_parked(sighting, REFUSED)])

    async def _repark_refused(self, sighting: Sighting) -> None:
        await engagements.repark(self._ledger, sighting.hit.id, REFUSED)


def sight(raw: bytes) -> Sighting | None:
    """Read a hit and judge it; none when these bytes are no hit that we could attribute or date."""
    try:
        hit = decode_hit(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(hit.id) != _DEDUPE_BYTES or len(hit.key) != KEY_BYTES or hit.type not in _HITS:
        return None
    if not 0 <= hit.at_ms <= _LATEST_MS:
        return None
    return Sighting(hit=hit, raw=raw, judgement=judge(hit))


def _event(sighting: Sighting, messages: Mapping[bytes, Correlated]) -> NewEvent:
    hit, judgement = sighting.hit, sighting.judgement
    message = messages[hit.key]
    return NewEvent(
        message=message.id,
        occurred_at=sighting.at,
        type=hit.type,
        source=TRACKER,
        link=hit.link if hit.link >= 0 else None,
        machine=judgement.machine,
        verdict=judgement.verdict,
        reason=judgement.evidence,
        # Of somebody who was erased nothing is gathered anew: the link may hold the address itself.
        url=None if message.erased else hit.url or None,
        network=None if message.erased else _storable(hit.network),
        user_agent=None if message.erased else _storable(hit.user_agent),
        dedupe=hit.id,
    )


def _storable(text: str) -> str | None:
    # PostgreSQL's text has no NUL; these two are evidence only, so losing one is better than parking the hit.
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


def _suppressed(sightings: Iterable[Sighting], messages: Mapping[bytes, Correlated]) -> list[Suppressed]:
    """Return whom campaign mail no longer reaches; mail without a campaign is exempt from unsubscribes."""
    asked = [
        (messages[sighting.hit.key], sighting.at)
        for sighting in sightings
        if sighting.hit.type is EventType.UNSUBSCRIBED
    ]
    return [
        Suppressed(
            source=message.source,
            recipient_index=message.recipient_index,
            reason=EventType.UNSUBSCRIBED,
            message=message.id,
            at=at,
        )
        for message, at in asked
        if message.campaign is not None and message.recipient_index
    ]


def _parked(sighting: Sighting, reason: str) -> ParkedEvent:
    hit = sighting.hit
    return ParkedEvent(dedupe=hit.id, source=TRACKER, reason=reason, named=hit.key, payload=sighting.raw)


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_DEDUPE_BYTES]
