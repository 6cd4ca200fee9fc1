"""The courier's settings: what an operator may say about events out. Read by sidecar/settings.py."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class AmsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events out: the JSON-RPC endpoint of AMS and how it is fed."""

    url: Annotated[str, Meta(description="JSON-RPC endpoint of AMS; empty: off, the ledger keeps every event.")] = ""
    api_key: Annotated[str, Meta(description="AMS's apiKey, sent in every call and never logged.")] = ""
    headers: Annotated[
        tuple[str, ...],
        Meta(description="Only campaigns named by these headers, with an integer id, are AMS's."),
    ] = ("X-Id-Mail", "X-Mailing-Id")
    interval: Annotated[float, Meta(gt=0, description="Seconds between two delivery cycles.")] = 30.0
    max_batch: Annotated[int, Meta(ge=1, le=20000, description="Items in one call.")] = 20000
    max_bytes: Annotated[int, Meta(ge=1024, description="Octets of one call's body, about.")] = 5000000
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for AMS's answer to one call.")] = 60.0
    progress: Annotated[
        float,
        Meta(ge=0, description="Seconds between two looks at what AMS itself shows of its mailings; 0: never."),
    ] = 3600.0
    unsubscribe_action: Annotated[
        str, Meta(description="Opaque string that AMS gets as the url of an unsubscribe.")
    ] = "Unsubscribe_Click:DC,AE{|;"
    machines: Annotated[
        Literal["include", "exclude"],
        Meta(description="`exclude` keeps hits labelled `machine` from AMS; the ledger has them either way."),
    ] = "include"
    ca_file: Annotated[
        str, Meta(description="PEM file that AMS's certificate is verified with; empty: the system's roots.")
    ] = ""
    fingerprint: Annotated[
        str,
        Meta(
            description="SHA-256 of AMS's certificate in hex, as `openssl x509 -fingerprint -sha256` shows it. That "
            "one is believed, whoever made it and whatever name it has, and no other; empty: it is verified."
        ),
    ] = ""

    def __repr__(self) -> str:
        """Show no more than that: the rest holds secrets."""
        return f"AmsSettings(on={bool(self.url)})"


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events out, beside AMS: one section for each webhook, NAME being yours, in small letters."""

    url: Annotated[str, Meta(description="Where batches of events are posted to, as JSON.")] = ""
    secret: Annotated[
        tuple[str, ...],
        Meta(
            description="Keys of the signature, each `whsec_` and base64 of 24 to 64 octets. Several while one is "
            "exchanged: each of them signs."
        ),
    ] = ()
    events: Annotated[
        tuple[str, ...], Meta(description="Only these types of events, such as `bounced, complained`; empty: all.")
    ] = ()
    campaigns: Annotated[
        tuple[str, ...],
        Meta(description="Globs: only of campaigns with such an id; empty: all, and mail without a campaign."),
    ] = ()
    sources: Annotated[
        tuple[str, ...],
        Meta(description="Globs: only of mail that such a user submitted (`default`: nobody logged in); empty: all."),
    ] = ()
    machines: Annotated[
        Literal["include", "exclude"],
        Meta(description="`exclude` keeps hits labelled `machine` from it; the ledger has them either way."),
    ] = "include"
    interval: Annotated[float, Meta(gt=0, description="Seconds between two looks for what is to be told.")] = 5.0
    max_batch: Annotated[int, Meta(ge=1, le=10000, description="Events in one request.")] = 500
    max_bytes: Annotated[int, Meta(ge=1024, description="Octets of one request's body, unless one event has more.")] = (
        500_000
    )
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for the answer to one request.")] = 20.0
    ca_file: Annotated[
        str, Meta(description="PEM file that the receiver's certificate is verified with; empty: the system's roots.")
    ] = ""

    def __repr__(self) -> str:
        """Show no more than that: the rest holds secrets."""
        return f"SinkSettings(on={bool(self.url)})"


class ListmonkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounces and complaints back to listmonk, each of them once."""

    url: Annotated[
        str, Meta(description="listmonk's own address, such as `https://listmonk.example.com`; empty: off.")
    ] = ""
    user: Annotated[str, Meta(description="API user with the permission `webhooks:post_bounce`.")] = ""
    token: Annotated[str, Meta(description="Its token, sent with every request and never logged.")] = ""
    interval: Annotated[float, Meta(gt=0, description="Seconds between two looks for what is to be told.")] = 5.0
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for the answer to one request.")] = 20.0
    ca_file: Annotated[
        str, Meta(description="PEM file that listmonk's certificate is verified with; empty: the system's roots.")
    ] = ""

    def __repr__(self) -> str:
        """Show no more than that: the rest holds secrets."""
        return f"ListmonkSettings(on={bool(self.url)})"


class CourierSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events in between: how hits move from the stream into the ledger."""

    admin_listen: Annotated[
        str, Meta(description="Address and port for health and metrics of a courier that runs alone; empty: none.")
    ] = ""
    reconcile: Annotated[
        float, Meta(gt=0, description="Seconds between two recounts of the campaigns whose counts changed.")
    ] = 300.0
    batch: Annotated[int, Meta(ge=1, le=10000, description="Hits read and recorded at once.")] = 3000
    burst_links: Annotated[
        int,
        Meta(
            ge=0,
            le=10000,
            description="So many different links of one message, clicked within `burst_seconds`, are a machine's work, "
            "also where each click by itself looked like a person's; 0: never.",
        ),
    ] = 4
    burst_seconds: Annotated[float, Meta(gt=0, le=60, description="Seconds from the first to the last of them.")] = 60.0
    early_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="An open or a click so soon after its message was accepted is a machine's: nobody has it yet. "
            "1 finds filters on the way; 0: never, because whoever tries out a mailing opens it at once.",
        ),
    ] = 0.0
    own_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of your own, whose opens and clicks count as machines'. A hit keeps no more of its "
            "address than the /24 or, of IPv6, the /48, so a narrower network cannot be told and is refused."
        ),
    ] = ()


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how many days things are kept; 0 keeps them for ever. Campaigns and their counts always stay."""

    captured: Annotated[
        int, Meta(ge=0, le=36500, description="Captured mail, below the data directory of the courier's machine.")
    ] = 0
    parked: Annotated[int, Meta(ge=0, le=36500, description="Events that matched no message.")] = 30
    parked_most: Annotated[
        int,
        Meta(
            ge=0,
            description="How many events that matched no message are kept of one provider, the newest; 0: all. No "
            "number of days.",
        ),
    ] = 100_000
    addresses: Annotated[
        int,
        Meta(
            ge=0,
            le=36500,
            description="Sender and recipient of a message that is sent or given up, and what names them: replies, "
            "clicked links, what AMS has not taken by then. An index stays, by which a late unsubscribe still counts.",
        ),
    ] = 0
    events: Annotated[
        int,
        Meta(
            ge=0,
            le=36500,
            description="Events, dropped by whole months once the last day of one is as old; what they said is kept "
            "as numbers.",
        ),
    ] = 0
