"""Write history into the ledger: a message for each recipient, an event for each thing told, engagement from these.

Any order, any repetition and any interruption ends in the same rows: keys and dedupe ids are derived, engagement is
the courier's pure function of all events, and where a report goes on is committed with what was read of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from courier.classify import judge_notice
from courier.engagement import changes, sum_up
from ledger import attribution, engagements, imports
from ledger.attribution import Correlated
from ledger.engagements import NewEvent, Suppressed
from ledger.events import EventType
from ledger.ids import (
    ORIGIN_OF_IMPORT,
    MessageKey,
    alias_digest,
    canonical_address,
    imported_event,
    key_bytes,
    message_key,
    normalise_message_id,
    recipient_index,
)
from ledger.imports import Dated, PastMessage, Target
from ledger.mail import storable
from ledger.store import Ledger, Session
from ledger.visitors import network_of, printable
from providers.notice import Bounce, Notice, Step
from sidecar.imports.origin import Origin

#: Notices written in one transaction, about.
BATCH = 2000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGENT_CHARS = 512
_WORDS = 2000
#: What says nothing of the recipient: there is no engagement to derive.
_SILENT = frozenset({EventType.ACCEPTED, EventType.SENT, EventType.DEFERRED, EventType.UNKNOWN})
_DEAD = frozenset({EventType.BOUNCED, EventType.FAILED, EventType.REJECTED})
_ALIASES = {Step.PROVIDER_ID: "provider"}


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """A notice, its message's key and what makes its copies one."""

    notice: Notice
    key: MessageKey
    raw_key: bytes
    index: bytes
    dedupe: bytes
    type: EventType
    at: datetime


class Historian:
    """Writes what one origin tells of one campaign. *now* dates what history does not date."""

    def __init__(
        self, ledger: Ledger, target: Target, *, identity: bytes, suppress_for: str | None, now: datetime
    ) -> None:
        self._ledger = ledger
        self._target = target
        self._identity = identity
        # Whose campaign mail no longer reaches who wanted no more; None: nobody's is touched.
        self._suppress_for = suppress_for
        self._now = now
        self._campaign: int | None = None
        #: What was done: rows, messages, events, known, left out by reason.
        self.done: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    async def bring_in(
        self, origin: Origin, reports: Mapping[str, str], *, afresh: bool, tell: Callable[[str, int], None]
    ) -> None:
        """Read *reports*, each from its place, and write them; *tell* hears of each batch: the report and its rows.

        With *afresh* it is a new round: each is read from its beginning.
        """
        for number, (report, place) in enumerate(reports.items()):
            left = list(reports)[number:]
            read = 0
            batch: list[Notice] = []
            async for page in origin.pages(report, place):
                batch += page.notices
                self.left_out += page.left_out
                read += page.rows
                # Where nothing was ever told of, there is no campaign.
                known = not afresh or self._campaign is not None
                if (page.following is None or len(batch) >= BATCH) and (batch or known):
                    begun = left if afresh and self._campaign is None else ()
                    await self._write(batch, report=report, place=page.following, begun=begun)
                    batch = []
                    tell(report, read)
            self.done["rows"] += read

    async def _write(self, notices: Sequence[Notice], *, report: str, place: str | None, begun: Sequence[str]) -> None:
        origin = self._target.origin
        async with self._ledger.transaction() as session:
            campaign = await imports.enter(session, self._target) if self._campaign is None else self._campaign
            await imports.lock(session, campaign)
            if begun:
                await imports.begin(session, campaign, origin, begun)
            done = await self._record(session, campaign, notices) if notices else Counter()
            await imports.reach(session, campaign, origin, report, place)
        # Only what is committed is known.
        self._campaign = campaign
        self.done += done

    async def _record(self, session: Session, campaign: int, notices: Sequence[Notice]) -> Counter[str]:
        told = [self._told(notice) for notice in notices]
        past = {message.raw_key: message for message in _messages(told)}
        made = await imports.add_messages(session, campaign, self._target.source, list(past.values()))
        led = await attribution.by_keys(session, past)
        if made < len(past):
            dated = [Dated(id=led[key].id, at=one.at, sent_at=one.sent_at) for key, one in past.items()]
            await imports.date_back(session, dated)
        unique = {one.dedupe: one for one in told}
        fresh = [unique[dedupe] for dedupe in await imports.remember(session, unique)]
        if fresh:
            await self._engage(session, campaign, [(one, led[one.raw_key]) for one in fresh])
        if learnt := {(digest, led[one.raw_key].id) for one in told for digest in _aliases(one.notice)}:
            await attribution.learn(session, sorted(learnt))
        if suppressed := self._suppressed((one, led[one.raw_key]) for one in told):
            await engagements.suppress(session, suppressed)
        return Counter(messages=made, events=len(fresh), known=len(told) - len(fresh))

    async def _engage(self, session: Session, campaign: int, fresh: Sequence[tuple[_Told, Correlated]]) -> None:
        touched = {message.id: message for one, message in fresh if one.type not in _SILENT}
        # Held before the events are written and counted, as a courier does.
        before = await engagements.hold_engagements(session, touched) if touched else {}
        await engagements.add_events(session, [_event(one, message) for one, message in fresh])
        if not touched:
            return
        tallies = await engagements.tally(session, touched)
        after = {row: sum_up(tallies[row], injected=message.injected) for row, message in touched.items()}
        moved = {row: engagement for row, engagement in after.items() if engagement != before[row]}
        deltas: Counter[tuple[int, str]] = Counter()
        for row, engagement in moved.items():
            for counter, amount in changes(before[row], engagement).items():
                deltas[campaign, counter] += amount
        if moved:
            await engagements.write_engagements(session, moved)
        if deltas:
            await engagements.add_deltas(session, deltas)

    def _told(self, notice: Notice) -> _Told:
        target = self._target
        key = message_key(
            self._identity,
            source=target.source,
            campaign=target.campaign_id,
            # Two spellings are one person's: reports of one origin do not always agree.
            recipient=canonical_address(notice.recipient),
            origin=ORIGIN_OF_IMPORT,
            generation=0,
        )
        at_ms = "" if notice.at_ms is None else str(notice.at_ms)
        return _Told(
            notice=notice,
            key=key,
            raw_key=key_bytes(key),
            index=recipient_index(self._identity, notice.recipient),
            dedupe=imported_event(key, notice.provider, notice.what, at_ms, notice.url),
            type=EventType(notice.what),
            at=self._now if notice.at_ms is None else _EPOCH + timedelta(milliseconds=notice.at_ms),
        )

    def _suppressed(self, told: Iterable[tuple[_Told, Correlated]]) -> list[Suppressed]:
        if self._suppress_for is None:
            return []
        return [
            Suppressed(
                source=self._suppress_for,
                recipient_index=message.recipient_index,
                reason=one.type,
                message=message.id,
                at=one.at,
            )
            for one, message in told
            # Nobody knows who an erased one was.
            if message.recipient_index and _wants_no_more(one)
        ]


def _messages(told: Sequence[_Told]) -> Iterable[PastMessage]:
    """Return the messages that a batch tells of, each with the earliest times told."""
    by_key: dict[bytes, list[_Told]] = {}
    for one in told:
        by_key.setdefault(one.raw_key, []).append(one)
    for raw_key, those in by_key.items():
        first = those[0]
        ids = (name.value for one in those for name in one.notice.names if name.step is Step.MESSAGE_ID)
        yield PastMessage(
            key=first.key,
            raw_key=raw_key,
            recipient=first.notice.recipient,
            recipient_index=first.index,
            at=min(one.at for one in those),
            sent_at=min(
                (one.at for one in those if one.type is EventType.SENT and one.notice.at_ms is not None), default=None
            ),
            original_message_id=next((normalise_message_id(value) for value in ids), None),
        )


def _event(told: _Told, message: Correlated) -> NewEvent:
    notice, judgement = told.notice, judge_notice(told.notice)
    # Of somebody who was erased nothing is gathered anew.
    erased = message.erased
    return NewEvent(
        message=message.id,
        occurred_at=told.at,
        type=told.type,
        source=f"import:{notice.provider}",
        link=None,
        machine=judgement is not None and judgement.machine,
        verdict=None if judgement is None else judgement.verdict,
        reason=None if judgement is None else judgement.evidence,
        url=None if erased else storable(notice.url) or None,
        network=None if erased else network_of(notice.ip) or None,
        user_agent=None if erased else storable(printable(notice.user_agent, _AGENT_CHARS)) or None,
        dedupe=told.dedupe,
        bounce=notice.bounce,
        smtp_code=storable(notice.smtp_code) or None,
        enhanced_code=storable(notice.enhanced_code) or None,
        description=None if erased else storable(notice.description[:_WORDS]) or None,
    )


def _aliases(notice: Notice) -> Iterable[bytes]:
    """Return the digests by which a later event of the provider finds the message."""
    for name in notice.names:
        if name.step is Step.MESSAGE_ID:
            yield alias_digest("message-id", "", normalise_message_id(name.value))
        elif name.step in _ALIASES:
            yield alias_digest(_ALIASES[name.step], notice.provider, name.value)


def _wants_no_more(told: _Told) -> bool:
    if told.type in _DEAD:
        return told.notice.bounce is Bounce.HARD
    return told.type in {EventType.UNSUBSCRIBED, EventType.COMPLAINED}
