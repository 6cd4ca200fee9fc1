"""When a queued message is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from relay.queue import LONGEST_WAIT, retry_wait


@given(st.integers(0, 10_000), st.floats(0.01, 3600), st.floats(0, 1))
def test_the_wait_is_bounded(attempts: int, first: float, chance: float) -> None:
    """Never sooner than nine tenths of the first wait, never much later than the longest."""
    wait = retry_wait(attempts, first=first, chance=chance)
    assert 0.9 * min(first, LONGEST_WAIT) <= wait <= 1.1 * LONGEST_WAIT


def test_the_wait_doubles() -> None:
    """Without jitter 60 seconds, then 120, then 240."""
    assert [retry_wait(attempts, first=60, chance=0.5) for attempts in range(3)] == [60, 120, 240]
