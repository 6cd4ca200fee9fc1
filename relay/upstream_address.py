"""Read where mail goes, as an operator names it in `relay.upstream`. Nothing is resolved or connected here."""

import ipaddress
from typing import Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from providers import registry
from providers.webhook import Provider
from relay.rate import Rate, parse_rate

StartTls = Literal["required", "opportunistic", "off"]

#: The profile of an upstream that no provider's file describes.
GENERIC = "generic"


class UpstreamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail goes, as `relay.upstream` names it."""

    scheme: Literal["smtp", "smtps", "capture"]
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    starttls: StartTls = "opportunistic"
    rate: Rate | None = None
    #: As the operator named it: a provider, `generic`, or empty to tell it by the host's name.
    profile: str = ""

    @property
    def provider(self) -> Provider | None:
        """Whose upstream it is, so that its answers and its header are the provider's; none: nobody's we know."""
        return registry.PROVIDERS.get(self.profile) if self.profile else registry.provider_of(self.host)

    @property
    def account(self) -> tuple[str, int, str]:
        """What circuits and rates are kept for: two users of one server are two accounts."""
        return self.host, self.port, self.user

    @property
    def loopback(self) -> bool:
        """Whether it is this machine, so that nobody listens on the way."""
        if self.host.rstrip(".") == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def name(self) -> str:
        """The upstream's name in the ledger and in logs: no credentials."""
        return "capture" if self.scheme == "capture" else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """Show the name: a password in a traceback is a password in a log."""
        return f"UpstreamAddress({self.name!r})"


def parse(url: str) -> UpstreamAddress:
    """Return the address that an operator wrote; raise `ValueError` with what is wrong and what is expected."""
    if not url.isascii():
        # The URL parser would show what stands before the host.
        raise ValueError("expected ASCII; percent-encode special characters of a password")
    if url == "capture":
        return UpstreamAddress(scheme="capture")
    parts = urlsplit(url)
    if parts.scheme not in {"smtp", "smtps"}:
        raise ValueError("expected smtp://host:port, smtps://host:port or capture")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is not a number from 1 to 65535") from None
    if not parts.hostname or parts.path not in {"", "/"} or parts.fragment:
        raise ValueError("expected smtp://[user:password@]host:port and nothing after the port but ?starttls=…")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(user) != bool(password):
        raise ValueError("a user needs a password and a password a user; percent-encode special characters in them")
    starttls, rate, profile = _options(parts.query, default="required" if user else "opportunistic")
    address = UpstreamAddress(
        scheme="smtps" if parts.scheme == "smtps" else "smtp",
        host=parts.hostname,
        port=port or (465 if parts.scheme == "smtps" else 25),
        user=user,
        password=password,
        starttls=starttls,
        rate=rate,
        profile=profile,
    )
    if user and address.scheme == "smtp" and starttls == "off" and not address.loopback:
        raise ValueError("a password leaves in clear text to this machine only: with starttls=off name no user")
    return address


def _options(query: str, *, default: StartTls) -> tuple[StartTls, Rate | None, str]:
    """Return what stands after the `?`: starttls (*default* where it does not), the rate, and the profile's name."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    spelt, rate, profile = (options.pop(name, None) for name in ("starttls", "rate", "profile"))
    if options:
        raise ValueError(f"unknown option {next(iter(options))!r}; known: starttls, rate, profile")
    starttls = default if spelt is None else next((one for one in get_args(StartTls) if one == spelt), None)
    if starttls is None:
        raise ValueError("starttls is required, opportunistic or off")
    if profile is not None and profile not in {*registry.PROVIDERS, GENERIC}:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join([*sorted(registry.PROVIDERS), GENERIC])}")
    return starttls, None if rate is None else parse_rate(rate), profile or ""
