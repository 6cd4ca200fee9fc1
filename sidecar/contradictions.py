"""Find the settings that cannot be meant: values that contradict their kind, each other, or the role that starts.

Nothing is read or resolved here; files are `sidecar.places`' part. A problem names its settings as the operator
spelt them and never shows a value that may hold a secret.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from ledger.visitors import PREFIX
from ledger.windows import parse_windows
from sidecar.addresses import Listen, is_host, parse_listen, parse_network, too_wide
from sidecar.dkim_keys import key_file
from sidecar.settings import CAPTURE, Settings
from sidecar.webhook_trust import faults

if TYPE_CHECKING:
    from relay.routes import Route
    from relay.upstream_address import UpstreamAddress

#: Gives a setting's name, as the operator spelt it, by its path.
Spell = Callable[[str], str]

LISTENERS = ("relay.listen", "relay.listen_tls", "tracker.listen", "console.listen")
ADMIN_LISTENERS = ("relay.admin_listen", "tracker.admin_listen", "courier.admin_listen")

# RFC 5322 3.6.8: printable ASCII but the colon.
_HEADER = re.compile(r"\A[!-9;-~]{1,76}\Z")
_PUBLIC_URL = re.compile(r"\Ahttps?://(?P<host>\[[^\]]*\]|[^/:?#@\[\]\\]+)(?::(?P<port>[0-9]{1,5}))?/?\Z")
_HTTP_URL = re.compile(r"\Ahttps?://[^/?#\s]+(?:[/?][!-~]*)?\Z")
_SCHEMES = {
    "database_url": re.compile(r"\Apostgres(?:ql)?://"),
    "redis_url": re.compile(r"\A(?:rediss?|unix)://"),
}
_FINGERPRINT = re.compile(r"\A[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}\Z")
_TOKEN = re.compile(r"\A[!-~]+\Z")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One line for the operator, and the settings it was concluded from."""

    paths: tuple[str, ...]
    text: str


def value_at(settings: Settings, path: str) -> str:
    """Return the text at *path*."""
    section, _, key = path.rpartition(".")
    return str(getattr(getattr(settings, section), key) if section else getattr(settings, key))


def contradictions(settings: Settings, spell: Spell) -> Iterator[Problem]:
    """Yield every problem that is one whichever role starts."""
    mail_out = (_upstreams, _rates, _campaign_rates, _dkim, _windows)
    told = (_ams, _sinks, _webhooks, _bursts)
    for check in (_listeners, _networks, _tls, _public_url, *mail_out, _stores, *told, _names, _times):
        yield from check(settings, spell)


def _one(path: str, spell: Spell, expected: str) -> Problem:
    return Problem(paths=(path,), text=f"{spell(path)}: {expected}")


def _addresses(settings: Settings) -> Iterator[tuple[str, Listen]]:
    for path in LISTENERS:
        try:
            yield path, parse_listen(value_at(settings, path))
        except ValueError:
            continue


def _listeners(settings: Settings, spell: Spell) -> Iterator[Problem]:
    optional = {"relay.listen_tls", *ADMIN_LISTENERS}
    for path in (*LISTENERS, *ADMIN_LISTENERS):
        text = value_at(settings, path)
        if text or path not in optional:
            try:
                parse_listen(text)
            except ValueError as error:
                yield _one(path, spell, str(error))
    taken: dict[Listen, str] = {}
    for path, address in _addresses(settings):
        other = taken.setdefault(address, path)
        if other != path:
            text = f"{spell(other)} and {spell(path)}: {address} cannot be both, give each a port of its own"
            yield Problem(paths=(other, path), text=text)


def _windows(settings: Settings, spell: Spell) -> Iterator[Problem]:
    try:
        parse_windows(settings.relay.send_window)
    except ValueError:
        yield _one("relay.send_window", spell, "expected windows such as `Mon-Fri 08:00-20:00 Europe/Berlin`")


def _networks(settings: Settings, spell: Spell) -> Iterator[Problem]:
    allowed = []
    for path, texts in (
        ("relay.allow", settings.relay.allow),
        ("relay.proxies", settings.relay.proxies),
        ("tracker.trusted_proxies", settings.tracker.trusted_proxies),
        ("courier.own_networks", settings.courier.own_networks),
    ):
        for text in texts:
            try:
                network = parse_network(text)
            except ValueError as error:
                yield _one(path, spell, str(error))
            else:
                if path == "relay.allow":
                    allowed.append(network)
                kept = PREFIX[network.version]
                if path == "courier.own_networks" and network.prefixlen > kept:
                    yield _one(
                        path,
                        spell,
                        f"{network} is narrower than the /{kept} that a hit keeps of its address, so it cannot be told "
                        f"from its neighbours; name the /{kept} if all of it is yours",
                    )
    public = [path for path, address in _addresses(settings) if path.startswith("relay.") and not address.loopback]
    if public and (wide := too_wide(allowed)) is not None:
        yield Problem(
            paths=("relay.allow", *public),
            text=f"{spell('relay.allow')}: {wide} with {spell(public[0])} beyond loopback is an open relay; "
            f"name the networks of your mailers, or let them log in ({spell('relay.users')})",
        )


def _bursts(settings: Settings, spell: Spell) -> Iterator[Problem]:
    if settings.courier.burst_links == 1:
        yield _one("courier.burst_links", spell, "1 would make every click a burst; 0 switches bursts off")


def _tls(settings: Settings, spell: Spell) -> Iterator[Problem]:
    relay = settings.relay
    paths = ("relay.tls_cert", "relay.tls_key")
    if bool(relay.tls_cert) != bool(relay.tls_key):
        have, want = paths if relay.tls_cert else paths[::-1]
        yield Problem(paths=paths, text=f"{spell(have)} is set, so {spell(want)} must be too: expected a PEM file")
    if relay.listen_tls and not relay.tls_cert:
        text = f"{spell('relay.listen_tls')} is set, so {spell(paths[0])} and {spell(paths[1])} must be too"
        yield Problem(paths=("relay.listen_tls", *paths), text=text)


def _public_url(settings: Settings, spell: Spell) -> Iterator[Problem]:
    url = settings.tracker.public_url
    if not url:
        return
    match = _PUBLIC_URL.match(url)
    try:
        host = parse_listen(f"{match['host']}:{match['port'] or 80}") if match else None
    except ValueError:
        host = None
    expected = "expected scheme://host[:port] and nothing after it, such as https://track.example.com"
    if host is None:
        yield _one("tracker.public_url", spell, expected)
    elif host.wildcard:
        yield _one("tracker.public_url", spell, f"nobody can be sent to {host.host}; {expected}")


def _upstreams(settings: Settings, spell: Spell) -> Iterator[Problem]:
    relay = settings.relay
    if relay.upstream in {(), (CAPTURE,)} and not relay.routes and relay.dsn in {"upstream", "off"}:
        return
    from relay.routes import Route, parse_notices, parse_route
    from relay.upstream_address import UpstreamAddress, parse

    stands: list[tuple[str, UpstreamAddress]] = []
    for number, text in enumerate(relay.upstream, start=1):
        try:
            stands.append(("relay.upstream", parse(text)))
        except ValueError as error:
            item = f"item {number}: " if len(relay.upstream) > 1 else ""
            yield _one("relay.upstream", spell, f"{item}{error}")
    routes: list[Route] = []
    for number, text in enumerate(relay.routes, start=1):
        try:
            routes.append(parse_route(text))
        except ValueError as error:
            yield _one("relay.routes", spell, f"item {number}: {error}")
        else:
            stands += [("relay.routes", upstream) for upstream in routes[-1].upstreams]
    try:
        stands += [("relay.dsn", upstream) for upstream in parse_notices(relay.dsn)]
    except ValueError as error:
        yield _one("relay.dsn", spell, str(error))
    yield from _mixed(stands, routes, spell)
    for path, upstream in stands:
        yield from _circles(settings, path, upstream, spell)


def _mixed(
    stands: "Sequence[tuple[str, UpstreamAddress]]", routes: "Sequence[Route]", spell: Spell
) -> Iterator[Problem]:
    """Yield what cannot stand together in the lists of upstreams and routes."""
    if len(stands) > 1:
        for path in dict.fromkeys(path for path, upstream in stands if upstream.scheme == CAPTURE):
            yield _one(path, spell, f"{CAPTURE} stands alone: it takes all mail, and no server beside it gets any")
    general = [upstream.account for path, upstream in stands if path == "relay.upstream"]
    lists = [("relay.upstream", general)] + [("relay.routes", [one.account for one in way.upstreams]) for way in routes]
    for path, accounts in lists:
        if len(set(accounts)) < len(accounts):
            yield _one(path, spell, "the same server stands twice in one list")
    if len({(way.by, way.pattern) for way in routes}) < len(routes):
        yield _one("relay.routes", spell, "the same mail is routed twice: the first match wins, give it all URLs")
    spelt: dict[tuple[str, int, str], UpstreamAddress] = {}
    for path, upstream in stands:
        if spelt.setdefault(upstream.account, upstream) != upstream:
            yield _one(path, spell, f"{upstream.name} is spelt in two ways: one server and user has one URL")


def _circles(settings: Settings, path: str, upstream: "UpstreamAddress", spell: Spell) -> Iterator[Problem]:
    target = Listen(host=upstream.host, port=upstream.port)
    for ours, address in _addresses(settings):
        here = target.host == address.host or (target.loopback and (address.loopback or address.wildcard))
        if ours.startswith("relay.") and here and target.port == address.port:
            text = f"{spell(path)} is {spell(ours)}: mail would go round in circles; name the next server"
            yield Problem(paths=(path, ours), text=text)


def _campaign_rates(settings: Settings, spell: Spell) -> Iterator[Problem]:
    if not settings.relay.campaign_rate:
        return
    from relay.throttle import parse_campaign_rate

    for number, text in enumerate(settings.relay.campaign_rate, start=1):
        try:
            parse_campaign_rate(text)
        except ValueError as error:
            yield _one("relay.campaign_rate", spell, f"item {number}: {error}")


def _rates(settings: Settings, spell: Spell) -> Iterator[Problem]:
    if not settings.relay.domain_rate:
        return
    from relay.rate import parse_domain_rate

    domains: set[str] = set()
    for number, text in enumerate(settings.relay.domain_rate, start=1):
        try:
            domain, _ = parse_domain_rate(text)
        except ValueError as error:
            yield _one("relay.domain_rate", spell, f"item {number}: {error}")
            continue
        if domain in domains:
            yield _one("relay.domain_rate", spell, f"{domain} stands twice in the list: one domain has one rate")
        domains.add(domain)


def _stores(settings: Settings, spell: Spell) -> Iterator[Problem]:
    expected = {
        "database_url": "expected postgresql://user:password@host/name",
        "redis_url": "expected redis://host:6379/0, rediss://… or unix://…",
    }
    for path, scheme in _SCHEMES.items():
        if (text := value_at(settings, path)) and not scheme.match(text):
            yield _one(path, spell, expected[path])
    if settings.database_url:
        for path, value in (("keys.signing", settings.keys.signing), ("keys.identity", settings.keys.identity)):
            if not value:
                text = f"{spell('database_url')} is set, so {spell(path)} must be too: every machine needs the same"
                yield Problem(paths=("database_url", path), text=text)
    for path, keys in (("keys.signing", settings.keys.signing), ("keys.addresses", settings.keys.addresses)):
        if len(set(keys)) < len(keys):
            yield _one(path, spell, "the same key stands twice in the list")
    if settings.console.token and not _TOKEN.match(settings.console.token):
        yield _one("console.token", spell, "expected printable ASCII without spaces")


def _ams(settings: Settings, spell: Spell) -> Iterator[Problem]:
    ams = settings.ams
    if not ams.url:
        return
    if not _HTTP_URL.match(ams.url):
        yield _one("ams.url", spell, "expected http:// or https://, a host, and the endpoint's path")
    if ams.fingerprint and not _FINGERPRINT.match(ams.fingerprint):
        yield _one("ams.fingerprint", spell, "expected a SHA-256 in hex: 64 digits, with or without colons")
    if ams.fingerprint and ams.ca_file:
        text = f"{spell('ams.fingerprint')} and {spell('ams.ca_file')}: each says what to believe, name one"
        yield Problem(paths=("ams.fingerprint", "ams.ca_file"), text=text)
    known = {name.lower() for name in settings.relay.campaign_headers}
    if known.isdisjoint(name.lower() for name in ams.headers):
        text = (
            f"{spell('ams.headers')}: none of them is among {spell('relay.campaign_headers')}, "
            "so no campaign could ever be AMS's"
        )
        yield Problem(paths=("ams.url", "ams.headers", "relay.campaign_headers"), text=text)


def _sinks(settings: Settings, spell: Spell) -> Iterator[Problem]:
    if not settings.sinks and not settings.listmonk.url:
        return
    from sidecar import sink_faults

    for path, text in sink_faults.faults(settings):
        yield _one(path, spell, text)


def _webhooks(settings: Settings, spell: Spell) -> Iterator[Problem]:
    for key, text in faults(settings.webhooks):
        yield _one(f"webhooks.{key}", spell, text)


def _dkim(settings: Settings, spell: Spell) -> Iterator[Problem]:
    inject = settings.inject
    if inject.dkim == "resign" and not inject.dkim_keys:
        text = (
            f"{spell('inject.dkim')} is resign, so {spell('inject.dkim_keys')} must be set: expected "
            "SELECTOR._domainkey.DOMAIN=/path/to/key.pem"
        )
        yield Problem(paths=("inject.dkim", "inject.dkim_keys"), text=text)
    names: set[str] = set()
    for number, entry in enumerate(inject.dkim_keys, start=1):
        try:
            name = key_file(entry).name
        except ValueError as error:
            yield _one("inject.dkim_keys", spell, f"item {number}: {error}")
            continue
        if name in names:
            yield _one("inject.dkim_keys", spell, f"{name} stands twice in the list: one name has one key")
        names.add(name)


def _names(settings: Settings, spell: Spell) -> Iterator[Problem]:
    relay = settings.relay
    for path, names in (
        ("relay.campaign_headers", relay.campaign_headers),
        ("relay.strip", relay.strip),
        ("ams.headers", settings.ams.headers),
    ):
        if not all(_HEADER.match(name) for name in names):
            yield _one(path, spell, "expected header names, without a colon")
    for path in ("relay.message_id_domain", "relay.hostname"):
        if (name := value_at(settings, path)) and not is_host(name):
            yield _one(path, spell, "expected a host name in ASCII, such as mail.example.com")


def _times(settings: Settings, spell: Spell) -> Iterator[Problem]:
    relay = settings.relay
    if min(relay.repeat_window) < 0:
        yield _one("relay.repeat_window", spell, "expected two numbers of seconds, none below 0")
    if relay.retry_first > relay.retry_max_age:
        text = f"{spell('relay.retry_first')}: the first retry would come after {spell('relay.retry_max_age')}"
        yield Problem(paths=("relay.retry_first", "relay.retry_max_age"), text=text)


def role_problems(role: str, settings: Settings, spell: Spell) -> Iterator[Problem]:
    """Yield what *role* (`run`, `relay`, `tracker`, `courier` or `console`) needs and does not have."""
    if role in {"run", "relay"}:
        if not settings.relay.upstream:
            yield _one(
                "relay.upstream",
                spell,
                "no upstream is set; expected the server that sends your mail on, such as "
                "smtp://user:password@mail.example.com:587, or capture to write mail to files",
            )
        if not settings.tracker.public_url and parse_listen(settings.tracker.listen).wildcard:
            text = (
                f"{spell('tracker.listen')} means every address, so {spell('tracker.public_url')} must say where "
                "browsers reach it: expected scheme://host[:port]"
            )
            yield Problem(paths=("tracker.listen", "tracker.public_url"), text=text)
    if role in {"tracker", "courier"} and bool(settings.database_url) != bool(settings.redis_url):
        have, want = ("database_url", "redis_url") if settings.database_url else ("redis_url", "database_url")
        text = f"{spell(have)} is set, so {spell(want)} must be too: a role that runs alone shares both"
        yield Problem(paths=(have, want), text=text)
