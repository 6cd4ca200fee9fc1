"""What Resend posts, and how Svix signs it."""

import base64
import hashlib
import hmac
import secrets

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

KEY = "r2b3c4d5e6f7g2h3i4j5k6l7m4"
EMAIL_ID = "56761188-7520-42d8-8898-ff6fc54ce618"
MESSAGE = "0101019a-000000@email.example.com"
SVIX_ID = "msg_2b3c4d5e6f7g2h3i4j5k6l7m2"
LINK = "https://example.org/page?a=1"


def event(kind: str, **other: object) -> dict[str, object]:
    """Return an event of one kind."""
    message: dict[str, object] = {
        "email_id": EMAIL_ID,
        "message_id": f"<{MESSAGE}>",
        "created_at": "2026-01-02T03:00:00.000Z",
        "from": "News <news@example.org>",
        "to": ["ann@example.net"],
        "subject": "Hello",
        "tags": {"outrider": KEY, "color": "blue"},
        "headers": [{"name": "Message-ID", "value": f"<{KEY}@example.org>"}, {"name": "x-outrider-key", "value": KEY}],
    }
    return {"type": kind, "created_at": "2026-01-02T03:04:05.678Z", "data": message | other}


def bounce(kind: str, subtype: str, message: str = "no", *, said: str = "") -> dict[str, object]:
    """Return a bounce of one type and subtype."""
    told: dict[str, object] = {"type": kind, "subType": subtype, "message": message}
    return event("email.bounced", bounce=told | ({"diagnosticCode": [said]} if said else {}))


_READER: dict[str, object] = {
    "ipAddress": "192.0.2.7",
    "timestamp": "2026-01-02T03:04:05.000Z",
    "userAgent": "Mozilla/5.0 (example)",
}

EVENTS: list[tuple[str, object]] = [
    ("sent", event("email.sent")),
    ("scheduled", event("email.scheduled")),
    ("delivered", event("email.delivered")),
    ("delayed", event("email.delivery_delayed")),
    ("bounced: permanent", bounce("Permanent", "General", said="smtp; 550 5.1.1 no such user")),
    ("bounced: transient", bounce("Transient", "MailboxFull")),
    ("bounced: undetermined", bounce("Undetermined", "Undetermined")),
    ("bounced: content", bounce("Transient", "ContentRejected")),
    ("bounced: attachment", bounce("Transient", "AttachmentRejected")),
    ("bounced: suppressed", bounce("Permanent", "Suppressed")),
    ("bounced: on the account's list", bounce("Permanent", "OnAccountSuppressionList")),
    ("bounced: older, suppressed", event(
        "email.bounced", bounce={"message": "Resend has suppressed sending to this address"}
    )),
    ("bounced: no reason", event("email.bounced")),
    ("suppressed", event("email.suppressed", suppressed={"message": "on the list", "type": "OnAccount"})),
    ("complained", event("email.complained")),
    ("opened", event("email.opened")),
    ("opened, told more", event("email.opened", open=_READER)),
    ("clicked", event("email.clicked", click=_READER | {"link": LINK})),
    ("failed", event("email.failed", failed={"reason": "reached_daily_quota"})),
    ("another event", event("email.teleported")),
    ("several recipients", event("email.opened", to=["ann@example.net", "bob@example.net"])),
    ("copies", event("email.opened", cc=["bob@example.net"])),
    ("a name", event("email.opened", to=["Ann <ann@example.net>"])),
    ("tags in a list", event("email.opened", tags=[{"name": "outrider", "value": KEY}], headers=None)),
    ("nothing of ours", event("email.opened", tags=None, headers=None)),
    ("mail to us", event("email.received")),
    ("a contact", {"type": "contact.created", "created_at": "2026-01-02T03:04:05Z", "data": {"id": "c-1"}}),
    ("a domain", {"type": "domain.updated", "created_at": "2026-01-02T03:04:05Z", "data": {"id": "d-1"}}),
]  # fmt: skip


def new_secret() -> str:
    """Return a fresh signing secret as Svix spells them."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def signature(secret: str, body: bytes, stamp: str, identity: str = SVIX_ID) -> str:
    """Return a `v1` signature."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed).decode()


def proof(body: bytes, now: float) -> Proof:
    """Return a fresh secret, and the headers that Svix makes with it."""
    secret, stamp, identity = new_secret(), str(int(now)), f"msg_{secrets.token_hex(12)}"
    return Proof(
        trust=Trust(secrets=(secret,)),
        headers={
            "svix-id": identity,
            "svix-timestamp": stamp,
            "svix-signature": signature(secret, body, stamp, identity),
        },
    )
