"""What the relay writes and reads: correlations, results, and the queue.

Correlations and results go by group commit; nothing here decides what a repeat is or when to try again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, datetime

import structlog

from ledger.group import GroupCommit
from ledger.ids import MessageId, MessageKey, key_bytes, key_text
from ledger.mail_rows import (
    Claimed,
    Correlated,
    Due,
    Held,
    Known,
    NewMessage,
    NotOursError,
    Queued,
    Reopened,
    Settlement,
    StoredBody,
)
from ledger.sealing import Column, SealedError, Sealer
from ledger.store import REFUSED_VALUE, Ledger, Record
from ledger.throttles import throttle_of
from ledger.windows import Window, may_send

log = structlog.get_logger()

#: Messages of held campaigns that one statement sets aside, or releases.
_SET_ASIDE = 10_000

# Seconds for which a message whose recipient we cannot read is left to a process that has the key.
_UNREADABLE_WAIT = 300.0

# Sealing more octets than these takes long enough to be felt by the others on this loop.
_LARGE = 256 * 1024


class MailLedger:
    """The relay's side of the ledger, for one process."""

    def __init__(
        self, ledger: Ledger, process: int, *, all_sources: bool = False, windows: Sequence[Window] = ()
    ) -> None:
        self._ledger = ledger
        #: Who works here.
        self.process = process
        # Whether a recipient whom one source may not write to hears of none.
        self._all_sources = all_sources
        # When campaigns without a window of their own may be sent.
        self._windows = tuple(windows)
        self._campaigns: dict[tuple[str, str, int | None, int | None], int] = {}
        self._correlations = GroupCommit(self._insert, divisible=REFUSED_VALUE)
        self._dots = GroupCommit(self._mark_dots)
        self._settlements = GroupCommit(self._settle, divisible=REFUSED_VALUE)

    async def close(self) -> None:
        """Wait until every group in flight is decided."""
        for group in (self._correlations, self._dots, self._settlements):
            await group.close()

    def known_campaign(self, source: str, campaign_id: str, ams_mailing: int | None, to_send: int | None) -> int | None:
        """Return the row of a campaign that was asked for before, without asking again."""
        return self._campaigns.get((source, campaign_id, ams_mailing, to_send))

    async def campaign(
        self, source: str, campaign_id: str, ams_mailing: int | None, to_send: int | None, now: datetime
    ) -> int:
        """Return the row of a campaign, made with its first message; outside the send window it is made closed."""
        if (known := self.known_campaign(source, campaign_id, ams_mailing, to_send)) is not None:
            return known
        name = (source, campaign_id, ams_mailing, to_send)
        row = await self._ledger.fetchrow("ensure_campaign", *name, not may_send(self._windows, now))
        assert row is not None  # noqa: S101 - INSERT … RETURNING gives a row
        if len(self._campaigns) >= 10_000:
            self._campaigns.clear()
        self._campaigns[name] = row["id"]
        return int(row["id"])

    async def next_submission(self) -> int:
        """Draw the id under which the messages of one transaction are entered."""
        row = await self._ledger.fetchrow("next_submission")
        assert row is not None  # noqa: S101 - SELECT nextval gives a row
        return int(row["id"])

    async def enter_submission(self, submission: int, key: MessageKey, accepted_at: datetime) -> None:
        """Let the messages of one transaction be found by the submission's key."""
        await self._ledger.execute("enter_submission", submission, key_bytes(key), accepted_at)

    def correlate(self, message: NewMessage) -> "asyncio.Future[Correlated | None]":
        """Enter a correlation at once and return its commit; none when its key exists already."""
        return self._correlations.enter(message)

    async def find(self, keys: Sequence[MessageKey]) -> dict[MessageKey, Known]:
        """Return what the ledger knows of messages with these keys."""
        rows = await self._ledger.fetch("find_messages", [key_bytes(key) for key in keys])
        return {key_text(row["key"]): _known(row) for row in rows}

    async def reopen(self, known: Known) -> Reopened | None:
        """Take a message that ended, or whose process is gone, to try it again; none when another was faster."""
        row = await self._ledger.fetchrow("reopen_delivery", known.id, known.status, known.turn, self.process)
        return None if row is None else Reopened(**dict(row))

    async def mark_dot(self, message: int, turn: int) -> None:
        """Commit the intent to send a message's final dot; raise `NotOursError` when it was taken over."""
        if not await self._dots.add((message, turn)):
            raise NotOursError

    async def settle(self, settlement: Settlement) -> bool:
        """Commit a final result; false when the message had been settled before."""
        return await self._settlements.add(settlement)

    async def queue(
        self, entries: Sequence[Queued], *, envelope: bytes, profile: bytes, content: bytes, upstream: str
    ) -> set[int]:
        """Store a submission's body and queue its messages on it; return those that are stored now."""
        sealer = self._ledger.sealer
        sealed = await _aside(len(content), lambda: sealer.seal(Column.CONTENT, content))
        async with self._ledger.transaction() as session:
            body = await session.fetchrow("store_body", sealer.seal(Column.ENVELOPE, envelope), profile, sealed)
            assert body is not None  # noqa: S101 - INSERT … RETURNING gives a row
            rows = await session.fetch(
                "queue_deliveries",
                [entry.id for entry in entries],
                [entry.dotted for entry in entries],
                [entry.wait for entry in entries],
                [sealer.seal_text(Column.REPLY, entry.reply) for entry in entries],
                body["day"],
                body["id"],
                upstream,
                [entry.turn for entry in entries],
                [entry.doubtful for entry in entries],
                self.process,
                [entry.tried for entry in entries],
            )
        return {row["message"] for row in rows}

    async def claim(self, limit: int) -> Claimed:
        """Take up to *limit* due messages; those of a held campaign are set aside, suppressed ones end here."""
        rows = await self._ledger.fetch("claim_due", self.process, limit, self._all_sources)
        due = [one for row in rows if row["status"] == "sending" and (one := await self._due(row)) is not None]
        if any(row["status"] == "queued" for row in rows):
            # There are more of them: no later claim looks at them one by one.
            await self._ledger.fetch("set_aside_held", _SET_ASIDE)
        return Claimed(due=due, passed=len(rows) - len(due))

    async def _due(self, row: Record) -> Due | None:
        """Return a claimed message; one whose recipient we cannot read goes back untried."""
        try:
            return _due(row, self._ledger.sealer)
        except SealedError:
            log.error("recipient_unreadable", message=row["id"])  # noqa: TRY400 - a traceback says no more
            held = row["id"], row["turn"]
            await self.postpone(*held, wait=_UNREADABLE_WAIT, reply=None, doubtful=False, upstream=None, tried=False)
            return None

    async def is_suppressed(self, source: str, recipient_index: bytes) -> bool:
        """Tell whether campaign mail of *source* may not reach a recipient."""
        row = await self._ledger.fetchrow("is_suppressed", storable(source), recipient_index, self._all_sources)
        return row is not None and bool(row["suppressed"])

    async def release_held(self) -> int:
        """Make due again what was set aside for campaigns that are held no more; return how many messages."""
        return await release_held(self._ledger)

    async def load_body(self, day: date, body: int) -> StoredBody | None:
        """Return a stored submission; raise `SealedError` where our keys do not open it."""
        row = await self._ledger.fetchrow("load_body", day, body)
        if row is None:
            return None
        sealer, content = self._ledger.sealer, row["content"]
        return StoredBody(
            envelope=sealer.open(Column.ENVELOPE, row["envelope"]),
            profile=row["profile"],
            content=await _aside(len(content), lambda: sealer.open(Column.CONTENT, content)),
        )

    async def postpone(
        self,
        message: int,
        turn: int,
        *,
        wait: float,
        reply: str | None,
        doubtful: bool,
        upstream: str | None,
        tried: bool = True,
    ) -> None:
        """Put a message in hand back for *wait* seconds, if this is still its turn; *tried*: it counts as a try."""
        words = self._ledger.sealer.seal_text(Column.REPLY, reply)
        await self._ledger.execute("postpone_delivery", message, wait, words, doubtful, upstream, turn, tried)

    async def held(self) -> list[Held]:
        """Return what the ledger says this process has in hand."""
        rows = await self._ledger.fetch("held_deliveries", self.process)
        return [Held(id=row["message"], turn=row["turn"], status=row["status"]) for row in rows]

    async def put_back(self, lost: Sequence[Held]) -> int:
        """Let go of what we were said to have in hand and have not; return how many there were."""
        rows = await self._ledger.fetch(
            "put_back_held", [one.id for one in lost], [one.turn for one in lost], self.process
        )
        return len(rows)

    async def take_over(self) -> tuple[int, int, int]:
        """Take over what dead processes held; return how many were queued, of them in doubt, and how many refused."""
        queued = await self._ledger.fetch("take_over_sending")
        refused = await self._ledger.fetch("sweep_accepted")
        return len(queued), sum(row["doubtful"] for row in queued), len(refused)

    async def free_bodies(self) -> None:
        """Free the bodies that nothing needs any more."""
        await self._ledger.execute("free_bodies")

    async def stored_bytes(self) -> int:
        """Return the octets that queued bodies take."""
        row = await self._ledger.fetchrow("stored_bytes")
        return int(row["octets"]) if row is not None else 0

    async def queue_depth(self) -> tuple[int, float]:
        """Return how many messages wait, and the age of the oldest in seconds."""
        row = await self._ledger.fetchrow("queue_depth")
        return (0, 0.0) if row is None else (int(row["waiting"]), float(row["oldest_seconds"] or 0.0))

    async def remember_profile(self, digest: bytes, profile: str) -> None:
        """Remember what rendering depends on."""
        await self._ledger.execute("remember_profile", digest, profile)

    async def load_profile(self, digest: bytes) -> str | None:
        """Return a remembered profile as JSON."""
        row = await self._ledger.fetchrow("load_profile", digest)
        return None if row is None else str(row["profile"])

    async def _insert(self, messages: Sequence[NewMessage]) -> Sequence[Correlated | None]:
        sealer = self._ledger.sealer
        keys = [key_bytes(message.key) for message in messages]
        rows = await self._ledger.fetch(
            "insert_messages",
            keys,
            [message.accepted_at for message in messages],
            [message.campaign for message in messages],
            [message.submission for message in messages],
            [message.generation for message in messages],
            [message.size for message in messages],
            [message.links for message in messages],
            [message.injected for message in messages],
            [message.reason for message in messages],
            [storable(message.source) for message in messages],
            [message.campaign_reason for message in messages],
            [sealer.seal_address(Column.SENDER, message.sender) for message in messages],
            [sealer.seal_address(Column.RECIPIENT, message.recipient) for message in messages],
            [message.recipient_index for message in messages],
            [storable(message.message_id) for message in messages],
            [storable(message.original_message_id) for message in messages],
            [message.body_digest for message in messages],
            [message.alias for message in messages],
            self.process,
            self._all_sources,
            [_sealed(sealer, message.subscriber) for message in messages],
        )
        added = {
            row["key"]: Correlated(
                id=row["id"],
                turn=1,
                suppressed=row["suppressed"],
                paused=row["paused"],
                throttle=throttle_of(row),
            )
            for row in rows
        }
        # A key that stands twice in one group gives one row: the first takes it, the second finds it known.
        return [added.pop(key, None) for key in keys]

    async def _mark_dots(self, marks: Sequence[tuple[int, int]]) -> Sequence[bool]:
        ordered = sorted(marks)
        rows = await self._ledger.fetch(
            "mark_dots", [message for message, _ in ordered], [turn for _, turn in ordered], self.process
        )
        ours = {row["message"] for row in rows}
        return [message in ours for message, _ in marks]

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        rows = await self._ledger.fetch(
            "settle_deliveries",
            [settlement.id for settlement in settlements],
            [settlement.status for settlement in settlements],
            [storable(settlement.upstream) for settlement in settlements],
            [self._ledger.sealer.seal_text(Column.REPLY, storable(settlement.reply)) for settlement in settlements],
            [settlement.alias for settlement in settlements],
            [settlement.dedupe for settlement in settlements],
            [settlement.turn for settlement in settlements],
            [settlement.doubtful for settlement in settlements],
        )
        settled = {row["message"] for row in rows}
        return [settlement.id in settled for settlement in settlements]


async def release_held(ledger: Ledger, campaign: int | None = None) -> int:
    """Make due again what was set aside, of *campaign* or all, unless it is still held; return how many messages."""
    released = 0
    while True:
        moved = len(await ledger.fetch("release_held", campaign, _SET_ASIDE))
        released += moved
        if moved < _SET_ASIDE:
            return released


def storable(text: str | None) -> str | None:
    """Return *text* as PostgreSQL can hold it: no NUL, no lone surrogate. Every text of a stranger's passes here."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


async def _aside(octets: int, work: Callable[[], bytes]) -> bytes:
    return await asyncio.to_thread(work) if octets > _LARGE else work()


def _sealed(sealer: Sealer, subscriber: bytes | None) -> bytes | None:
    return None if subscriber is None else sealer.seal(Column.SUBSCRIBER, subscriber)


def _known(row: Record) -> Known:
    return Known(
        id=row["id"],
        submission=row["submission"],
        body_digest=row["body_digest"],
        accepted_at=row["accepted_at"],
        status=row["status"],
        worker=row["worker"],
        turn=row["turn"],
        stored=row["stored"],
        worked_on=row["worked_on"],
        paused=row["paused"],
        throttle=throttle_of(row),
    )


def _due(row: Record, sealer: Sealer) -> Due:
    return Due(
        id=row["id"],
        turn=row["turn"],
        key=key_text(row["key"]),
        generation=row["generation"],
        accepted_at=row["accepted_at"],
        recipient=sealer.open_address(Column.RECIPIENT, row["recipient"]),
        message_id=MessageId(row["message_id"]),
        attempts=row["attempts"],
        doubts=row["doubts"],
        body_day=row["body_day"],
        body=row["body"],
        throttle=throttle_of(row),
    )
