"""A burst is a property of the set of hits: so many different links within so many seconds, by the time of the hits."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.bursts import Seen, in_bursts

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PHONE, SANDBOX = ("192.0.2.0/24", "phone"), ("198.51.100.0/24", "chrome")


def seen(
    number: int,
    seconds: float,
    link: int | str | None,
    *,
    visitor: tuple[str, str] | None = SANDBOX,
    source: str = "tracker",
) -> Seen:
    """Return a hit some seconds after noon."""
    at = NOON + timedelta(seconds=seconds)
    return Seen(id=number.to_bytes(4, "big"), source=source, link=link, visitor=visitor, at=at)


def numbers(found: Iterable[bytes]) -> list[int]:
    """Return the numbers of hits."""
    return sorted(int.from_bytes(one, "big") for one in found)


def clicks(*seconds: float) -> list[Seen]:
    """Return clicks on one link after the other at these seconds."""
    return [seen(number, at, number) for number, at in enumerate(seconds)]


def by_definition(hits: list[Seen], links: int, seconds: float) -> set[bytes]:
    """Say it as it is meant: look through every window that ends with a hit."""
    found: set[bytes] = set()
    for last in hits:
        begin = last.at - timedelta(seconds=seconds)
        window = [hit for hit in hits if hit.source == last.source and begin <= hit.at <= last.at]
        clicked = [hit for hit in window if hit.link is not None]
        if len({hit.link for hit in clicked}) >= links:
            visitors = {hit.visitor for hit in clicked} - {None}
            found |= {hit.id for hit in window if hit.link is not None or hit.visitor in visitors}
    return found


@st.composite
def hit_sets(draw: st.DrawFn) -> list[Seen]:
    """Return hits with different ids, many at the same second, on few links, by few visitors."""
    facts = st.tuples(
        st.integers(0, 40),
        st.sampled_from([None, None, 0, 1, 2, 3, "https://example.com/"]),
        st.sampled_from([None, PHONE, SANDBOX]),
        st.sampled_from(["tracker", "tracker", "ses"]),
    )
    return [
        seen(number, seconds, link, visitor=visitor, source=source)
        for number, (seconds, link, visitor, source) in enumerate(draw(st.lists(facts, max_size=25)))
    ]


@given(hit_sets(), st.integers(2, 4), st.integers(1, 20), st.randoms(use_true_random=False))
def test_order_and_copies_change_nothing(hits: list[Seen], links: int, seconds: int, random: Random) -> None:
    """Invariant: it is the definition, whatever the order, and copies add nothing."""
    copies = [*hits, *random.choices(hits, k=len(hits))] if hits else []
    random.shuffle(copies)
    assert in_bursts(copies, links=links, seconds=seconds) == by_definition(hits, links, seconds)


@given(hit_sets(), st.integers(0, 25))
def test_more_hits_take_nothing_back_and_change_only_what_is_near(hits: list[Seen], known: int) -> None:
    """Invariant: what was of a burst stays, and one more hit matters within its seconds alone."""
    earlier, later = hits[:known], hits[: known + 1]
    before, after = (in_bursts(some, links=3, seconds=10) for some in (earlier, later))
    assert before <= after
    if later != earlier:
        near = [hit for hit in later if abs(hit.at - later[-1].at) <= timedelta(seconds=10)]
        assert after == before | in_bursts(near, links=3, seconds=10)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ((0, 20, 40, 60), [0, 1, 2, 3]),
        ((0, 20, 40, 60.001), []),
        # It is complete once more with each click that follows within the seconds of three others.
        ((0, 20, 40, 60, 80, 100, 200), [0, 1, 2, 3, 4, 5]),
        ((0, 100, 101, 102, 103, 300), [1, 2, 3, 4]),
        ((7, 7, 7, 7), [0, 1, 2, 3]),
        ((0, 1, 2), []),
    ],
)
def test_four_links_within_a_minute(seconds: tuple[float, ...], found: list[int]) -> None:
    """From the first to the last, both included."""
    assert numbers(in_bursts(clicks(*seconds), links=4, seconds=60)) == found


def test_one_link_is_one_however_often_it_is_clicked() -> None:
    """Somebody who is impatient clicks again and again, and is a person."""
    assert in_bursts([seen(number, number, number % 3) for number in range(50)], links=4, seconds=60) == set()


def test_two_who_saw_the_same_reader_make_no_burst_of_him() -> None:
    """Two links, told by our own redirect and by the provider's."""
    hits = [seen(0, 0, 0), seen(1, 1, 1), seen(2, 0, "https://a.example/", source="ses"), seen(3, 1, "b", source="ses")]
    assert in_bursts(hits, links=4, seconds=60) == set()


def test_an_open_belongs_to_its_visitors_burst() -> None:
    """The sandbox that follows the links has fetched the pixel too; whoever reads elsewhere has not."""
    opens = [
        seen(10, 30, None),
        seen(11, 30, None, visitor=PHONE),
        seen(12, 30, None, visitor=None),
        seen(13, 70, None),
    ]
    assert numbers(in_bursts([*clicks(0, 1, 2, 3), *opens], links=4, seconds=60)) == [0, 1, 2, 3, 10]


def test_a_burst_can_be_switched_off() -> None:
    """No number of links is one."""
    assert in_bursts(clicks(*range(50)), links=0, seconds=60) == set()


def test_a_flood_of_hits_costs_no_more_than_its_length() -> None:
    """Ten thousand opens by a visitor who clicks, all within the seconds of a burst, are each looked at a few times."""
    hits = [seen(number, number / 1000, None) for number in range(10_000)]
    hits += [seen(20_000 + number, number * 2, number) for number in range(5)]
    assert len(in_bursts(hits, links=4, seconds=60)) == len(hits)
