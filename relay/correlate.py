"""Commit each message's correlation before a byte leaves, and tell a repeat from a new message.

A repeat is the same source, campaign, recipient and origin with the same body inside the window. Everything else under
the same identity is a new message with a key of its own: a deliberate re-send is never swallowed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from ledger import ids
from ledger.ids import MessageKey
from ledger.mail_rows import Correlated, Known, NewMessage, Reopened
from ledger.store import UNAVAILABLE
from ledger.throttles import Throttle
from relay import stamp
from relay.forward import DOUBTS
from relay.patience import patiently
from relay.stamp import Addressed, Draft

# How many generations of one identity are looked at together: twice as many each time.
_FIRST_LOOK, _LARGEST_LOOK = 8, 512

# How often a message that another task has in flight is looked at again, in seconds.
_LOOK_AGAIN = 0.2


class Correlations(Protocol):
    """Where correlations are committed: `ledger.mail.MailLedger`."""

    @property
    def process(self) -> int:
        """Who we are in the ledger."""

    async def campaign(
        self, source: str, campaign_id: str, ams_mailing: int | None, to_send: int | None, now: datetime
    ) -> int:
        """Return the row of a campaign."""

    def correlate(self, message: NewMessage) -> "asyncio.Future[Correlated | None]":
        """Enter a correlation at once and return its commit; none when its key exists."""

    async def find(self, keys: Sequence[MessageKey]) -> dict[MessageKey, Known]:
        """Return what is known of messages with these keys."""

    async def reopen(self, known: Known) -> Reopened | None:
        """Take a message to try it again; none when another was faster."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Correlated, and ours to forward."""

    addressed: Addressed
    id: int
    turn: int
    #: The submission under which its row was entered; none with one recipient.
    submission: int | None
    #: An operator holds its campaign: store it instead.
    paused: bool
    #: How fast its campaign's mail may leave; none: it has no campaign.
    throttle: Throttle | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Decided already: a repeat of what was sent or is queued, or suppressed."""

    addressed: Addressed
    submission: int | None


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """A repeat of what another process still has in flight after all the waiting."""

    addressed: Addressed
    submission: int | None


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
    addressed: Sequence[Addressed],
    *,
    ledger: Correlations,
    identity_key: bytes,
    campaign: int | None,
    submission: int | None,
    patience: float,
    ledger_wait: float,
) -> list[Standing | BaseException]:
    """Commit the correlations of *addressed*, all of generation 0; return where each stands, or why it is not known.

    The caller has their identities in hand (`relay.hands`). *patience* is how many seconds to wait for another process
    that has the same message in flight, *ledger_wait* how many for PostgreSQL.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + ledger_wait

    links = sum(link.count for link in draft.plan.links)
    alias = None if draft.original_id is None else ids.alias_digest("message-id", "", draft.original_id)

    def new(one: Addressed) -> NewMessage:
        return _new_message(
            draft, one, identity_key=identity_key, campaign=campaign, submission=submission, links=links, alias=alias
        )

    def at(recipient: str, generation: int) -> Addressed:
        return stamp.address(draft, recipient, identity_key=identity_key, generation=generation)

    async def stand(recipient: str, *, taken: bool) -> Standing:
        search = _Search(draft, ledger, new, partial(at, recipient), submission)
        return await patiently(lambda: search.run(taken=taken, patience=patience), seconds=deadline - clock())

    # Mail is new, nearly always: all of it is entered together, and nothing is asked about it.
    committed = await _committed([ledger.correlate(new(one)) for one in addressed], ledger_wait)
    standings = [
        _standing(result, one, submission) if isinstance(result, Correlated) else result
        for one, result in zip(addressed, committed, strict=True)
    ]
    in_time = clock() < deadline
    open_ones = [
        place
        for place, result in enumerate(standings)
        if result is None or (in_time and isinstance(result, UNAVAILABLE))
    ]
    if open_ones:
        searches = [stand(addressed[place].recipient, taken=standings[place] is None) for place in open_ones]
        for place, found in zip(open_ones, await asyncio.gather(*searches, return_exceptions=True), strict=True):
            standings[place] = found
    return [standing for standing in standings if standing is not None]


async def _committed(
    commits: "Sequence[asyncio.Future[Correlated | None]]", seconds: float
) -> list[Correlated | BaseException | None]:
    """Wait for *commits* together, at most *seconds*, and return what came of each."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for commit in commits:
                    # What it raised is asked for below.
                    with suppress(Exception):
                        await commit
    finally:
        # What is not decided is left to itself.
        for commit in commits:
            commit.cancel()
    return [TimeoutError() if one.cancelled() else one.exception() or one.result() for one in commits]


class _Search(NamedTuple):
    """Finds out where a message stands whose first key is taken, or could not be entered."""

    draft: Draft
    ledger: Correlations
    new: Callable[[Addressed], NewMessage]
    #: Its address in a generation.
    at: Callable[[int], Addressed]
    submission: int | None

    async def run(self, *, taken: bool, patience: float) -> Standing:
        """Return where it stands; *taken*: the key of generation 0 exists."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + patience
        generation = 0
        while True:
            addressed = self.at(generation)
            correlated = None if taken else await self.ledger.correlate(self.new(addressed))
            if correlated is not None:
                return _standing(correlated, addressed, self.submission)
            taken = False
            generation, known = await self._find(generation)
            if known is None:
                continue
            addressed = self.at(generation)
            match self._judged(known):
                case Repeat.DONE:
                    return Done(addressed=addressed, submission=known.submission)
                case Repeat.AGAIN:
                    if (ready := await self._reopen(known, addressed)) is not None:
                        return ready
                case _ if clock() > deadline:
                    return Busy(addressed=addressed, submission=known.submission)
                case _:
                    await asyncio.sleep(_LOOK_AGAIN)

    async def _find(self, generation: int) -> tuple[int, Known | None]:
        """Return the first generation from *generation* on that is this very submission, or that is free."""
        look = _FIRST_LOOK
        while True:
            keys = [self.at(number).key for number in range(generation, generation + look)]
            found = await self.ledger.find(keys)
            for key in keys:
                known = found.get(key)
                if known is None or self._judged(known) is not Repeat.NEW:
                    return generation, known
                generation += 1
            look = min(look * 2, _LARGEST_LOOK)

    async def _reopen(self, known: Known, addressed: Addressed) -> Ready | None:
        reopened = await self.ledger.reopen(known)
        if reopened is None:
            return None
        DOUBTS.inc(reopened.doubtful)
        return Ready(
            addressed=msgspec.structs.replace(addressed, doubts=reopened.doubts),
            id=known.id,
            turn=reopened.turn,
            submission=known.submission,
            paused=known.paused,
            throttle=known.throttle,
        )

    def _judged(self, known: Known) -> Repeat:
        draft = self.draft
        return judge(
            known,
            body_digest=draft.body_digest,
            window=draft.window,
            now=draft.submission.received_at,
            process=self.ledger.process,
        )


def _standing(correlated: Correlated, addressed: Addressed, submission: int | None) -> Standing:
    if correlated.suppressed:
        return Done(addressed=addressed, submission=submission)
    return Ready(
        addressed=addressed,
        id=correlated.id,
        turn=correlated.turn,
        submission=submission,
        paused=correlated.paused,
        throttle=correlated.throttle,
    )


def _new_message(
    draft: Draft,
    addressed: Addressed,
    *,
    identity_key: bytes,
    campaign: int | None,
    submission: int | None,
    links: int,
    alias: bytes | None,
) -> NewMessage:
    plan = draft.plan
    return NewMessage(
        key=addressed.key,
        accepted_at=draft.submission.received_at,
        campaign=campaign,
        submission=submission,
        generation=addressed.generation,
        size=len(draft.submission.content),
        links=links,
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
        alias=alias,
        # listmonk sends each subscriber a transaction of his own; of several recipients nobody knows who is meant.
        subscriber=draft.subscriber if submission is None else None,
    )
