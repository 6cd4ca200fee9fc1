"""How the relay's processes find their upstreams: each tells, and anybody may ask.

It is for people to read; no process decides about mail by it.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.store import Ledger


class UpstreamState(msgspec.Struct, frozen=True, kw_only=True):
    """How one process finds one upstream."""

    #: host:port
    upstream: str
    #: Since when it offers no mail to it; None while it does.
    left_since: datetime | None = None
    #: Why not: `auth 535`.
    reason: str | None = None


class UpstreamStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How all living processes find one upstream."""

    upstream: str
    #: How many of them use it.
    processes: int
    #: How many of those leave it alone now.
    left_by: int
    #: Since when the first of them does, and why; None while all offer mail to it.
    left_since: datetime | None
    reason: str | None


async def note_upstreams(ledger: Ledger, process: int, states: Sequence[UpstreamState]) -> None:
    """Tell how *process* finds its upstreams; nothing is written where nothing has changed."""
    if not states:
        return
    await ledger.execute(
        "note_upstreams",
        process,
        [one.upstream for one in states],
        [one.left_since for one in states],
        [one.reason for one in states],
    )


async def upstreams(ledger: Ledger) -> tuple[UpstreamStanding, ...]:
    """Return how the upstreams stand, by name."""
    rows = await ledger.fetch("report_upstreams")
    return tuple(msgspec.convert(dict(row), UpstreamStanding) for row in rows)
