"""Turns come at the rate, at once where there is slack; who has to come back comes back in order."""

import pytest

from relay.rate import LONGEST_WAIT, Buckets, Limit, Rate, parse_domain_rate, parse_rate


@pytest.mark.parametrize(
    ("text", "interval", "slack"),
    [("50/s", 0.02, 0.98), ("1/s", 1.0, 0.0), ("10/m", 6.0, 0.0), ("7200/h", 0.5, 0.5), ("1/d", 86400.0, 0.0)],
)
def test_a_rate(text: str, interval: float, slack: float) -> None:
    """So many in a second, minute, hour or day."""
    rate = parse_rate(text)
    assert (rate.interval, rate.slack) == pytest.approx((interval, slack))


@pytest.mark.parametrize("text", ["", "50", "0/s", "-1/s", "50/w", "5.5/s", "50/s ", "\u0661/s", "9999999999/s"])
def test_no_rate(text: str) -> None:
    """What is meant is said."""
    with pytest.raises(ValueError, match="expected a rate such as 50/s"):
        parse_rate(text)


def test_a_domain_rate() -> None:
    """The domain in lower case."""
    assert parse_domain_rate("Example.NET = 10/m") == ("example.net", Rate(messages=10, seconds=60.0))


@pytest.mark.parametrize("text", ["example.net", "=10/m", "ex ample.net=10/m", "a..b=1/s", "-" * 5000 + "!=1/s"])
def test_no_domain_rate(text: str) -> None:
    """What is meant is said, soon."""
    with pytest.raises(ValueError, match="expected a recipient domain and its rate"):
        parse_domain_rate(text)


def limit(text: str, key: str = "x") -> Limit:
    """Return a limit."""
    return Limit(key=key, rate=parse_rate(text))


def test_what_passes_in_a_second_passes_at_once() -> None:
    """50/s: 50 at once, then one each 20 ms; after a second of silence 50 again."""
    buckets = Buckets()
    waits = [buckets.take([limit("50/s")], patience=1.0, now=10.0).seconds for _ in range(60)]
    assert waits[:50] == [0.0] * 50
    assert waits[50:] == pytest.approx([0.02 * step for step in range(1, 11)])
    again = [buckets.take([limit("50/s")], patience=1.0, now=12.0).seconds for _ in range(50)]
    assert again == pytest.approx([0.0] * 50)


def test_nobody_waits_longer_than_he_has_patience() -> None:
    """10/m: one at once, one in 6 s; the third is told to come back, and takes no turn with him."""
    buckets = Buckets()
    turns = [buckets.take([limit("10/m")], patience=10.0, now=0.0) for _ in range(3)]
    assert [(turn.taken, turn.seconds) for turn in turns] == [(True, 0.0), (True, 6.0), (False, 12.0)]
    assert buckets.take([limit("10/m")], patience=10.0, now=12.0).seconds == 0.0


def test_who_comes_back_comes_back_one_after_another() -> None:
    """A hundred sent away at once return at the rate, and each finds his turn."""
    buckets = Buckets()
    back = [buckets.take([limit("10/m")], patience=0.0, now=0.0).seconds for _ in range(101)][1:]
    assert back == pytest.approx([6.0 * step for step in range(1, 101)])
    assert all(buckets.take([limit("10/m")], patience=0.0, now=when).taken for when in back)


def test_nothing_is_promised_beyond_the_longest_wait() -> None:
    """The line that is promised stays as long as what passes meanwhile; the rest comes back and finds it short."""
    buckets = Buckets()
    waits = [buckets.take([limit("1/h")], patience=0.0, now=0.0).seconds for _ in range(50)]
    assert max(waits) == LONGEST_WAIT
    assert [buckets.take([limit("1/h")], patience=0.0, now=LONGEST_WAIT).taken for _ in range(2)] == [True, False]


def test_all_limits_or_none() -> None:
    """What one limit refuses takes nothing from another."""
    buckets = Buckets()
    slow, fast = limit("1/m", "slow"), limit("1/s", "fast")
    assert buckets.take([slow], patience=0.0, now=0.0).taken
    assert not buckets.take([fast, slow], patience=0.0, now=0.0).taken
    assert buckets.take([fast], patience=0.0, now=0.0).taken
