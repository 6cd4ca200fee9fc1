"""The settings of a whole Outrider, as one frozen tree.

Each role declares what it needs beside its own code; here the sections meet, with those that belong to no single
role. A field's description is its documentation: docs/settings.md is generated from it. `sidecar.loading` reads the
values; nothing else reads the environment.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from courier.settings import AmsSettings, CourierSettings, ListmonkSettings, RetentionSettings, SinkSettings
from relay.settings import RelaySettings
from sidecar.addresses import parse_listen
from tracker.settings import TrackerSettings, WebhookSettings

if TYPE_CHECKING:
    import injector

#: The directory in which the launcher stands.
LAUNCHER_DIRECTORY = Path(__file__).resolve().parent.parent

#: What `relay.upstream` says when mail is written to files instead of sent.
CAPTURE = "capture"

#: Below the data directory: where the capture upstream keeps messages, and the tracker hits while Redis is away.
CAPTURE_DIRECTORY = "capture"
JOURNAL_DIRECTORY = "journal"


class KeysSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secrets that sign links, derive Message-IDs and seal addresses."""

    signing: Annotated[
        tuple[str, ...],
        Meta(
            description="Keys of the links, newest first: the first signs, all verify; taking one out revokes its "
            "links. Empty: generated once, 0600, in the data directory."
        ),
    ] = ()
    identity: Annotated[
        str,
        Meta(
            description="Key of the deterministic Message-ID; never rotated. Empty: generated once, 0600, in the data "
            "directory. With `DATABASE_URL` set, both keys must be given."
        ),
    ] = ""
    addresses: Annotated[
        tuple[str, ...],
        Meta(
            description="Keys of the addresses in the ledger, newest first: the first encrypts, all decrypt. Empty: "
            "addresses are kept as they are. Once one was used, no process starts without it; `outrider seal` brings "
            "older rows to the first key."
        ),
    ] = ()

    def __repr__(self) -> str:
        """Show how many keys there are, and none of them."""
        counts = f"signing={len(self.signing)}, identity={bool(self.identity)}, addresses={len(self.addresses)}"
        return f"KeysSettings({counts})"


class InjectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is put into a message on its way."""

    opens: Annotated[bool, Meta(description="One pixel in each HTML part.")] = True
    clicks: Annotated[bool, Meta(description="Signed links in place of the HTML part's own.")] = True
    unsubscribe: Annotated[
        bool, Meta(description="`List-Unsubscribe` on campaign mail that has none, with one click where it can be.")
    ] = True
    text_links: Annotated[bool, Meta(description="Signed links in text/plain parts too.")] = False
    dkim: Annotated[
        Literal["keep", "strip", "resign"],
        Meta(
            description="What to do with mail somebody signed: `keep` leaves it untouched, "
            "`strip` takes the signature off, because injecting breaks it, `resign` puts a new one in its place where "
            "all its signatures are of domains that `dkim_keys` names, and keeps the rest."
        ),
    ] = "keep"
    dkim_keys: Annotated[
        tuple[str, ...],
        Meta(
            description="Keys for `resign`, each as `SELECTOR._domainkey.DOMAIN=/path/to/key.pem`: the DNS name at "
            "which the public key stands, and the file of the private one (RSA or Ed25519, PEM). Two of one domain "
            "sign both. `check-config` shows what to publish."
        ),
    ] = ()
    visible_urls: Annotated[
        Literal["track", "leave"],
        Meta(
            description="A link whose visible text is itself a URL or a host name: `track` wraps it like any other, "
            "`leave` leaves it alone, because some mail programs warn where the two differ."
        ),
    ] = "track"
    skip: Annotated[tuple[str, ...], Meta(description="Globs of URLs that are never wrapped; empty: none.")] = (
        "*amsweb.php*",
    )


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operator's API and pages; never on the public listener."""

    listen: Annotated[str, Meta(description="Address and port for the operator's API and pages.")] = "127.0.0.1:8081"
    hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Names under which the console may be asked for, beside loopback and the listen host: a "
            "proxy's, a Prometheus target's. Others get 421, against pages whose own name is made to point here."
        ),
    ] = ()
    token: Annotated[
        str,
        Meta(
            description="Bearer token of the API. Empty: generated once, 0600, in the data directory (`console.token`)."
        ),
    ] = ""

    def __repr__(self) -> str:
        """Show the address alone: the token is a secret."""
        return f"ConsoleSettings(listen={self.listen!r})"


def default_data_dir() -> Path:
    """Return `/var/lib/outrider` as root, else `data` beside the launcher."""
    return Path("/var/lib/outrider") if os.geteuid() == 0 else LAUNCHER_DIRECTORY / "data"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator may say, with a default for all of it."""

    data_dir: Annotated[
        Path,
        Meta(description="Embedded servers' data, generated keys, the tracker's journal, captured mail."),
    ] = msgspec.field(default_factory=default_data_dir)
    database_url: Annotated[
        str, Meta(description="PostgreSQL 15 or newer: `postgresql://user:pass@host/name`; empty: embedded.")
    ] = ""
    redis_url: Annotated[
        str, Meta(description="Redis 7.0 or newer, or Valkey: `redis://host:6379/0`, `rediss://…`; empty: embedded.")
    ] = ""
    keys: KeysSettings = KeysSettings()
    relay: RelaySettings = RelaySettings()
    tracker: TrackerSettings = TrackerSettings()
    webhooks: WebhookSettings = WebhookSettings()
    inject: InjectSettings = InjectSettings()
    ams: AmsSettings = AmsSettings()
    sinks: dict[str, SinkSettings] = {}
    listmonk: ListmonkSettings = ListmonkSettings()
    courier: CourierSettings = CourierSettings()
    retention: RetentionSettings = RetentionSettings()
    console: ConsoleSettings = ConsoleSettings()

    def __repr__(self) -> str:
        """Show the place alone: a tree in a traceback is a secret in a log."""
        return f"Settings(data_dir={str(self.data_dir)!r})"


class SettingsError(Exception):
    """The settings cannot be used; each of `problems` is one line that names a setting and what is expected of it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def public_url(settings: Settings) -> str:
    """Return the base of every injected URL, without a slash at its end."""
    if settings.tracker.public_url:
        return settings.tracker.public_url.removesuffix("/")
    return f"http://{parse_listen(settings.tracker.listen)}"


def relay_workers(settings: Settings) -> int:
    """Return how many relay processes share the port: what is set, else one for each core we may use."""
    return settings.relay.workers or _cores()


def tracker_workers(settings: Settings) -> int:
    """Return how many tracker processes share the port: what is set, else one for each core we may use."""
    return settings.tracker.workers or _cores()


def _cores() -> int:
    # A container is often given fewer cores than the machine has; macOS cannot tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def injector_options(settings: Settings) -> "injector.Options":
    """Return what the injector is told, from `inject` and the public URL."""
    import injector
    from sidecar import dkim_keys

    inject = settings.inject
    return injector.Options(
        opens=inject.opens,
        clicks=inject.clicks,
        unsubscribe=inject.unsubscribe,
        text_links=inject.text_links,
        visible_urls=inject.visible_urls,
        skip=inject.skip,
        public_url=public_url(settings),
        dkim=inject.dkim,
        dkim_domains=dkim_keys.domains(inject.dkim_keys) if inject.dkim == "resign" else (),
    )
