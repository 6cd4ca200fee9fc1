"""Status says which stage is unwell, and why; when all is well it says nothing."""

from datetime import UTC, datetime

import msgspec
import pytest

from courier.stream import Backlog
from ledger.numbers import Account
from ledger.sinks import SinkStanding
from ledger.standing import Standing
from ledger.upstreams import UpstreamStanding
from sidecar.troubles import troubles

NOTHING = Backlog(hits=0, oldest_seconds=0.0)
WELL = Standing(
    processes={"relay": 1, "courier": 1},
    upstreams=(),
    queued=4,
    oldest_seconds=30.0,
    hits=Account(recorded=10, lost=1, missing=0),
    ams_pending=3,
    ams_parked=0,
    ams_oldest_seconds=20.0,
    ams_error=None,
    sinks=(),
    unmatched=(),
    tracking=(),
)
SINK = SinkStanding(
    name="shop",
    configured=True,
    pending=3,
    parked=0,
    oldest_seconds=10.0,
    failures=0,
    last_error=None,
    held=None,
)
LEFT = UpstreamStanding(
    upstream="mx.example.com:25",
    processes=1,
    left_by=1,
    left_since=datetime(2026, 11, 22, tzinfo=UTC),
    reason="auth 535",
)


def changed(**fields: object) -> Standing:
    """Return a standing that differs from one that is well."""
    return msgspec.structs.replace(WELL, **fields)


def test_what_is_well_is_no_trouble() -> None:
    """Waiting for a while is what queues are for, and nobody runs where nothing waits."""
    assert troubles(WELL, Backlog(hits=900, oldest_seconds=3.0)) == []
    idle = changed(processes={}, queued=0, oldest_seconds=0.0, ams_pending=0, ams_oldest_seconds=0.0, sinks=(SINK,))
    assert troubles(idle, NOTHING) == []


@pytest.mark.parametrize(
    ("standing", "backlog", "said"),
    [
        (changed(upstreams=(LEFT,)), NOTHING, "upstream mx.example.com:25 is left alone (auth 535): its mail waits"),
        (changed(processes={"courier": 1}), NOTHING, "no relay runs: queued mail waits"),
        (changed(oldest_seconds=7200.0), NOTHING, "the oldest queued message has waited for 2.0 h"),
        (WELL, None, "Redis does not answer: hits wait in the trackers' journals"),
        (changed(processes={"relay": 1}), NOTHING, "no courier runs: hits are not recorded, and AMS hears nothing"),
        (
            WELL,
            Backlog(hits=200_000, oldest_seconds=9.0),
            "200000 hits wait to be recorded: the courier does not keep up",
        ),
        (
            changed(hits=Account(recorded=10, lost=0, missing=2)),
            NOTHING,
            "2 hits were kept by a tracker and never came",
        ),
        (
            changed(ams_oldest_seconds=5400.0, ams_error="no answer: timeout"),
            NOTHING,
            "AMS has not heard of the oldest event for 1.5 h (no answer: timeout)",
        ),
        (changed(ams_parked=1), NOTHING, "AMS refused 1 items, which are parked"),
        (
            changed(sinks=(msgspec.structs.replace(SINK, held="HTTP 410"),)),
            NOTHING,
            "sink shop is held: HTTP 410",
        ),
        (
            changed(sinks=(msgspec.structs.replace(SINK, oldest_seconds=3600.0),)),
            NOTHING,
            "sink shop has not heard of the oldest event for 1.0 h",
        ),
    ],
)
def test_a_stage_that_is_unwell_is_named_with_its_reason(
    standing: Standing, backlog: Backlog | None, said: str
) -> None:
    """Alone, and in the order of the pipe among others."""
    assert troubles(standing, backlog) == [said]
