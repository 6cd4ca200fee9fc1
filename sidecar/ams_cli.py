"""What the operator's commands answer about AMS: what it refused, with its words, and what it shows of a mailing."""

import argparse

from ledger import outbox
from ledger.outbox import Shown
from sidecar.answers import say, say_json
from sidecar.reach import opened
from sidecar.settings import Settings
from sidecar.tables import table


async def refused(settings: Settings, given: argparse.Namespace) -> int:
    """List the newest parked items."""
    async with opened(settings) as ledger:
        parked = await outbox.parked(ledger, given.limit)
    if given.json:
        say_json({"parked": parked})
        return 0
    rows = [(one.id, one.parked_at, one.mailing, one.key or "-", one.url, one.reason) for one in parked]
    say(table(("id", "parked at", "mailing", "message", "url", "reason"), rows) or ["AMS refused nothing"])
    return 0


def shown_line(shown: Shown) -> str:
    """Return what AMS itself shows of a campaign, for somebody to hold against our counts."""
    return f"AMS shows: {shown.opened} opened, {shown.clicks} clicked, as of {shown.seen_at:%Y-%m-%d %H:%M:%S %Z}"
