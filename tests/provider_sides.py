"""The providers' side of the webhooks: one key for as many requests as a test sends, and a proof of each of them.

The samples' `proof` makes a fresh key for each request; where a test posts hundreds to one listener it needs these.
"""

import base64
import itertools
import secrets
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from providers.webhook import Trust
from tests.unit.providers.samples import mailgun, postal, resend, sendgrid, ses
from tests.webhooking import Post

_numbers = itertools.count(1)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider knows, and what the operator believes of it."""

    name: str
    trust: Trust
    #: `(value or octets, seconds since 1970)` to a request that is proved. Octets are sent as they are.
    seal: Callable[[object, float], Post]
    documents: Mapping[str, bytes] = {}

    def post(self, value: object) -> Post:
        """Return a request that is proved now."""
        return self.seal(value, time.time())


def octets(value: object) -> bytes:
    """Return a body."""
    return value if isinstance(value, bytes) else msgspec.json.encode(value)


def _secret(name: str) -> Side:
    secret = secrets.token_urlsafe(24)

    def seal(value: object, now: float) -> Post:  # noqa: ARG001 - the shape of `Side.seal`
        return Post(body=octets(value), query={"key": secret})

    return Side(name=name, trust=Trust(secrets=(secret,)), seal=seal)


def _ses() -> Side:
    """Return SNS, with a key of this run; a value is what stands in `Message`."""

    def seal(value: object, now: float) -> Post:  # noqa: ARG001 - the shape of `Side.seal`
        said = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        sent = ses.notification(said, MessageId=f"n-{next(_numbers)}")
        return Post(body=octets(sent), headers={"content-type": "text/plain; charset=UTF-8"})

    certificate = ses.certificate(ses.signing_key(), time.time())
    return Side(name="ses", trust=Trust(topics=(ses.TOPIC,)), seal=seal, documents={ses.CERTIFICATE_URL: certificate})


def _mailgun() -> Side:
    """Return Mailgun; a value is the `event-data`."""
    secret = secrets.token_hex(16)

    def seal(value: object, now: float) -> Post:
        proof = octets(mailgun.triplet(now, secret))
        return Post(body=b'{"signature": ' + proof + b', "event-data": ' + octets(value) + b"}")

    return Side(name="mailgun", trust=Trust(secrets=(secret,)), seal=seal)


def _postal() -> Side:
    key = postal.fresh_key()

    def seal(value: object, now: float) -> Post:  # noqa: ARG001 - no time is signed
        return Post(body=octets(value), headers=postal.headers(key, octets(value)))

    return Side(name="postal", trust=Trust(secrets=(postal.der(key),)), seal=seal)


def _sendgrid() -> Side:
    key = sendgrid.fresh_key()

    def seal(value: object, now: float) -> Post:
        return Post(body=octets(value), headers=sendgrid.headers(key, octets(value), now))

    return Side(name="sendgrid", trust=Trust(secrets=(sendgrid.der(key),)), seal=seal)


def _resend() -> Side:
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()

    def seal(value: object, now: float) -> Post:
        stamp, identity = str(int(now)), f"msg_{next(_numbers)}"
        signature = resend.signature(secret, octets(value), stamp, identity)
        headers = {"svix-id": identity, "svix-timestamp": stamp, "svix-signature": signature}
        return Post(body=octets(value), headers=headers)

    return Side(name="resend", trust=Trust(secrets=(secret,)), seal=seal)


#: Makes a side with a fresh key, by the provider's name.
SIDES: Mapping[str, Callable[[], Side]] = MappingProxyType(
    {
        "azure": lambda: _secret("azure"),
        "ses": _ses,
        "mailgun": _mailgun,
        "postal": _postal,
        "sendgrid": _sendgrid,
        "postmark": lambda: _secret("postmark"),
        "brevo": lambda: _secret("brevo"),
        "mailjet": lambda: _secret("mailjet"),
        "sparkpost": lambda: _secret("sparkpost"),
        "resend": _resend,
    }
)
