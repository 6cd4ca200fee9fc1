"""How many messages may leave in a time: read a rate, and give out turns under it.

Pure: the time is given. A bucket holds what passes in one second, or one message; turns are given ahead of time as
long as somebody has the patience to wait for his, and who has not is told when to come back.
"""

import re
from collections.abc import Sequence

import msgspec

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"\A([1-9][0-9]{0,8})/([smhd])\Z")
_DOMAIN = re.compile(r"\A[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\Z")

#: Nobody is sent away for longer, in seconds.
LONGEST_WAIT = 4 * 3600.0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """So many messages in so many seconds."""

    messages: int
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds from one message to the next."""
        return self.seconds / self.messages

    @property
    def slack(self) -> float:
        """Seconds that a message may come before its time: what passes in a second may pass at once."""
        return max(0.0, 1.0 - self.interval)


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and what it is counted under."""

    key: str
    rate: Rate
    #: Raised when whoever waits was called back: what was promised under an earlier one is void.
    epoch: int = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What a message is told."""

    #: It has its turn, in `seconds`; else it has none, and may come back after `seconds`.
    taken: bool
    seconds: float


def parse_rate(text: str) -> Rate:
    """Return the rate of `50/s`, `10/m`, `1000/h` or `5000/d`; raise `ValueError` with what is expected."""
    match = _RATE.match(text)
    if match is None:
        raise ValueError("expected a rate such as 50/s, 10/m, 1000/h or 5000/d")
    return Rate(messages=int(match[1]), seconds=_UNITS[match[2]])


def parse_domain_rate(text: str) -> tuple[str, Rate]:
    """Return the domain and the rate of `example.net=10/m`; raise `ValueError` with what is expected."""
    domain, equals, rate = text.partition("=")
    if not equals or not _DOMAIN.match(domain.strip()):
        raise ValueError("expected a recipient domain and its rate, such as example.net=10/m")
    return domain.strip().lower(), parse_rate(rate.strip())


class Buckets:
    """The turns given out so far, under each key: the rules that `relay.upstream_rates` has for all processes."""

    def __init__(self) -> None:
        # By key: when the next turn is, and when whoever was sent away last comes back.
        self._next: dict[str, float] = {}
        self._promised: dict[tuple[str, int], float] = {}

    def take(self, limits: Sequence[Limit], *, patience: float, now: float) -> Turn:
        """Give a turn under all *limits* within *patience* seconds, or under none of them."""
        waits = [max(self._next.get(limit.key, now) - limit.rate.slack - now, 0.0) for limit in limits]
        wait = max(waits, default=0.0)
        if wait <= patience:
            for limit in limits:
                self._next[limit.key] = max(self._next.get(limit.key, now), now) + limit.rate.interval
            return Turn(taken=True, seconds=wait)
        # One after another, so that they do not all come back at once.
        for limit, its_wait in zip(limits, waits, strict=True):
            if its_wait > patience:
                promise = limit.key, limit.epoch
                back = max(self._promised.get(promise, now), now + its_wait)
                wait = max(wait, back - now)
                # Beyond what anybody waits nothing is promised: who comes back early finds the line as it is then.
                if back - now <= LONGEST_WAIT:
                    self._promised[promise] = back + limit.rate.interval
        return Turn(taken=False, seconds=min(wait, LONGEST_WAIT))
