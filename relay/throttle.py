"""How fast a campaign's mail may leave: by a rate of its own, else by the first setting that matches its name.

Pure. A campaign is one of one source: two sources that use one name have a rate each.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from ledger.throttles import UNLIMITED, Throttle
from relay.rate import Limit, Rate, parse_rate

_PATTERN = re.compile(r"\A[A-Za-z0-9._:*-]{1,253}\Z")


class CampaignRate(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and the campaigns that have it, each for itself."""

    #: A campaign as the mailer names it; `*` stands for any characters.
    pattern: str
    rate: Rate


def parse_campaign_rate(text: str) -> CampaignRate:
    """Return what `spring*=100/m` says; raise `ValueError` with what is expected."""
    pattern, equals, rate = text.partition("=")
    if not equals or not _PATTERN.match(pattern.strip()):
        raise ValueError("expected a campaign and its rate, such as spring*=100/m")
    return CampaignRate(pattern=pattern.strip(), rate=parse_rate(rate.strip()))


def parse_own_rate(text: str) -> str:
    """Return what an operator may give one campaign, a rate or `none`; raise `ValueError` with what is expected."""
    word = text.strip()
    if word != UNLIMITED:
        try:
            parse_rate(word)
        except ValueError as error:
            raise ValueError(f"{error}, or none") from None
    return word


def limit_of(throttle: Throttle | None, name: str, rates: Sequence[CampaignRate]) -> Limit | None:
    """Return the limit of a message of the campaign *name*; none without a campaign, or without a rate."""
    if throttle is None or throttle.rate == UNLIMITED:
        return None
    own = None if throttle.rate is None else _read(throttle.rate)
    rate = own or next((one.rate for one in rates if fnmatchcase(name, one.pattern)), None)
    if rate is None:
        return None
    return Limit(key=f"campaign:{throttle.campaign}", rate=rate, epoch=throttle.epoch)


@lru_cache(maxsize=1024)
def _read(text: str) -> Rate | None:
    try:
        return parse_rate(text)
    except ValueError:
        # Of another version: the setting holds.
        return None
