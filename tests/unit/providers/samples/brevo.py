"""What Brevo posts."""

import secrets

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "b2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE = "202601020304.12345678901@smtp-relay.example.com"
CUSTOM = f'{{"outrider": "{KEY}", "color": "blue", "nr": 7}}'


def event(kind: str, **other: object) -> dict[str, object]:
    """Return an event of one kind."""
    common: dict[str, object] = {
        "event": kind,
        "email": "ann@example.net",
        "id": 77,
        "message-id": f"<{MESSAGE}>",
        "ts_epoch": 1767323045678,
        # Off by the account's time zone.
        "ts": 1767326645,
        "ts_event": 1767326645,
        "date": "2026-01-02 04:04:05",
        "subject": "Hello",
        "tag": '["welcome"]',
        "tags": ["welcome", "first"],
        "X-Mailin-custom": CUSTOM,
        "template_id": 3,
        "contact_id": 8,
        "sending_ip": "203.0.113.9",
        "sender_email": "news@example.org",
    }
    return common | other


_READER: dict[str, object] = {"user_agent": "Mozilla/5.0 (example)", "device_used": "DESKTOP", "ip": "192.0.2.7"}

EVENTS: list[tuple[str, object]] = [
    ("request", event("request")),
    ("sent", event("sent")),
    ("delivered", event("delivered")),
    ("deferred", event("deferred", reason="451 4.7.1 greylisted, try later")),
    ("deferred, but refused: address", event("deferred", reason="550 5.1.1 no such user")),
    ("deferred, but refused: mailbox", event("deferred", reason="550-5.2.1 disabled")),
    ("deferred, but refused: full", event("deferred", reason="552 5.2.2 over quota")),
    ("deferred, but refused: policy", event("deferred", reason="554 5.7.1 listed")),
    ("deferred, but refused", event("deferred", reason="550 unknown")),
    ("deferred without a reason", event("deferred")),
    ("hard_bounce", event("hard_bounce", reason="550 5.1.1 no such user")),
    ("soft_bounce", event("soft_bounce", reason="452 4.2.2 over quota")),
    ("blocked", event("blocked", reason="blocked : due to blacklist user")),
    ("blocked by the receiver", event("blocked", reason="554 5.7.1 content refused")),
    ("invalid_email", event("invalid_email", reason="no address")),
    ("error", event("error", reason="some error")),
    ("spam", event("spam")),
    ("complaint", event("complaint")),
    ("unsubscribe", event("unsubscribe", **_READER)),
    ("unsubscribed", event("unsubscribed")),
    ("click", event("click", link="https://example.org/page?a=1", **_READER)),
    ("opened", event("opened", **_READER)),
    ("unique_opened", event("unique_opened", **_READER)),
    ("proxy_open", event("proxy_open", **_READER)),
    ("unique_proxy_open", event("unique_proxy_open", **_READER)),
    ("list_addition", event("list_addition")),
    ("another event", event("teleported")),
    ("a batch", [event("opened"), event("delivered"), "no event"]),
    ("the older form of the header", event("opened", **{"X-Mailin-custom": f"color:blue|outrider:{KEY}|at:12:30"})),
    ("an object for the header", event("opened", **{"X-Mailin-custom": {"outrider": KEY}})),
    ("a text for the header", event("opened", **{"X-Mailin-custom": "no-tracking"})),
    ("one tag", event("opened", tags=None, tag="welcome")),
    ("tags in JSON", event("opened", tags=None, tag='["a", "b"]')),
]


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - a secret proves any body at any time
    """Return a fresh secret, and the address that holds it."""
    secret = secrets.token_urlsafe(24)
    return Proof(trust=Trust(secrets=(secret,)), query={"key": secret})
