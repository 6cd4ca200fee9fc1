"""A hit says how far everything before it is settled, and never claims that of what still waits."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ledger.events import Hit
from tests.tracker_support import make_hits
from tracker.numbers import Numbers

WRITER = b"a writer"


def taken(numbers: Numbers) -> Hit:
    """Return the next numbered hit."""
    (hit,) = make_hits(1)
    return numbers.numbered(hit)


def facts(hit: Hit) -> tuple[bytes, int, int, int]:
    """Return what the numbering put into a hit."""
    return hit.writer, hit.number, hit.settled, hit.lost


def test_what_is_in_the_stream_is_settled() -> None:
    """Numbers count from 1, and the mark follows them."""
    numbers = Numbers(WRITER)
    for number in range(1, 4):
        hit = taken(numbers)
        assert facts(hit) == (WRITER, number, number - 1, 0)
        numbers.streamed(hit)


def test_what_is_under_way_holds_the_mark_back() -> None:
    """Whichever of two ends first."""
    numbers = Numbers(WRITER)
    first, second = taken(numbers), taken(numbers)
    numbers.streamed(second)
    assert taken(numbers).settled == 0
    numbers.streamed(first)
    assert taken(numbers).settled == 2


def test_what_waits_in_the_journal_holds_it_back_until_it_is_drained() -> None:
    """However many follow in the stream meanwhile."""
    numbers = Numbers(WRITER)
    numbers.streamed(taken(numbers))
    for _ in range(2):
        numbers.journaled(taken(numbers))
    for _ in range(5):
        hit = taken(numbers)
        assert hit.settled == 1
        numbers.streamed(hit)
    numbers.drained()
    assert taken(numbers).settled == 8


def test_what_was_lost_is_told_and_settled() -> None:
    """It is a loss that somebody knows of."""
    numbers = Numbers(WRITER)
    numbers.lost(taken(numbers))
    assert facts(taken(numbers)) == (WRITER, 2, 1, 1)


@given(st.lists(st.sampled_from(["take", "stream", "journal", "lose", "drain"]), max_size=60), st.randoms())
def test_the_mark_stands_before_all_that_waits(steps: list[str], chance: random.Random) -> None:
    """Invariant: everything up to the mark is in the stream or lost, and what follows it is not."""
    numbers = Numbers(WRITER)
    open_hits: list[Hit] = []
    waiting: set[int] = set()
    for step in [*steps, "take"]:
        if step == "take":
            hit = taken(numbers)
            unsettled = {one.number for one in open_hits} | waiting | {hit.number}
            assert hit.settled == min(unsettled) - 1
            open_hits.append(hit)
        elif step == "drain":
            numbers.drained()
            waiting.clear()
        elif open_hits:
            hit = open_hits.pop(chance.randrange(len(open_hits)))
            match step:
                case "stream":
                    numbers.streamed(hit)
                case "journal":
                    numbers.journaled(hit)
                    waiting.add(hit.number)
                case _:
                    numbers.lost(hit)
