"""Engagement is a function of the set of events: any order, any duplication, any batching gives the same."""

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from courier.engagement import Event, changes, counters, engagement, sum_up, tallies
from ledger.engagements import Engagement
from ledger.events import EventType

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

FLAGS = ("delivered_at", "first_opened_at", "first_clicked_at", "bounced_at", "complained_at", "unsubscribed_at")


def event(
    kind: EventType, seconds: int = 0, *, dedupe: int = 0, machine: bool = False, source: str = "tracker"
) -> Event:
    """Return an event some seconds after noon."""
    return Event(
        dedupe=dedupe.to_bytes(4, "big"),
        type=kind,
        source=source,
        machine=machine,
        at=NOON + timedelta(seconds=seconds),
    )


@st.composite
def event_sets(draw: st.DrawFn) -> list[Event]:
    """Return events with different dedupe ids."""
    facts = draw(
        st.lists(
            st.tuples(
                st.sampled_from(list(EventType)),
                st.integers(0, 5),
                st.booleans(),
                st.sampled_from(["tracker", "ses", "relay"]),
            ),
            max_size=12,
        )
    )
    return [
        event(kind, seconds, dedupe=number, machine=machine, source=source)
        for number, (kind, seconds, machine, source) in enumerate(facts)
    ]


@given(event_sets(), st.randoms(use_true_random=False))
def test_order_and_copies_change_nothing(events: list[Event], random: Random) -> None:
    """Invariant: a shuffled list with copies gives the same row."""
    copies = events + [random.choice(events) for _ in range(len(events))]
    random.shuffle(copies)
    assert engagement(copies) == engagement(events)


@given(event_sets(), event_sets())
def test_flags_only_rise(before: list[Event], more: list[Event]) -> None:
    """Invariant: with more events no flag falls, no count sinks, and no first time becomes later."""
    later = [*before, *(event(e.type, dedupe=100 + n, machine=e.machine, source=e.source) for n, e in enumerate(more))]
    low, high = engagement(before), engagement(later)
    for flag in FLAGS:
        was, now = getattr(low, flag), getattr(high, flag)
        assert was is None or (now is not None and now <= was)
    for counter, amount in counters(low).items():
        assert counters(high)[counter] >= amount


@given(event_sets())
def test_a_click_implies_an_open(events: list[Event]) -> None:
    """Invariant: whoever clicked has opened, at the click at the latest; no open is counted for it."""
    row = engagement(events)
    if row.first_clicked_at is not None:
        assert row.first_opened_at is not None
        assert row.first_opened_at <= row.first_clicked_at
        assert row.last_opened_at is not None
    assert (row.first_opened_at is None) == (row.last_opened_at is None)
    assert counters(row)["unique_opens"] >= counters(row)["unique_clicks"]


@given(event_sets(), event_sets())
def test_changes_lead_from_one_row_to_the_next(one: list[Event], other: list[Event]) -> None:
    """Invariant: counters before plus changes are the counters after."""
    before, after = engagement(one), engagement(other)
    moved = changes(before, after)
    assert all(moved.values())
    assert {name: amount + moved.get(name, 0) for name, amount in counters(before).items()} == counters(after)


@given(event_sets())
def test_the_definition_goes_by_tallies(events: list[Event]) -> None:
    """Invariant: what the ledger counts in SQL is all that the definition needs."""
    assert sum_up(tallies(events), injected=True) == engagement(events)


def test_no_events_is_the_empty_row() -> None:
    """A message of which nothing is known has engaged nobody."""
    assert engagement([]) == Engagement()
    assert not any(counters(Engagement()).values())


def test_machines_count_apart_and_raise_no_flag() -> None:
    """A machine's open and click are counted as such and say nothing of a person."""
    row = engagement(
        [
            event(EventType.OPENED, dedupe=1, machine=True),
            event(EventType.CLICKED, dedupe=2, machine=True),
        ]
    )
    assert row == Engagement(machine_opens=1, machine_clicks=1)


def test_one_reader_seen_by_two_sources_is_one_open() -> None:
    """Our pixel and the provider's see the same open."""
    row = engagement(
        [
            event(EventType.OPENED, dedupe=1),
            event(EventType.OPENED, 1, dedupe=2, source="ses"),
            event(EventType.OPENED, 9, dedupe=3),
        ]
    )
    assert (row.opens, row.first_opened_at, row.last_opened_at) == (2, NOON, NOON + timedelta(seconds=9))


def test_first_times_are_kept_whatever_arrives_first() -> None:
    """An open that is told after the click, a delivery told last: the times are those of the events."""
    row = engagement(
        [
            event(EventType.CLICKED, 7, dedupe=1),
            event(EventType.OPENED, 5, dedupe=2),
            event(EventType.UNSUBSCRIBED, 9, dedupe=4),
            event(EventType.UNSUBSCRIBED, 8, dedupe=5),
            event(EventType.DELIVERED, 1, dedupe=3),
        ]
    )
    assert row == Engagement(
        opens=1,
        clicks=1,
        delivered_at=NOON + timedelta(seconds=1),
        first_opened_at=NOON + timedelta(seconds=5),
        last_opened_at=NOON + timedelta(seconds=7),
        first_clicked_at=NOON + timedelta(seconds=7),
        unsubscribed_at=NOON + timedelta(seconds=8),
    )


def test_a_failed_delivery_engages_nobody() -> None:
    """A refusal at sending is the delivery's state, not engagement."""
    assert engagement([event(EventType.FAILED)]) == Engagement()
