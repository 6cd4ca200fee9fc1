"""What `forget` does: erase a person everywhere, wait for what is under way, and print a receipt that names nobody.

It may be run again at any time: what is erased is not found any more, and what was in hand then is erased now.
"""

import argparse
import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from courier.stream import StreamUnavailableError, emptied
from ledger import erasure
from ledger.ids import key_text, recipient_index
from ledger.processes import check_identity
from ledger.store import Ledger
from ledger.traces import Traces
from sidecar.answers import mailbox, say, say_json
from sidecar.capture_files import forget_captured
from sidecar.failures import CommandError
from sidecar.keys import load_keys
from sidecar.reach import opened
from sidecar.settings import CAPTURE_DIRECTORY, JOURNAL_DIRECTORY, Settings
from sidecar.tables import table
from tracker.segment import used

#: Seconds that hits under way get to be recorded, and messages under way to be sent.
PATIENCE = 15.0

_LOOK_SECONDS = 0.5

Hits = Literal["recorded", "waiting", "unknown"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How many of what were erased, and what is left to do."""

    at: datetime
    #: Messages whose recipient it was; of them, those that waited and are not sent now.
    messages: int
    cancelled: int
    #: Other messages that named it: as their sender, or in a Message-ID.
    mentions: int
    #: Answers of upstreams and of AMS that named it.
    replies: int
    #: Events with a link or a reason that named it.
    events: int
    parked_events: int
    #: What AMS was still to hear: it is not told.
    ams_items: int
    #: The same of sinks.
    sink_items: int
    #: Stored submissions that nobody needs any more.
    bodies: int
    #: Entries of the suppression list that stand on without the address.
    suppressions: int
    captured: int
    #: Messages to it that are being sent now: run the command again.
    in_flight: int
    #: Stored submissions that name it and are still needed for somebody else.
    bodies_needed: int
    #: Whether the hits that were under way are recorded.
    hits: Hits

    @property
    def found(self) -> bool:
        """Whether there was anything."""
        return any(value for value in msgspec.structs.astuple(self) if isinstance(value, int))


_WORDS = {
    "messages": "messages to it",
    "cancelled": "of them cancelled, because they waited",
    "mentions": "other messages that named it",
    "replies": "answers that named it",
    "events": "events that named it",
    "parked_events": "parked events",
    "ams_items": "items that AMS was to hear",
    "sink_items": "items that sinks were to hear",
    "bodies": "stored submissions",
    "suppressions": "suppressions, which stay without it",
    "captured": "captured messages",
}


async def forget(settings: Settings, given: argparse.Namespace) -> int:
    """Erase one address."""
    try:
        address = mailbox(given.address)
    except ValueError as error:
        raise CommandError(f"forget: {error}", code=2) from None
    identity_key = load_keys(settings).identity
    hits = await _hits(settings)
    async with opened(settings) as ledger:
        # With another key nothing would be found, and the receipt would lie.
        await check_identity(ledger, identity_key)
        index, traces = recipient_index(identity_key, address), Traces(address)
        receipt = await _erase(ledger, index, traces, settings.data_dir / CAPTURE_DIRECTORY, hits)
    if given.json:
        say_json(msgspec.structs.asdict(receipt))
    else:
        say(_lines(receipt))
    return 1 if receipt.in_flight else 0


async def _erase(ledger: Ledger, index: bytes, traces: Traces, capture: Path, hits: Hits) -> Receipt:
    counts: Counter[str] = Counter()
    messages: set[str] = set()
    deadline = time.monotonic() + PATIENCE
    while True:
        erased = await erasure.forget(ledger, index, traces)
        counts += erased.counts
        messages.update(map(key_text, erased.keys))
        if not erased.engaged or time.monotonic() > deadline:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    counts += await erasure.sweep(ledger, traces)
    counts["captured"] = await asyncio.to_thread(forget_captured, capture, messages, traces)
    return Receipt(
        at=datetime.now(UTC),
        **{name: counts[name] for name in _WORDS},
        in_flight=erased.engaged,
        bodies_needed=await erasure.bodies_naming(ledger, traces),
        hits=hits,
    )


async def _hits(settings: Settings) -> Hits:
    """Let what people did so far be recorded while it can be told whose it was."""
    if not settings.redis_url:
        return "unknown"
    journal = settings.data_dir / JOURNAL_DIRECTORY
    try:
        done = await emptied(settings.redis_url, patience=PATIENCE)
    except StreamUnavailableError:
        return "unknown"
    return "recorded" if done and not (journal.is_dir() and used(journal)) else "waiting"


def _lines(receipt: Receipt) -> list[str]:
    if not receipt.found:
        return ["nothing was found"]
    rows = [(count, words) for name, words in _WORDS.items() if (count := getattr(receipt, name))]
    lines = [f"erased at {receipt.at:%Y-%m-%dT%H:%M:%SZ}", *table((), rows)]
    if receipt.messages:
        lines.append("campaign mail does not reach it from now on: outrider suppress remove changes that")
    if receipt.in_flight:
        lines.append(f"{receipt.in_flight} being sent now: run this again")
    if receipt.bodies_needed:
        lines.append(f"{receipt.bodies_needed} stored for others name it: they go once they are sent")
    if receipt.hits != "recorded":
        lines.append("hits that are not recorded yet hold no address, unless a link of the mailer's does")
    return lines
