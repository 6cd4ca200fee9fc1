"""Erase a person: the messages stay, with what became of them, and nobody can tell whose they were.

A message in somebody's hands is left to them and told of, so that erasing never races with sending. Every function may
run twice, or stop in the middle and run again: what is erased is not found any more.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import date

import msgspec

from ledger.mail import address_bytes, address_text
from ledger.store import Ledger, Record, Session
from ledger.traces import ERASED, ERASED_BYTES, Traces

#: What a message says that waited for a recipient who is erased.
ENDED = "554 5.7.1 Erased by the operator"

#: Messages erased in one transaction.
BATCH = 1000

_WAITING = frozenset({"accepted", "queued", "sending"})
# Messages looked through at once for words that name somebody, and bodies.
_SPAN = 20_000
_BODIES = 200
_NO_DAY = date.min


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What came of erasing messages."""

    #: How many of what were erased, by the receipt's words.
    counts: Counter[str]
    #: The keys of the messages that were erased, 16 bytes each.
    keys: tuple[bytes, ...] = ()
    #: Messages that somebody has in hand: they were left alone.
    engaged: int = 0


async def forget(ledger: Ledger, recipient_index: bytes, traces: Traces) -> Erased:
    """Erase every message to a person; those in hand are left.

    Campaign mail does not reach the person from now on: an unsubscribe by an old message could not be told from
    anybody's.
    """
    rows = [row["id"] for row in await ledger.fetch("report_messages_of_recipient", recipient_index)]
    counts: Counter[str] = Counter()
    keys: list[bytes] = []
    engaged = 0
    if rows:
        await ledger.execute("suppress_erased", recipient_index, ERASED)
    for start in range(0, len(rows), BATCH):
        async with ledger.transaction() as session:
            erased = await erase(session, rows[start : start + BATCH], traces)
        counts += erased.counts
        keys += erased.keys
        engaged += erased.engaged
    counts["parked_events"] += len(await ledger.fetch("drop_parked_to", recipient_index))
    counts["suppressions"] += len(await ledger.fetch("unname_suppressions", recipient_index))
    return Erased(counts=counts, keys=tuple(keys), engaged=engaged)


async def erase(session: Session, rows: Sequence[int], traces: Traces | None = None) -> Erased:
    """Erase whom these messages went to, in the caller's transaction.

    With the *traces* of a person what waits is ended, and no message is found by the person any more. Without, only
    messages that are settled are touched, their senders go too, and the index stays: an unsubscribe still counts.
    """
    await session.fetch("hold_deliveries", rows)
    held = await session.fetch("read_messages", rows)
    engaged = [row for row in held if row["status"] in _WAITING and (row["engaged"] or traces is None)]
    left = {row["id"] for row in engaged}
    found = [row for row in held if row["id"] not in left]
    if not found:
        return Erased(counts=Counter(), engaged=len(engaged))
    ids = [row["id"] for row in found]
    waiting = [row["id"] for row in found if row["status"] in _WAITING]
    counts: Counter[str] = Counter(messages=len(ids))
    if waiting:
        counts["cancelled"] += len(await session.fetch("end_erased", waiting, ENDED))
    marks = {row["id"]: traces or Traces(address_text(row["recipient"])) for row in found}
    replies = {
        row["id"]: ENDED if row["id"] in waiting else marks[row["id"]].erased(row["reply"], own=True) for row in found
    }
    counts["replies"] += sum(row["reply"] is not None and replies[row["id"]] != row["reply"] for row in found)
    await session.execute(
        "erase_messages",
        ids,
        [_sender(row, traces) for row in found],
        [marks[row["id"]].erased(row["message_id"], own=True) for row in found],
        [marks[row["id"]].erased(row["original_message_id"], own=True) for row in found],
        [replies[row["id"]] for row in found],
        traces is not None,
    )
    await session.execute("erase_visitors", ids)
    events = await session.fetch("worded_events", ids)
    counts["events"] += await _reword(session, [(event, marks[event["message"]]) for event in events], own=True)
    counts["ams_items"] += len(await session.fetch("drop_items", ids))
    counts["parked_events"] += len(await session.fetch("drop_parked_of", [row["key"] for row in found]))
    bodies = {(row["body_day"], row["body"]) for row in found if row["body"] is not None}
    if bodies:
        freed = await session.fetch("drop_bodies", [day for day, _ in bodies], [body for _, body in bodies])
        counts["bodies"] += len(freed)
    return Erased(counts=counts, keys=tuple(row["key"] for row in found), engaged=len(engaged))


async def sweep(ledger: Ledger, traces: Traces) -> Counter[str]:
    """Erase an address from what was said about other people's messages, and return how often it stood where."""
    counts: Counter[str] = Counter()
    counts["parked_events"] += len(await ledger.fetch("drop_parked_naming", traces.octet_pattern))
    counts["ams_items"] += len(await ledger.fetch("drop_items_naming", traces.pattern))
    counts["replies"] += len(await ledger.fetch("reword_items", traces.pattern, ERASED))
    counts["replies"] += len(await ledger.fetch("reword_mailings", traces.pattern, ERASED))
    async for first, last in _spans(ledger):
        named = await ledger.fetch("messages_naming", first, last, traces.pattern, traces.octet_pattern)
        reworded = await ledger.fetch(
            "reword_messages",
            [row["id"] for row in named],
            [_sender(row, traces) for row in named],
            [traces.erased(row["message_id"]) for row in named],
            [traces.erased(row["original_message_id"]) for row in named],
        )
        counts["mentions"] += len(reworded)
        counts["replies"] += len(await ledger.fetch("reword_replies", first, last, traces.pattern, ERASED))
        events = await ledger.fetch("events_naming", first, last, traces.pattern, traces.octet_pattern)
        async with ledger.transaction() as session:
            counts["events"] += await _reword(session, [(event, traces) for event in events], own=False)
    return counts


async def bodies_naming(ledger: Ledger, traces: Traces) -> int:
    """Return how many stored submissions name an address: they are needed until they are sent, and freed then."""
    day, body, naming = _NO_DAY, 0, 0
    while rows := await ledger.fetch("bodies_naming", traces.plain, day, body, _BODIES):
        naming += sum(row["names"] for row in rows)
        day, body = rows[-1]["day"], rows[-1]["id"]
    return naming


async def _spans(ledger: Ledger) -> AsyncIterator[tuple[int, int]]:
    span = await ledger.fetchrow("message_span")
    if span is not None and span["first"] is not None:
        for first in range(span["first"], span["last"] + 1, _SPAN):
            yield first, first + _SPAN - 1


async def _reword(session: Session, events: Sequence[tuple[Record, Traces]], *, own: bool) -> int:
    # A link that names somebody may do so in more ways than one: none of it stays.
    words = [
        (
            event,
            (
                ERASED if marks.stand_in(event["url"]) else event["url"],
                marks.erased(event["reason"], own=own),
                marks.erased(event["description"], own=own),
            ),
        )
        for event, marks in events
    ]
    changed = [
        (event, new)
        for event, new in words
        if new != (event["url"], event["reason"], event["description"]) or event.get("raw") is not None
    ]
    if not changed:
        return 0
    reworded = await session.fetch(
        "reword_events",
        [event["recorded_at"] for event, _ in changed],
        [event["id"] for event, _ in changed],
        [event["message"] for event, _ in changed],
        [url for _, (url, _, _) in changed],
        [reason for _, (_, reason, _) in changed],
        [description for _, (_, _, description) in changed],
    )
    return len(reworded)


def _sender(row: Record, traces: Traces | None) -> bytes:
    """Return a message's sender, or the mark where it is, or spells (VERP), the address; without one, of any sender."""
    sender = address_text(row["sender"])
    gone = bool(sender) if traces is None else traces.stand_in(sender)
    return ERASED_BYTES if gone else address_bytes(sender)
