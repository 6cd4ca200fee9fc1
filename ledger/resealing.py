"""Bring what is stored to the key that seals now: rows from before the first key, and those of older keys.

In bites, beside running processes: a row is exchanged only while it is still what was read. Twice is once.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from ledger.processes import fingerprint
from ledger.rows import columns, spans
from ledger.sealing import HEAD_BYTES, Column, SealedError
from ledger.store import Ledger, Record

#: What is counted where our keys do not open a value; it stays as it is.
UNREADABLE = "unreadable"

_SPAN = 5_000
_PAGE = 1_000


async def older_processes(ledger: Ledger, newest: bytes | None) -> int:
    """Return how many processes live that may seal otherwise: they started before *newest* was known, or at all."""
    row = await ledger.fetchrow("older_processes", "" if newest is None else fingerprint(newest))
    return 0 if row is None else int(row["processes"])


async def retire(ledger: Ledger, kept: Sequence[bytes]) -> int:
    """Let processes start without the keys of addresses that are not *kept*; return how many were let go."""
    return len(await ledger.fetch("retire_address_keys", [fingerprint(secret) for secret in kept]))


async def reseal(ledger: Ledger) -> Counter[str]:
    """Store every value as the ledger's sealer does now, and return how many rows of what were changed."""
    counts: Counter[str] = Counter()
    async for first, last in spans(ledger, _SPAN):
        for kind, wanted, change, read in (
            ("messages", "sealable_messages", "exchange_addresses", _message),
            ("replies", "sealable_replies", "exchange_replies", _reply),
            ("events", "sealable_events", "exchange_events", _event),
        ):
            rows = await ledger.fetch(wanted, first, last)
            await _exchange(ledger, kind, change, rows, read, counts)
    async for rows in _pages(ledger, "sealable_suppressions", ("", b""), ("source", "recipient_index")):
        await _exchange(ledger, "suppressions", "exchange_suppressions", rows, _suppression, counts)
    async for rows in _pages(ledger, "sealable_parked", (0,), ("id",)):
        await _exchange(ledger, "parked_events", "exchange_parked", rows, _parked, counts)
    async for rows in _pages(ledger, "sealable_bodies", (None, 0), ("day", "id"), HEAD_BYTES):
        await _bodies(ledger, rows, counts)
    return +counts


async def _pages(
    ledger: Ledger, statement: str, start: Sequence[object], place: Sequence[str], *more: object
) -> AsyncIterator[list[Record]]:
    at = start
    while rows := await ledger.fetch(statement, *at, _PAGE, *more):
        yield rows
        at = [rows[-1][name] for name in place]


async def _exchange(
    ledger: Ledger,
    kind: str,
    statement: str,
    rows: Sequence[Record],
    read: Callable[[Ledger, Record], tuple[object, ...] | None],
    counts: Counter[str],
) -> None:
    changed: list[tuple[object, ...]] = []
    for row in rows:
        try:
            change = read(ledger, row)
        except SealedError:
            counts[UNREADABLE] += 1
        else:
            changed += [] if change is None else [change]
    if changed:
        counts[kind] += len(await ledger.fetch(statement, *columns(changed)))


def _message(ledger: Ledger, row: Record) -> tuple[object, ...] | None:
    sender = _octets(ledger, Column.SENDER, row["sender"])
    # The mark of an erased recipient names nobody.
    recipient = row["recipient"] if row["erased"] else _octets(ledger, Column.RECIPIENT, row["recipient"])
    before = row["subscriber"]
    subscriber = None if before is None else _octets(ledger, Column.SUBSCRIBER, before)
    if (sender, recipient, subscriber) == (row["sender"], row["recipient"], before):
        return None
    return row["id"], row["sender"], sender, row["recipient"], recipient, before, subscriber


def _reply(ledger: Ledger, row: Record) -> tuple[object, ...] | None:
    reply = _words(ledger, Column.REPLY, row["reply"])
    return None if reply == row["reply"] else (row["message"], row["reply"], reply)


def _event(ledger: Ledger, row: Record) -> tuple[object, ...] | None:
    before = row["reason"], row["description"], row["raw"]
    after = (
        # What speaks against a machine names nobody, and is asked for as it is.
        _words(ledger, Column.REPLY, row["reason"]) if row["worded"] else row["reason"],
        _words(ledger, Column.DESCRIPTION, row["description"]),
        None if row["raw"] is None else _octets(ledger, Column.RAW, row["raw"]),
    )
    return None if before == after else (row["recorded_at"], row["id"], row["message"], *before, *after)


def _suppression(ledger: Ledger, row: Record) -> tuple[object, ...] | None:
    recipient = _octets(ledger, Column.SUPPRESSED, row["recipient"])
    before: bytes = row["recipient"]
    return None if recipient == before else (row["source"], row["recipient_index"], before, recipient)


def _parked(ledger: Ledger, row: Record) -> tuple[object, ...] | None:
    payload = _octets(ledger, Column.PARKED, row["payload"])
    return None if payload == row["payload"] else (row["id"], row["payload"], payload)


async def _bodies(ledger: Ledger, rows: Sequence[Record], counts: Counter[str]) -> None:
    """Exchange stored submissions one by one: each may have megabytes."""
    for row in rows:
        if all(ledger.sealer.is_current(row[name]) for name in ("envelope", "content")):
            continue
        stored = await ledger.fetchrow("load_body", row["day"], row["id"])
        if stored is None:
            continue
        try:
            envelope = _octets(ledger, Column.ENVELOPE, stored["envelope"])
            content = _octets(ledger, Column.CONTENT, stored["content"])
        except SealedError:
            counts[UNREADABLE] += 1
        else:
            counts["bodies"] += len(await ledger.fetch("exchange_body", row["day"], row["id"], envelope, content))


def _octets(ledger: Ledger, column: Column, stored: bytes) -> bytes:
    sealer = ledger.sealer
    return stored if sealer.is_current(stored) else sealer.seal(column, sealer.open(column, stored))


def _words(ledger: Ledger, column: Column, stored: str | None) -> str | None:
    sealer = ledger.sealer
    return stored if sealer.is_current_text(stored) else sealer.seal_text(column, sealer.open_text(column, stored))
