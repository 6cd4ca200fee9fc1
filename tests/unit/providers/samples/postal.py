"""What Postal posts: one event in its envelope, signed with the installation's RSA key."""

import base64
import hashlib
from functools import cache
from itertools import count

import msgspec
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.webhook import Trust
from tests.unit.providers.proof import Proof

_IDS = count(1)
KEY = "a2b3c4d5e6f7g2h3i4j5k6l7m4"
MESSAGE_ID = f"{KEY}@example.org"
KEY_SET = "https://postal.example.com/.well-known/jwks.json"


def message(**changed: object) -> dict[str, object]:
    """Return a message as every event describes it."""
    fields: dict[str, object] = {
        "id": 812,
        "token": "ab3cd4ef5gh6",
        "direction": "outgoing",
        "message_id": MESSAGE_ID,
        "to": "ann@example.net",
        "from": "news@example.org",
        "subject": "Hi",
        "timestamp": 1767323000.9,
        "spam_status": "NotChecked",
        "tag": None,
    }
    return fields | changed


def event(kind: str, payload: dict[str, object]) -> dict[str, object]:
    """Return one webhook's body."""
    return {"event": kind, "timestamp": 1767323045.5, "payload": payload, "uuid": f"uuid-{next(_IDS)}"}


def status(kind: str, word: str, details: str, output: str = "", **changed: object) -> dict[str, object]:
    """Return a report of a delivery attempt."""
    return event(kind, {
        "message": message(**changed),
        "status": word,
        "details": details,
        "output": output,
        "sent_with_ssl": True,
        "timestamp": 1767323045.25,
        "time": 0.31,
    })  # fmt: skip


_BOUNCE = {"id": 840, "token": "zz", "direction": "incoming", "message_id": "dsn@mx.example.net", "to": "r@example.org"}
_SERVER = {"uuid": "s-1", "name": "news", "permalink": "news", "organization": "example"}

EVENTS: list[tuple[str, object]] = [
    ("sent", status("MessageSent", "Sent", "Message sent by SMTP to mx.example.net", "250 2.0.0 Ok")),
    ("sent, tagged by us", status("MessageSent", "Sent", "", "250 OK", tag=KEY)),
    ("sent, tagged by the mailer", status("MessageSent", "Sent", "", "250 OK", tag="c186")),
    ("delayed", status("MessageDelayed", "SoftFail", "Temporary problem", "451 4.7.1 greylisted")),
    ("failed", status("MessageDeliveryFailed", "HardFail", "Permanent error", "550 5.1.1 no such user")),
    ("failed, policy", status("MessageDeliveryFailed", "HardFail", "Permanent error", "550 5.7.1 listed")),
    ("failed, too often", status(
        "MessageDeliveryFailed", "HardFail", "Maximum number of delivery attempts (18) has been reached."
        " Added ann@example.net to suppression list because delivery has failed 18 times.")),
    ("failed, spam", status(
        "MessageDeliveryFailed", "HardFail", "Message is likely spam. Threshold is 5.0 and the message scored 9.1.")),
    ("failed, other", status("MessageDeliveryFailed", "HardFail", "Raw message has been removed.")),
    ("held", status("MessageHeld", "Held", "Credential is configured to hold all messages authenticated by it.")),
    ("held, suppressed", status(
        "MessageHeld", "Held", "Recipient (ann@example.net) is on the suppression list (reason: too many hard fails)")),
    ("bounced", event("MessageBounced", {"original_message": message(), "bounce": dict(_BOUNCE)})),
    ("loaded", event("MessageLoaded", {"message": message(), "ip_address": "192.0.2.1", "user_agent": "UA"})),
    ("clicked", event("MessageLinkClicked", {
        "message": message(), "url": "https://example.org/page?a=1", "token": "L1",
        "ip_address": "192.0.2.1", "user_agent": "UA"})),
    ("another event", event("MessageTeleported", {"message": message()})),
    ("incoming", status("MessageSent", "Sent", "delivered to the endpoint", "200", direction="incoming")),
    ("domain", event("DomainDNSError", {
        "server": dict(_SERVER), "domain": "example.org", "uuid": "d-1", "dns_checked_at": 1767323045.1,
        "spf_status": "OK", "spf_error": None, "dkim_status": "Invalid", "dkim_error": "no record"})),
    ("limit near", event("SendLimitApproaching", {"server": dict(_SERVER), "volume": 90, "limit": 100})),
    ("limit", event("SendLimitExceeded", {"server": dict(_SERVER), "volume": 100, "limit": 100})),
]  # fmt: skip


def fresh_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return an installation's key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def _installation_key() -> rsa.RSAPrivateKey:
    """Return the key of this run's installation."""
    return fresh_key()


def der(key: rsa.RSAPrivateKey) -> str:
    """Return the public half as it stands in a DKIM record."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def kid(key: rsa.RSAPrivateKey) -> str:
    """Return a name of the key."""
    return hashlib.sha256(der(key).encode()).hexdigest()


def key_set(*keys: rsa.RSAPrivateKey) -> bytes:
    """Return what `/.well-known/jwks.json` says."""
    return msgspec.json.encode({"keys": [jwk(key) for key in keys]})


def jwk(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """Return the public half in a key set."""
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "n": _spelt(numbers.n), "e": _spelt(numbers.e), "kid": kid(key), "use": "sig", "alg": "RS256"}


def _spelt(number: int) -> str:
    octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def headers(key: rsa.RSAPrivateKey, body: bytes) -> dict[str, str]:
    """Return the headers of a webhook: Postal signs it twice."""

    def by(digest: SHA1 | SHA256) -> str:
        return base64.b64encode(key.sign(body, padding.PKCS1v15(), digest)).decode()

    return {
        "content-type": "application/json",
        "x-postal-signature-kid": kid(key),
        "x-postal-signature": by(SHA1()),  # noqa: S303 - what Postal sends beside the better one
        "x-postal-signature-256": by(SHA256()),
    }


def proof(body: bytes, now: float) -> Proof:  # noqa: ARG001 - no time is signed
    """Return the installation's key in a key set, and what it signs."""
    key = _installation_key()
    return Proof(trust=Trust(key_set=KEY_SET), headers=headers(key, body), documents={KEY_SET: key_set(key)})
