"""What Mailgun posts: its events in JSON, signed as this file is read, and the older ones as forms."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from itertools import count
from urllib.parse import urlencode

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

_IDS = count(1)
KEY = "a2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE_ID = f"{KEY}@example.org"
#: The signature stands in the body, so that one secret signs all of them.
SECRET = secrets.token_hex(16)
VARIABLES = {"outrider": KEY, "order": "17"}


def triplet(now: float, secret: str = SECRET, token: str = "") -> dict[str, str]:
    """Return a fresh proof."""
    at, word = str(int(now)), token or secrets.token_hex(25)
    return {"timestamp": at, "token": word, "signature": _signed(secret, at + word)}


def _signed(secret: str, words: str) -> str:
    return hmac.new(secret.encode(), words.encode(), hashlib.sha256).hexdigest()


def signed(event: dict[str, object], now: float, secret: str = SECRET) -> dict[str, object]:
    """Return the body of a webhook."""
    return {"signature": triplet(now, secret), "event-data": event}


def event(kind: str, **changed: object) -> dict[str, object]:
    """Return one event; a value of None leaves the field out, and `_` in a name stands for `-`."""
    fields: dict[str, object] = {
        "event": kind,
        "id": f"G9-{next(_IDS)}",
        "timestamp": 1767323045.123,
        "log-level": "info",
        "recipient": "ann@example.net",
        "recipient-domain": "example.net",
        "tags": ["t1", "t2"],
        "user-variables": dict(VARIABLES),
        "flags": {"is-test-mode": False},
        "message": {
            "headers": {
                "message-id": MESSAGE_ID,
                "to": "Ann <ann@example.net>",
                "from": "news@example.org",
                "subject": "Hi",
            },
            "size": 900,
        },
    }
    fields |= {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in fields.items() if value is not None}


def engagement(kind: str, **changed: object) -> dict[str, object]:
    """Return an open or a click, which repeat only the Message-ID of the headers."""
    seen: dict[str, object] = {
        "message": {"headers": {"message-id": MESSAGE_ID}},
        "ip": "192.0.2.1",
        "geolocation": {"country": "DE", "region": "Unknown", "city": "Unknown"},
        "client_info": {"user-agent": "UA", "device-type": "desktop", "bot": ""},
    }
    return event(kind, **(seen | changed))


def failed(severity: str, reason: str, code: object, message: str, **changed: object) -> dict[str, object]:
    """Return a failure."""
    status = {"code": code, "message": message, "description": "", "attempt-no": 1, "mx-host": "mx.example.net"}
    return event("failed", **({"severity": severity, "reason": reason, "delivery_status": status} | changed))


_STORED = {"key": "BAABAgE-key", "url": "https://storage.example.com/v3/domains/example.org/messages/BAABAgE-key"}

NOTED: list[tuple[str, dict[str, object]]] = [
    ("accepted", event("accepted", storage=_STORED)),
    ("rejected", event("rejected", recipient=None, reject={"reason": "Sandbox subdomains are for test purposes only"})),
    ("delivered", event("delivered", delivery_status={
        "code": 250, "enhanced-code": "2.0.0", "message": "OK", "description": "", "mx-host": "mx.example.net",
    })),
    ("delivered, no status", event("delivered", delivery_status=None)),
    ("failed for good", failed("permanent", "bounce", 550, "5.1.1 no such user")),
    ("failed, full", failed("permanent", "bounce", 552, "5.2.2 over quota")),
    ("failed, policy", failed("permanent", "bounce", 550, "5.7.1 sender is listed")),
    ("failed, no code", failed("permanent", "bounce", 0, "gone")),
    ("failed, blocked", failed("permanent", "espblock", 550, "5.1.1 blocked")),
    ("failed, too old", failed("permanent", "old", 602, "Too old")),
    ("failed, other", failed("permanent", "generic", 0, "")),
    ("failed, bounced before", failed(
        "permanent", "suppress-bounce", 605, "Not delivering to previously bounced address")),
    ("failed, unsubscribed before", failed("permanent", "hardfail", 606, "Not delivering to unsubscribed address")),
    ("failed, complained before", failed("permanent", "generic", "607", "Not delivering to a user who marked spam")),
    ("failed, suppressed by word", failed("permanent", "suppress-complaint", 0, "")),
    ("failed for now", failed("temporary", "generic", 421, "4.7.0 try later")),
    ("failed, greylisted", failed("temporary", "greylisted", 451, "4.7.1 greylisted")),
    ("failed, status null", event("failed", severity="permanent", reason="bounce") | {"delivery-status": None}),
    ("opened", engagement("opened")),
    ("opened by Apple", engagement("opened", client_info={"user-agent": "Mozilla/5.0", "bot": "apple"})),
    ("clicked", engagement("clicked", url="https://example.org/page?a=1")),
    ("unsubscribed", engagement("unsubscribed")),
    ("complained", event("complained")),
    ("stored", event("stored")),
]  # fmt: skip

EVENTS: list[tuple[str, object]] = [(name, signed(one, time.time())) for name, one in NOTED]


def form(fields: Iterable[tuple[str, str]], now: float) -> bytes:
    """Return an older webhook's body; the proof stands at its end."""
    return urlencode([*fields, *triplet(now).items()]).encode()


def multipart(fields: Iterable[tuple[str, str]], now: float) -> tuple[str, bytes]:
    """Return the same with an attached file, as bounces had it, and its content type."""
    parts = [f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
             for name, value in (*fields, *triplet(now).items())]  # fmt: skip
    file = '--xyz\r\nContent-Disposition: form-data; name="attachment-1"; filename="a.txt"\r\n\r\nfile\r\n'
    return "multipart/form-data; boundary=xyz", "".join([file, *parts, "--xyz--\r\n"]).encode()


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - the body brings its own
    """Return the secret that signed all samples, a moment ago."""
    return Proof(trust=Trust(secrets=(SECRET,)), headers={"content-type": "application/json"})
