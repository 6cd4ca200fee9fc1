"""Amazon SNS: the envelope that SES's events come in, its signature, and which addresses in it may be asked for.

A signature proves that some topic of some AWS account sent it, so that whoever calls here checks the TopicArn as well.
SNS signs no time of delivery: a retry an hour later, or one out of a dead-letter queue, has the first one's timestamp.
There is hence no age limit; MessageId is in the signed text, and a replay is dropped by it.
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from providers.fields import decoded
from providers.webhook import DeniedError, MalformedError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


class Kind(StrEnum):
    """What SNS sends."""

    NOTIFICATION = "Notification"
    SUBSCRIPTION = "SubscriptionConfirmation"
    UNSUBSCRIPTION = "UnsubscribeConfirmation"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What SNS wraps around a message; every text is exactly as it came, because the signature is over it."""

    type: Kind
    message_id: str
    topic_arn: str
    message: str
    timestamp: str
    signature_version: str
    signature: str
    signing_cert_url: str = msgspec.field(name="SigningCertURL")
    subject: str | None = None
    token: str = ""
    subscribe_url: str = msgspec.field(name="SubscribeURL", default="")


# A region's name, not any label: `sns.s3-eu-west-1.amazonaws.com` would be a bucket that anybody may own.
_HOST = r"https://sns\.[a-z]{2,4}(?:-[a-z]{3,12}){1,3}-[0-9]{1,2}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(_HOST + r"/[A-Za-z0-9._-]{1,200}\.pem")
_SUBSCRIBE_URL = re.compile(_HOST + r"/\?[!-\[\]-~]{1,4096}")

_HASHES: Mapping[str, hashes.HashAlgorithm] = MappingProxyType(
    # Version 1 is what a topic does unless told otherwise.
    {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303 - SNS's own choice
)
_LEAST_BITS = 2048


def envelope(body: bytes) -> Envelope:
    """Return what SNS sent; raise `MalformedError`. SES's own JSON, as raw message delivery sends it, is refused."""
    try:
        return msgspec.convert(decoded(body), Envelope)
    except msgspec.ValidationError:
        raise MalformedError("the body is no SNS message") from None


def signed_text(sent: Envelope) -> bytes:
    """Return what SNS signs: names and values, each ending in a line feed, in the order of the names."""
    pairs = [("Message", sent.message), ("MessageId", sent.message_id)]
    if sent.type is Kind.NOTIFICATION:
        pairs += [("Subject", sent.subject)] if sent.subject is not None else []
        pairs += [("Timestamp", sent.timestamp)]
    else:
        pairs += [("SubscribeURL", sent.subscribe_url), ("Timestamp", sent.timestamp), ("Token", sent.token)]
    pairs += [("TopicArn", sent.topic_arn), ("Type", sent.type)]
    return "".join(f"{name}\n{value}\n" for name, value in pairs).encode()


def certificate_url(sent: Envelope) -> str:
    """Return the address of the signing certificate; raise `DeniedError` where it is not Amazon's."""
    if _CERTIFICATE_URL.fullmatch(sent.signing_cert_url) is None:
        raise DeniedError("a certificate of another host")
    return sent.signing_cert_url


def confirmation_url(sent: Envelope) -> str:
    """Return the address that confirms this subscription and does nothing else; empty where it is another."""
    url = sent.subscribe_url
    if sent.type is not Kind.SUBSCRIPTION or _SUBSCRIBE_URL.fullmatch(url) is None:
        return ""
    asked = parse_qs(urlsplit(url).query)
    confirms = asked.get("Action") == ["ConfirmSubscription"] and asked.get("TopicArn") == [sent.topic_arn]
    return url if confirms else ""


def verify(sent: Envelope, pem: bytes, now: float) -> None:
    """Return if the holder of this certificate, valid now, signed the envelope; raise `DeniedError`."""
    algorithm = _HASHES.get(sent.signature_version)
    if algorithm is None:
        raise DeniedError("an unknown signature version")
    key = _public_key(pem, now)
    try:
        signature = base64.b64decode(sent.signature, validate=True)
        key.verify(signature, signed_text(sent), padding.PKCS1v15(), algorithm)
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise DeniedError("a wrong signature") from None


def _public_key(pem: bytes, now: float) -> rsa.RSAPublicKey:
    try:
        certificate, key = _certificate(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise DeniedError("an unreadable certificate") from None
    if not _is_valid(certificate, now):
        raise DeniedError("a certificate out of its dates")
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _LEAST_BITS:
        raise DeniedError("a certificate of another kind")
    return key


# SNS signs with one for years, and to read it takes longer than to verify.
@lru_cache(maxsize=8)
def _certificate(pem: bytes) -> "tuple[Certificate, object]":
    # A quarter of what all providers take to load, and a relay or a command reads no certificate.
    from cryptography.x509 import load_pem_x509_certificate

    certificate = load_pem_x509_certificate(pem)
    return certificate, certificate.public_key()


def _is_valid(certificate: "Certificate", now: float) -> bool:
    at = datetime.fromtimestamp(now, UTC)
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc
