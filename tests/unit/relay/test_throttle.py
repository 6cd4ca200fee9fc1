"""How fast a campaign's mail may leave: its own word, else the first setting that matches, else as it comes."""

import pytest

from ledger.throttles import Throttle
from relay.rate import Buckets, Limit, Rate
from relay.throttle import limit_of, parse_campaign_rate, parse_own_rate

SETTINGS = [parse_campaign_rate(text) for text in ("spring-sale=1/s", "spring*=100/m", "*=10/s")]


def throttle(rate: str | None = None, *, campaign: int = 7, epoch: int = 0) -> Throttle:
    """Return what stands with a message of a campaign."""
    return Throttle(campaign=campaign, rate=rate, epoch=epoch)


def rate_of(name: str, own: str | None = None) -> Rate | None:
    """Return the rate of a campaign under the settings above."""
    limit = limit_of(throttle(own), name, SETTINGS)
    return None if limit is None else limit.rate


def test_the_first_match_wins() -> None:
    """Names are told apart by their letters' case, as everywhere."""
    assert rate_of("spring-sale") == Rate(messages=1, seconds=1.0)
    assert rate_of("spring-news") == Rate(messages=100, seconds=60.0)
    assert rate_of("Spring-news") == Rate(messages=10, seconds=1.0)
    assert limit_of(throttle(), "autumn", SETTINGS[:2]) is None


def test_an_operator_s_word_stands_before_the_settings() -> None:
    """Also that there is no limit; of what cannot be read no notice is taken."""
    assert rate_of("spring-sale", "5/h") == Rate(messages=5, seconds=3600.0)
    assert rate_of("spring-sale", "none") is None
    assert rate_of("spring-sale", "1/fortnight") == Rate(messages=1, seconds=1.0)
    assert limit_of(throttle("5/h"), "autumn", []) == Limit(key="campaign:7", rate=Rate(messages=5, seconds=3600.0))


def test_mail_without_a_campaign_is_exempt() -> None:
    """Whatever the pattern."""
    assert limit_of(None, "", SETTINGS) is None


def test_each_campaign_has_the_rate_for_itself() -> None:
    """Two that match one setting, and two of one name that belong to two sources."""
    keys = {limit.key for row in (1, 2) if (limit := limit_of(throttle(campaign=row), "spring-x", SETTINGS))}
    assert len(keys) == 2


@pytest.mark.parametrize("text", ["", "100/m", "=100/m", "spring", "spring=", "spring=100", "sp?ing=1/s", "a b=1/s"])
def test_no_campaign_rate(text: str) -> None:
    """What is expected is said."""
    with pytest.raises(ValueError, match=r"expected a (campaign and its )?rate"):
        parse_campaign_rate(text)


def test_what_an_operator_may_give() -> None:
    """A rate or none; the rest is named."""
    assert [parse_own_rate(text) for text in (" 100/m ", "none")] == ["100/m", "none"]
    for text in ("", "None", "0/s", "100", "fast"):
        with pytest.raises(ValueError, match=r"expected a rate .*, or none"):
            parse_own_rate(text)


def test_who_is_called_back_lines_up_anew() -> None:
    """What was promised before is void; the turns that were taken are not."""
    buckets = Buckets()

    def waits(count: int, *, epoch: int) -> list[float]:
        limit = limit_of(throttle("1/m", epoch=epoch), "x", ())
        assert limit is not None
        return [buckets.take([limit], patience=0.0, now=0.0).seconds for _ in range(count)]

    assert waits(4, epoch=0) == [0.0, 60.0, 120.0, 180.0]
    assert waits(3, epoch=1) == [60.0, 120.0, 180.0]
