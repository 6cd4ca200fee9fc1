"""Erase a person: the messages stay, with what became of them, and nobody can tell whose they were.

A message in somebody's hands is left to them and told of, so that erasing never races with sending. Every function may
run twice, or stop in the middle and run again: what is erased is not found any more. What is sealed PostgreSQL cannot
look into: it is opened here, and where our keys do not open it, `SealedError` is raised rather than a person missed.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date

import msgspec

from ledger.rows import columns, spans
from ledger.sealing import Column, SealedError, Sealer
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
_PARKED = 1000
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
    counts: Counter[str] = Counter()
    keys: list[bytes] = []
    engaged = 0
    # Suppressed in between, not before: a queue that finds what waits suppressed would end it in its own way. The
    # second round erases what came meanwhile.
    for first in (True, False):
        rows = [row["id"] for row in await ledger.fetch("report_messages_of_recipient", recipient_index)]
        engaged = 0
        for start in range(0, len(rows), BATCH):
            async with ledger.transaction() as session:
                erased = await erase(session, rows[start : start + BATCH], traces)
            counts += erased.counts
            keys += erased.keys
            engaged += erased.engaged
        if rows and first:
            await ledger.execute("suppress_erased", recipient_index, ERASED)
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
    sealer = session.sealer
    marks = {row["id"]: traces or _own_traces(sealer, row) for row in found}
    replies = {
        row["id"]: ENDED
        if row["id"] in waiting
        else _reworded(sealer, Column.REPLY, row["reply"], marks[row["id"]], own=True, lossy=traces is None)
        for row in found
    }
    counts["replies"] += sum(row["reply"] is not None and replies[row["id"]] != row["reply"] for row in found)
    await session.execute(
        "erase_messages",
        ids,
        [_sender(sealer, row, traces) for row in found],
        [marks[row["id"]].erased(row["message_id"], own=True) for row in found],
        [marks[row["id"]].erased(row["original_message_id"], own=True) for row in found],
        [replies[row["id"]] for row in found],
        traces is not None,
    )
    await session.execute("erase_visitors", ids)
    events = await session.fetch("worded_events", ids)
    counts["events"] += await _reword(
        session, [(event, marks[event["message"]]) for event in events], own=True, lossy=traces is None
    )
    counts["ams_items"] += len(await session.fetch("drop_items", ids))
    counts["sink_items"] += len(await session.fetch("drop_sink_items", ids))
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
    counts["parked_events"] += await _drop_sealed_parked(ledger, traces)
    counts["ams_items"] += len(await ledger.fetch("drop_items_naming", traces.pattern))
    counts["replies"] += len(await ledger.fetch("reword_items", traces.pattern, ERASED))
    for statement in ("reword_mailings", "reword_sink_items", "reword_sinks"):
        counts["replies"] += len(await ledger.fetch(statement, traces.pattern, ERASED))
    async for first, last in spans(ledger, _SPAN):
        counts["mentions"] += await _reword_messages(ledger, traces, first, last)
        counts["replies"] += len(await ledger.fetch("reword_replies", first, last, traces.pattern, ERASED))
        counts["replies"] += await _reword_sealed_replies(ledger, traces, first, last)
        events = [
            (event, traces)
            for event in await ledger.fetch("events_naming", first, last, traces.pattern, traces.octet_pattern)
            if event["named"] or _names(ledger.sealer, event, traces)
        ]
        async with ledger.transaction() as session:
            counts["events"] += await _reword(session, events, own=False)
    return counts


async def bodies_naming(ledger: Ledger, traces: Traces) -> int:
    """Return how many stored submissions name an address: they are needed until they are sent, and freed then."""
    day, body, naming = _NO_DAY, 0, 0
    while rows := await ledger.fetch("bodies_naming", traces.plain, day, body, _BODIES):
        for row in rows:
            naming += await _stands_in_sealed(ledger, row, traces) if row["names"] is None else row["names"]
        day, body = rows[-1]["day"], rows[-1]["id"]
    return naming


async def _stands_in_sealed(ledger: Ledger, row: Record, traces: Traces) -> bool:
    stored = await ledger.fetchrow("load_body", row["day"], row["id"])
    if stored is None:
        return False
    opened = (
        ledger.sealer.open(Column.ENVELOPE, stored["envelope"]),
        ledger.sealer.open(Column.CONTENT, stored["content"]),
    )
    return any(form in octets for form in traces.plain for octets in opened)


async def _drop_sealed_parked(ledger: Ledger, traces: Traces) -> int:
    last, dropped = 0, 0
    while rows := await ledger.fetch("sealed_parked", last, _PARKED):
        naming = [
            row["id"] for row in rows if traces.stand_in_octets(ledger.sealer.open(Column.PARKED, row["payload"]))
        ]
        dropped += len(await ledger.fetch("drop_parked_by_id", naming)) if naming else 0
        last = rows[-1]["id"]
    return dropped


async def _reword_messages(ledger: Ledger, traces: Traces, first: int, last: int) -> int:
    changed: list[tuple[int, bytes, str | None, str | None]] = []
    for row in await ledger.fetch("messages_naming", first, last, traces.pattern, traces.octet_pattern):
        words = (
            _sender(ledger.sealer, row, traces),
            traces.erased(row["message_id"]),
            traces.erased(row["original_message_id"]),
        )
        if words != (row["sender"], row["message_id"], row["original_message_id"]):
            changed.append((row["id"], *words))
    return len(await ledger.fetch("reword_messages", *columns(changed))) if changed else 0


async def _reword_sealed_replies(ledger: Ledger, traces: Traces, first: int, last: int) -> int:
    changed: list[tuple[int, str, str | None]] = []
    for row in await ledger.fetch("sealed_replies", first, last):
        words = _reworded(ledger.sealer, Column.REPLY, row["reply"], traces, own=False)
        if words != row["reply"]:
            changed.append((row["message"], row["reply"], words))
    return len(await ledger.fetch("exchange_replies", *columns(changed))) if changed else 0


def _names(sealer: Sealer, event: Record, traces: Traces) -> bool:
    """Tell whether an event in which something is sealed names an address there."""
    return (
        traces.stand_in(sealer.open_text(Column.REPLY, event["reason"]))
        or traces.stand_in(sealer.open_text(Column.DESCRIPTION, event["description"]))
        or (event["raw"] is not None and traces.stand_in_octets(sealer.open(Column.RAW, event["raw"])))
    )


async def _reword(session: Session, events: Sequence[tuple[Record, Traces]], *, own: bool, lossy: bool = False) -> int:
    sealer = session.sealer
    # A link that names somebody may do so in more ways than one: none of it stays.
    words = [
        (
            event,
            (
                ERASED if marks.stand_in(event["url"]) else event["url"],
                _reworded(sealer, Column.REPLY, event["reason"], marks, own=own, lossy=lossy),
                _reworded(sealer, Column.DESCRIPTION, event["description"], marks, own=own, lossy=lossy),
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


def _own_traces(sealer: Sealer, row: Record) -> Traces:
    """Return the traces of whom a message went to; of nobody where that cannot be read."""
    try:
        return Traces(sealer.open_address(Column.RECIPIENT, row["recipient"]))
    except SealedError:
        return Traces(ERASED)


def _reworded(
    sealer: Sealer, column: Column, stored: str | None, marks: Traces, *, own: bool, lossy: bool = False
) -> str | None:
    """Return stored words with a mark for each form of an address; untouched they stay the very same.

    *lossy* ones that cannot be read go as a whole: whoever lets go of what is old asks nobody's name.
    """
    try:
        plain = sealer.open_text(column, stored)
    except SealedError:
        if lossy:
            return ERASED
        raise
    erased = marks.erased(plain, own=own)
    return stored if erased == plain else sealer.seal_text(column, erased)


def _sender(sealer: Sealer, row: Record, traces: Traces | None) -> bytes:
    """Return a message's sender, or the mark where it is, or spells (VERP), the address; without one, of any sender."""
    stored: bytes = row["sender"]
    gone = bool(stored) if traces is None else traces.stand_in(sealer.open_address(Column.SENDER, stored))
    return ERASED_BYTES if gone else stored
