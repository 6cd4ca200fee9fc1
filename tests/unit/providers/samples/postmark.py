"""What Postmark posts."""

import secrets

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "p2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE = "883953f4-6105-42a2-a16a-77a8eac79483"
NO_MESSAGE = "00000000-0000-0000-0000-000000000000"
DESCRIPTION = "The server was unable to deliver your message."

_COMMON: dict[str, object] = {
    "ServerID": 23,
    "MessageID": MESSAGE,
    "MessageStream": "broadcast",
    "Tag": "welcome",
    "Metadata": {"outrider": KEY, "color": "blue"},
}


def bounce(kind: str, code: int, details: str = "", *, identity: int = 42) -> dict[str, object]:
    """Return a bounce of one type."""
    return _COMMON | {
        "RecordType": "Bounce",
        "ID": identity,
        "Type": kind,
        "TypeCode": code,
        "Name": kind,
        "Description": DESCRIPTION,
        "Details": details,
        "Email": "Ann@example.net",
        "From": "news@example.org",
        "BouncedAt": "2026-01-02T03:04:05.1234567Z",
        "DumpAvailable": True,
        "Inactive": True,
        "CanActivate": True,
        "Subject": "Hello",
    }


def change(reason: str | None, *, suppress: bool, **other: object) -> dict[str, object]:
    """Return a change of subscription."""
    return (
        _COMMON
        | {
            "RecordType": "SubscriptionChange",
            "Recipient": "ann@example.net",
            "ChangedAt": "2026-01-02T03:04:05Z",
            "Origin": "Recipient",
            "SuppressSending": suppress,
            "SuppressionReason": reason,
        }
        | other
    )


DELIVERY: dict[str, object] = _COMMON | {
    "RecordType": "Delivery",
    "Recipient": "ann@example.net",
    "DeliveredAt": "2026-01-02T03:04:05Z",
    "Details": "smtp;250 2.0.0 OK 1767323045 x3si14160585iod.35",
}
OPEN: dict[str, object] = _COMMON | {
    "RecordType": "Open",
    "Recipient": "ann@example.net",
    "FirstOpen": True,
    "ReceivedAt": "2026-01-02T03:04:05Z",
    "UserAgent": "Mozilla/5.0 (example)",
    "Platform": "WebMail",
    "ReadSeconds": 5,
    "Geo": {"CountryISOCode": "RS", "City": "Novi Sad", "IP": "192.0.2.7"},
    "Client": {"Name": "Example", "Company": "Example", "Family": "Example"},
}
CLICK: dict[str, object] = _COMMON | {
    "RecordType": "Click",
    "Recipient": "ann@example.net",
    "ClickLocation": "HTML",
    "OriginalLink": "https://example.org/page?a=1",
    "ReceivedAt": "2026-01-02T03:04:05Z",
    "UserAgent": "Mozilla/5.0 (example)",
    "Geo": {"IP": "2001:db8::7"},
}

#: Every documented type of a bounce.
TYPES: tuple[tuple[str, int], ...] = (
    ("HardBounce", 1),
    ("Transient", 2),
    ("Unsubscribe", 16),
    ("Subscribe", 32),
    ("AutoResponder", 64),
    ("AddressChange", 128),
    ("DnsError", 256),
    ("SpamNotification", 512),
    ("OpenRelayTest", 1024),
    ("Unknown", 2048),
    ("SoftBounce", 4096),
    ("VirusNotification", 8192),
    ("ChallengeVerification", 16384),
    ("BadEmailAddress", 100000),
    ("SpamComplaint", 100001),
    ("ManuallyDeactivated", 100002),
    ("Unconfirmed", 100003),
    ("Blocked", 100006),
    ("SMTPApiError", 100007),
    ("InboundError", 100008),
    ("DMARCPolicy", 100009),
    ("TemplateRenderingFailed", 100010),
)

EVENTS: list[tuple[str, object]] = [
    *((f"bounce {kind}", bounce(kind, code, identity=code)) for kind, code in TYPES),
    ("bounce with codes", bounce("HardBounce", 1, "smtp;550 5.1.1 no such user", identity=7)),
    ("bounce of a new type", bounce("Teleported", 9, identity=8)),
    ("bounce of an inactive address", bounce(
        "SMTPApiError", 100007, "You tried to send to recipient(s) that have been marked as inactive.", identity=9
    )),
    ("bounce without an address", bounce("Unsubscribe", 16, identity=10) | {"Email": None}),
    ("complaint", bounce("SpamComplaint", 100001, identity=11) | {"RecordType": "SpamComplaint"}),
    ("delivery", DELIVERY),
    ("open", OPEN),
    ("click", CLICK),
    ("unsubscribed", change("ManualSuppression", suppress=True)),
    ("suppressed after a bounce", change("HardBounce", suppress=True)),
    ("suppressed after a complaint", change("SpamComplaint", suppress=True)),
    ("suppressed for a new reason", change("Whim", suppress=True)),
    ("subscribed again", change(None, suppress=False)),
    ("suppressed by hand, no message", change("ManualSuppression", suppress=True, MessageID=NO_MESSAGE, Metadata={})),
    ("of the older kind: bounce", {n: v for n, v in bounce("HardBounce", 1).items() if n != "RecordType"}),
    ("of the older kind: delivery", {n: v for n, v in DELIVERY.items() if n != "RecordType"}),
    ("of the older kind: open", {n: v for n, v in OPEN.items() if n != "RecordType"}),
    ("another record", {"RecordType": "SMTPSomething", "MessageID": MESSAGE}),
]  # fmt: skip


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - a secret proves any body at any time
    """Return a fresh secret, and the address that holds it."""
    secret = secrets.token_urlsafe(24)
    return Proof(trust=Trust(secrets=(secret,)), query={"key": secret})
