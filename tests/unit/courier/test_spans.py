"""A batch's numbers become runs, whatever its order and whatever else stands in it."""

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from courier.spans import spans
from ledger.events import Hit
from ledger.numbers import Span
from tests.mailings import hit

A, B = b"writer A", b"writer B"


def numbered(writer: bytes, number: int, settled: int = 0, lost: int = 0) -> Hit:
    """Return a hit with a number."""
    return msgspec.structs.replace(hit(bytes(16)), writer=writer, number=number, settled=settled, lost=lost)


def test_runs_are_by_writer_and_end_at_gaps() -> None:
    """In any order; a copy is no second one; the furthest mark of a run counts."""
    hits = [numbered(A, 3, 2), numbered(B, 7), numbered(A, 2, 1, 1), numbered(A, 5, 4), numbered(A, 2, 1, 1)]
    assert spans(hits) == [
        Span(writer=A, first=2, last=3, settled=2, lost=1),
        Span(writer=A, first=5, last=5, settled=4, lost=0),
        Span(writer=B, first=7, last=7, settled=0, lost=0),
    ]


def test_what_is_no_number_is_passed_over() -> None:
    """Hits from before there were numbers, and whatever else an entry says."""
    odd = [
        hit(bytes(16)),
        numbered(b"", 1),
        numbered(b"short", 1),
        numbered(A, 0),
        numbered(A, -4),
        numbered(A, 2**63),
        numbered(A, 1, settled=-1),
        numbered(A, 1, settled=2**64),
        numbered(A, 1, lost=2**62),
    ]
    assert spans(odd) == []


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 40))))
def test_runs_hold_all_numbers_and_no_others(places: list[tuple[bytes, int]]) -> None:
    """Invariant: what the runs hold is what the hits had, and no two runs touch."""
    found = spans(numbered(writer, number) for writer, number in places)
    held = [(run.writer, number) for run in found for number in range(run.first, run.last + 1)]
    assert sorted(held) == sorted(set(places))
    for one, following in itertools.pairwise(found):
        assert one.writer < following.writer or one.last + 1 < following.first
