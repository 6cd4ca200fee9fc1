"""Count what recounts had to correct: 0, unless there is a defect."""

from collections.abc import Iterable

from prometheus_client import Gauge

from ledger.campaigns import Recount

DRIFT = Gauge(
    "outrider_count_drift",
    "By how much recounts had to correct campaign counters since this process started; anything but 0 is a defect.",
    multiprocess_mode="livesum",
)


def note_drift(recounts: Iterable[Recount]) -> int:
    """Count what a recount corrected, and return it."""
    drift = sum(abs(recount.drift) for recount in recounts)
    DRIFT.inc(drift)
    return drift
