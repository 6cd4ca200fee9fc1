"""The relay's settings: what an operator may say about mail in. Read by sidecar/settings.py."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mail in: who may submit, where it goes, and what happens on trouble."""

    listen: Annotated[str, Meta(description="Address and port for SMTP; STARTTLS when a certificate is set.")] = (
        "127.0.0.1:2525"
    )
    listen_tls: Annotated[str, Meta(description="Address and port for implicit TLS; empty: none.")] = ""
    admin_listen: Annotated[
        str, Meta(description="Address and port for health and metrics of a relay that runs alone; empty: none.")
    ] = ""
    upstream: Annotated[
        tuple[str, ...],
        Meta(
            description="Where mail goes: "
            "`smtp://[user:pass@]host:port[?starttls=required|opportunistic|off&rate=50/s&profile=ses]`, `smtps://…`, "
            "or `capture` alone (messages are written as `.eml` under the data directory). Of several "
            "the first that is well takes the mail. `profile` names the provider, or `generic`; unset, it is told by "
            "the host's name."
        ),
    ] = ()
    routes: Annotated[
        tuple[str, ...],
        Meta(
            description="Mail that takes other upstreams, by its envelope sender's domain or its campaign: "
            "`from:example.com=smtp://…`, `campaign:spring*=smtp://… smtp://…`. The first match wins; `*` stands for "
            "any characters; of several URLs the first that is well takes the mail."
        ),
    ] = ()
    domain_rate: Annotated[
        tuple[str, ...],
        Meta(
            description="How many messages may leave for a recipient domain: `example.net=10/m`, in `s`, `m`, `h` or "
            "`d`; all relay processes together, through Redis. Others wait, or are queued."
        ),
    ] = ()
    campaign_rate: Annotated[
        tuple[str, ...],
        Meta(
            description="How many messages of a campaign may leave: `spring*=100/m`, in `s`, `m`, `h` or `d`; the "
            "first match wins, each campaign that matches has the rate for itself, and `./outrider campaign` gives "
            "one a rate of its own. The rest is stored and leaves at that rate; mail without a campaign is exempt."
        ),
    ] = ()
    users: Annotated[
        str,
        Meta(
            description="File of `user:scrypt-hash` lines, written by `./outrider passwd FILE USER`; "
            "empty: no AUTH is offered. AUTH only under TLS or from loopback."
        ),
    ] = ""
    allow: Annotated[
        tuple[str, ...],
        Meta(description="Networks that may submit without AUTH; everybody else gets 530 or 550."),
    ] = ("127.0.0.0/8", "::1")
    proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of proxies that say by the PROXY protocol (v1 and v2) whom they speak for, on the "
            "listener without implicit TLS; empty: none."
        ),
    ] = ()
    max_connections: Annotated[int, Meta(ge=1, description="Sessions of one process at a time; more get 421.")] = 1000
    max_connections_per_client: Annotated[
        int, Meta(ge=1, description="Sessions of one address at a time in one process; loopback is exempt.")
    ] = 50
    idle_timeout: Annotated[
        float, Meta(gt=0, description="Seconds from one command, or one block of content, to the next.")
    ] = 300.0
    data_timeout: Annotated[float, Meta(gt=0, description="Seconds from DATA to the final dot.")] = 600.0
    max_bytes: Annotated[int, Meta(ge=1024, description="Largest message in octets (SIZE); larger gets 552.")] = (
        26214400
    )
    max_recipients: Annotated[int, Meta(ge=1, description="Recipients in one transaction; more gets 452.")] = 1000
    on_trouble: Annotated[
        Literal["queue", "defer"],
        Meta(
            description="When the upstream is unreachable, slow or answers 4xx: `queue` stores durably, answers 250 "
            "and retries; `defer` answers 451."
        ),
    ] = "queue"
    verdict_wait: Annotated[
        float, Meta(gt=0, description="Seconds a mailer waits for the upstream's verdict before its mail is queued.")
    ] = 20.0
    ledger_wait: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds to wait for PostgreSQL to come back before 451, and for the upstream's verdict to be "
            "recorded before the mailer hears it.",
        ),
    ] = 60.0
    stamp: Annotated[
        Literal["always", "missing"],
        Meta(description="`missing` keeps a Message-ID that the mailer set and uses it as an alias."),
    ] = "always"
    strip: Annotated[
        tuple[str, ...],
        Meta(description="Header names removed from what leaves, the campaign header for example; empty: none."),
    ] = ()
    repeat_window: Annotated[
        tuple[int, ...],
        Meta(
            min_length=2,
            max_length=2,
            description="Seconds in which the same submission is a repeat: with an original Message-ID, without one.",
        ),
    ] = (432000, 3600)
    dsn: Annotated[
        str,
        Meta(
            description="Route of delivery status notifications, sent when a message that was answered 250 fails: "
            "`upstream` like other mail, `smtp://…` or `smtps://…` through that server alone, `off` none."
        ),
    ] = "upstream"
    send_window: Annotated[
        str,
        Meta(
            description="When campaign mail may be sent: `Mon-Fri 08:00-20:00 Europe/Berlin`, several separated by "
            "`;`; empty: always. Outside it waits; mail without a campaign is exempt."
        ),
    ] = ""
    suppress_scope: Annotated[
        Literal["source", "all"],
        Meta(
            description="Whose campaign mail no longer reaches a recipient who unsubscribed from one: that user's "
            "(`source`), or everybody's (`all`)."
        ),
    ] = "source"
    suppressed: Annotated[
        Literal["accept", "refuse"],
        Meta(
            description="What a mailer hears of a suppressed recipient: `accept` answers 250, and campaign mail is not "
            "sent; `refuse` answers 550 to RCPT, mail without a campaign included."
        ),
    ] = "accept"
    tls_cert: Annotated[str, Meta(description="PEM file of the certificate chain; empty: no TLS.")] = ""
    tls_key: Annotated[str, Meta(description="PEM file of the certificate's key.")] = ""
    workers: Annotated[int, Meta(ge=0, description="Relay processes on one port; 0: one for each core.")] = 0
    retry_first: Annotated[
        float, Meta(gt=0, description="Seconds to the first retry; then exponential with jitter.")
    ] = 60.0
    retry_max_age: Annotated[float, Meta(gt=0, description="Seconds until a queued message is given up.")] = 432000.0
    queue_max_bytes: Annotated[
        int, Meta(ge=0, description="Octets of queued bodies in all; beyond it new trouble answers 452.")
    ] = 10737418240
    campaign_headers: Annotated[
        tuple[str, ...], Meta(description="Headers that name the campaign; the first match wins.")
    ] = ("X-Id-Mail", "X-Listmonk-Campaign", "X-Campaign-Id", "X-Mailing-Id", "X-EMAIL-ID")
    message_id_domain: Annotated[
        str, Meta(description="Right side of the stamped Message-ID; empty: the From domain.")
    ] = ""
    hostname: Annotated[str, Meta(description="Our name in the banner, EHLO and Received; empty: this machine's.")] = ""

    def __repr__(self) -> str:
        """Show no more than that: the rest holds secrets."""
        return f"RelaySettings(listen={self.listen!r})"
