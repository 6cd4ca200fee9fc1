"""What SendGrid posts: a batch of events, signed with the webhook's ECDSA key."""

import base64
from itertools import count

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

_IDS = count(1)
KEY = "a2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE_ID = f"{KEY}@example.org"
REPLY_ID = "qNwBLgPQQjW6DJvKQwSAbw"
PROVIDER_ID = f"{REPLY_ID}.recvd-547b64655b-cw6zx-1-6089EA4A-56.0"


def event(kind: str, **changed: object) -> dict[str, object]:
    """Return one event of delivery; a value of None leaves the field out, and `smtp_id` stands for `smtp-id`."""
    fields: dict[str, object] = {
        "email": "ann@example.net",
        "timestamp": 1767323045,
        "event": kind,
        "smtp-id": f"<{MESSAGE_ID}>",
        "sg_event_id": f"ev-{next(_IDS)}",
        "sg_message_id": PROVIDER_ID,
        "category": ["c1", "c2"],
        "outrider": KEY,
        "order": "17",
    }
    fields |= {name.replace("smtp_id", "smtp-id"): value for name, value in changed.items()}
    return {name: value for name, value in fields.items() if value is not None}


def engagement(kind: str, **changed: object) -> dict[str, object]:
    """Return what a recipient did; SendGrid leaves `smtp-id` out."""
    seen: dict[str, object] = {"smtp_id": None, "ip": "192.0.2.1", "useragent": "UA", "sg_content_type": "html"}
    return event(kind, **(seen | changed))


def bounce(kind: str, status: str, reason: str) -> dict[str, object]:
    """Return a bounce; its `ip` is SendGrid's own."""
    return event("bounce", type=kind, status=status, reason=reason, ip="198.51.100.7", tls=1,
                 bounce_classification="Unclassified")  # fmt: skip


def dropped(reason: str) -> dict[str, object]:
    """Return a message that SendGrid never tried."""
    return event("dropped", reason=reason, status="5.0.0")


EVENTS: list[tuple[str, object]] = [
    ("processed", [event("processed", send_at=0, pool={"name": "p", "id": 1})]),
    ("deferred", [event("deferred", response="451 4.7.1 try again later", attempt="5", category="c1")]),
    ("delivered", [event("delivered", response="250 2.0.0 OK", ip="198.51.100.7", tls=1)]),
    ("bounced", [bounce("bounce", "5.1.1", "550 5.1.1 no such user")]),
    ("bounced, no code", [bounce("bounce", "", "they said no")]),
    ("bounced, full", [bounce("bounce", "5.2.2", "552 5.2.2 over quota")]),
    ("blocked", [bounce("blocked", "5.7.1", "550 5.7.1 sender is listed")]),
    ("blocked for a while", [bounce("blocked", "4.7.0", "421 4.7.0 slow down")]),
    ("blocked, no code", [bounce("blocked", "", "they said no")]),
    ("bounced, of no type", [event("bounce", reason="they said no")]),
    ("expired", [bounce("expired", "", "unable to get mx")]),
    ("dropped, bounced before", [dropped("Bounced Address")]),
    ("dropped, unsubscribed before", [dropped("Unsubscribed Address")]),
    ("dropped, complained before", [dropped("Spam Reporting Address")]),
    ("dropped, invalid before", [dropped("Invalid")]),
    ("dropped for its content", [dropped("Spam Content (if Spam Checker app is enabled)")]),
    ("opened", [engagement("open", sg_machine_open=False)]),
    ("opened by a machine", [engagement("open", sg_machine_open=True)]),
    ("clicked", [engagement("click", url="https://example.org/page?a=1", url_offset={"index": 0, "type": "html"})]),
    ("complained", [event("spamreport", smtp_id=None)]),
    ("unsubscribed", [event("unsubscribe", smtp_id=None)]),
    ("unsubscribed from a group", [engagement("group_unsubscribe", asm_group_id=10, url="https://example.org/u")]),
    ("subscribed to a group", [engagement("group_resubscribe", asm_group_id=10)]),
    ("another event", [event("teleported")]),
    ("late bounce without our fields", [event(
        "bounce", type="bounce", status="5.1.1", reason="550 5.1.1 unknown", outrider=None, order=None, smtp_id=None)]),
    ("account", [{"event": "account_status_change", "sg_event_id": "ev-a", "timestamp": 1767323045, "type": "x"}]),
    ("batch", [event("processed"), engagement("open"), event("delivered", response="250 OK")]),
    ("empty batch", []),
]  # fmt: skip


def fresh_key() -> ec.EllipticCurvePrivateKey:
    """Return a webhook's key."""
    return ec.generate_private_key(ec.SECP256R1())


def der(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half as SendGrid shows it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def headers(key: ec.EllipticCurvePrivateKey, body: bytes, now: float) -> dict[str, str]:
    """Return the headers of a webhook."""
    at = str(int(now))
    signature = key.sign(at.encode() + body, ec.ECDSA(SHA256()))
    return {
        "content-type": "application/json",
        "x-twilio-email-event-webhook-timestamp": at,
        "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
    }


def proof(body: bytes, now: float) -> Proof:
    """Return a fresh key and what it signs."""
    key = fresh_key()
    return Proof(trust=Trust(secrets=(der(key),)), headers=headers(key, body, now))
