"""Write a batch of events as a Standard Webhook: JSON in its envelope, and a signature that proves whose it is.

Pure. The same events make the same body and so the same webhook-id, whenever they are sent; the id of each event stays
the same in whatever batch it comes.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

import msgspec

from courier.sinks import Telling
from ledger.sinks import Waiting

_PREFIX = "whsec_"
#: What the specification asks of a key, in octets.
LEAST_KEY, MOST_KEY = 24, 64

_encode = msgspec.json.Encoder().encode


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event; docs/sinks.md is this class in words."""

    id: str
    type: str
    source: str
    occurred_at: datetime
    recorded_at: datetime
    campaign_id: str | None
    submitted_by: str
    message_id: str
    key: str
    recipient: str | None
    url: str | None
    machine: bool
    reason: str | None
    bounce: str | None
    smtp_code: str | None
    enhanced_code: str | None
    description: str | None


def key_of(secret: str) -> bytes:
    """Return the key that *secret* spells; raise `ValueError` with what is expected."""
    spelt = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(spelt + "=" * (-len(spelt) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not LEAST_KEY <= len(key) <= MOST_KEY:
        raise ValueError(f"expected {_PREFIX} and base64 of {LEAST_KEY} to {MOST_KEY} octets")
    return key


def compose(event: Waiting) -> bytes:
    """Return one event as JSON."""
    return _encode(
        _Event(
            id=event.event.hex(),
            type=event.type,
            source=event.teller,
            occurred_at=event.occurred_at,
            recorded_at=event.recorded_at,
            campaign_id=event.campaign_id,
            submitted_by=event.source,
            message_id=event.message_id,
            key=event.key,
            recipient=event.recipient,
            url=event.url,
            machine=event.machine,
            reason=event.reason,
            bounce=event.bounce,
            smtp_code=event.smtp_code,
            enhanced_code=event.enhanced_code,
            description=event.description,
        )
    )


def body_of(items: Sequence[Telling]) -> bytes:
    """Return the body that tells *items*, at least one; nothing in it says when it is sent."""
    newest = _encode(max(item.at for item in items))
    return (
        b'{"type":"outrider.events","timestamp":'
        + newest
        + b',"data":{"events":['
        + b",".join(item.content for item in items)
        + b"]}}"
    )


def signed(body: bytes, keys: Sequence[bytes], now: float) -> dict[str, str]:
    """Return the headers that go with *body*: its id, the time *now* in seconds, a signature by each of *keys*."""
    identity, stamp = f"batch_{hashlib.sha256(body).hexdigest()[:32]}", str(int(now))
    said = f"{identity}.{stamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, said, hashlib.sha256)).decode("ascii") for key in keys]
    return {
        "Content-Type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
