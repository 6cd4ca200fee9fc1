"""Build the relay's upstream from the settings: files, or servers with their routes and rates."""

import functools

import structlog

from relay.capture import CaptureUpstream
from relay.rate import parse_domain_rate
from relay.routes import parse_routing
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
    limited = own.domain_rate or any(upstream.rate is not None for upstream in routing.all_upstreams())
    return Upstreams(
        routing,
        functools.partial(SmtpUpstream, hostname=hostname),
        rates=_rates(settings.redis_url) if limited else None,
        domain_rates=dict(map(parse_domain_rate, own.domain_rate)),
        patience=own.verdict_wait * _RATE_SHARE,
    )


def _rates(redis_url: str) -> Rates:
    # Most relays have no rate, and are spared the loading.
    from ledger.stream import connect
    from relay.upstream_rates import SharedRates

    return SharedRates(connect(redis_url) if redis_url else None)
