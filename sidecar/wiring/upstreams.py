"""Build the relay's upstream from the settings: files, or servers with their routes and rates."""

import functools
from collections.abc import Sequence

import structlog

from relay.capture import CaptureUpstream
from relay.rate import Limit, Turn, parse_domain_rate
from relay.routes import parse_routing
from relay.throttle import parse_campaign_rate
from relay.upstream_pool import SmtpUpstream
from relay.upstreams import Rates, Upstreams
from sidecar.settings import CAPTURE, CAPTURE_DIRECTORY, Settings

log = structlog.get_logger()

# Of the time that a mailer waits for a verdict: for a message's turn under a rate. The rest is the upstream's.
_RATE_SHARE = 0.5


def upstream_of(settings: Settings, hostname: str) -> Upstreams | CaptureUpstream:
    """Return where mail goes; *hostname* is our name in EHLO. The settings are without contradictions."""
    own = settings.relay
    if own.upstream == (CAPTURE,):
        return CaptureUpstream(settings.data_dir / CAPTURE_DIRECTORY)
    routing = parse_routing(own.upstream, own.routes, own.dsn)
    for address, provider in routing.guessed():
        # An operator may know better.
        log.info("upstream_profile_guessed", upstream=address.name, profile=provider.name)
    rates = RatesOnDemand(settings.redis_url)
    if own.domain_rate or own.campaign_rate or any(upstream.rate is not None for upstream in routing.all_upstreams()):
        rates.made()
    return Upstreams(
        routing,
        functools.partial(SmtpUpstream, hostname=hostname),
        rates=rates,
        domain_rates=dict(map(parse_domain_rate, own.domain_rate)),
        campaign_rates=tuple(map(parse_campaign_rate, own.campaign_rate)),
        patience=own.verdict_wait * _RATE_SHARE,
    )


class RatesOnDemand:
    """Shared rates, made with the first limit: an operator may give a campaign one at any time."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._rates: Rates | None = None

    def made(self) -> Rates:
        """Return what gives out turns."""
        if self._rates is None:
            # Most relays have no rate, and are spared the loading.
            from ledger.stream import connect
            from relay.upstream_rates import SharedRates

            self._rates = SharedRates(connect(self._redis_url) if self._redis_url else None)
        return self._rates

    async def take(self, limits: Sequence[Limit], *, patience: float) -> Turn:
        """Give a turn under all *limits* within *patience* seconds, or under none of them."""
        return await self.made().take(limits, patience=patience)

    async def close(self) -> None:
        """Close what was made."""
        if self._rates is not None:
            await self._rates.close()
