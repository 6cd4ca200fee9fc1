"""What a repeat is, and what is a new message."""

from datetime import UTC, datetime, timedelta

import pytest

from ledger.mail_rows import Known
from relay.correlate import Repeat, judge

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OURSELVES, SOMEBODY = 1, 2


def _known(**changes: object) -> Known:
    fields: dict[str, object] = {
        "id": 1,
        "submission": None,
        "turn": 1,
        "body_digest": b"same",
        "accepted_at": NOW - timedelta(seconds=10),
        "status": "sent",
        "worker": None,
        "stored": False,
        "worked_on": False,
        "paused": False,
    }
    return Known(**(fields | changes))  # type: ignore[arg-type]  # fields by name, checked at run time


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Repeat.DONE),
        ({"status": "queued", "stored": True}, Repeat.DONE),
        ({"status": "suppressed"}, Repeat.DONE),
        ({"status": "sending", "stored": True, "worker": SOMEBODY, "worked_on": True}, Repeat.DONE),
        ({"body_digest": b"other"}, Repeat.NEW),
        ({"accepted_at": NOW - timedelta(seconds=101)}, Repeat.NEW),
        ({"accepted_at": NOW - timedelta(seconds=100)}, Repeat.DONE),
        ({"status": "failed"}, Repeat.AGAIN),
        ({"status": "refused"}, Repeat.AGAIN),
        ({"status": "accepted", "worker": SOMEBODY, "worked_on": True}, Repeat.IN_FLIGHT),
        ({"status": "accepted", "worker": SOMEBODY, "worked_on": False}, Repeat.AGAIN),
        ({"status": "accepted", "worker": OURSELVES, "worked_on": True}, Repeat.AGAIN),
    ],
)
def test_the_table_of_repeats(changes: dict[str, object], expected: Repeat) -> None:
    """Each row of CONTRACT section 3."""
    assert judge(_known(**changes), body_digest=b"same", window=100, now=NOW, process=OURSELVES) is expected
