"""Invariant: packs are what went in, in order, none empty, each within both bounds unless it is a single entry."""

from hypothesis import given
from hypothesis import strategies as st

from tracker.packs import COUNT, OCTETS, packs


@given(st.lists(st.integers(0, 2 * OCTETS), max_size=20).map(lambda sizes: [bytes(size) for size in sizes]))
def test_nothing_is_lost_and_no_pack_is_too_long(payloads: list[bytes]) -> None:
    """Whatever the lengths are."""
    found = list(packs(payloads))
    assert [payload for pack in found for payload in pack] == payloads
    assert all(pack for pack in found)
    assert all(len(pack) == 1 or sum(map(len, pack)) <= OCTETS for pack in found)


def test_a_pack_has_so_many_entries() -> None:
    """Also where they are short."""
    assert [len(pack) for pack in packs([b"x"] * (2 * COUNT + 1))] == [COUNT, COUNT, 1]


def test_a_pack_is_as_full_as_it_can_be() -> None:
    """Also where they are long."""
    assert [len(pack) for pack in packs([bytes(OCTETS // 4)] * 9)] == [4, 4, 1]
