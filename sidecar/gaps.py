"""Show the hits that trackers kept and the ledger never saw: 0, unless something was lost."""

import structlog
from prometheus_client import Gauge

from ledger.numbers import Account

log = structlog.get_logger()

GAPS = Gauge(
    "outrider_hit_gaps",
    "Numbers of hits that a tracker kept and that never came to the ledger; anything but 0 is a loss.",
    multiprocess_mode="livemostrecent",
)


def note_gaps(account: Account, before: int) -> int:
    """Show how many hits are missing, say so where they were *before* fewer, and return the number."""
    GAPS.set(account.missing)
    if account.missing > before:
        log.error("hits_missing", missing=account.missing, recorded=account.recorded, lost=account.lost)
    return account.missing
