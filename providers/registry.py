"""Every provider that Outrider knows, by its name: the one place that a new one is entered."""

from types import MappingProxyType

from providers import azure, brevo, mailgun, mailjet, postal, postmark, resend, sendgrid, ses, sparkpost
from providers.webhook import Provider

_ALL: tuple[Provider, ...] = (
    azure.PROVIDER,
    ses.PROVIDER,
    mailgun.PROVIDER,
    postal.PROVIDER,
    sendgrid.PROVIDER,
    postmark.PROVIDER,
    brevo.PROVIDER,
    mailjet.PROVIDER,
    sparkpost.PROVIDER,
    resend.PROVIDER,
)

PROVIDERS = MappingProxyType({one.name: one for one in _ALL})


def provider_of(host: str) -> Provider | None:
    """Return the provider whose upstream *host* is, by the ending of its name; none for anybody else's."""
    name = host.rstrip(".").lower()
    endings = ((ending, one) for one in PROVIDERS.values() for ending in one.hosts)
    return next((one for ending, one in endings if name == ending or name.endswith("." + ending)), None)
