"""Find what cannot be meant among the settings that prove a provider's events.

A key that cannot be read would make every event of that provider a 401, and nobody would look here for the reason.
"""

import base64
import binascii
import re
from collections.abc import Iterator

from tracker.settings import WebhookSettings

#: A secret that a URL carries is tried online only, so it may be shorter than a key.
LEAST_SECRET_CHARS = 16

_IN_URL = ("azure", "brevo", "mailjet", "postmark", "sparkpost")
_TOPIC = re.compile(r"\Aarn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}\Z")
_GUID = re.compile(r"\A[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_HTTPS = re.compile(r"\Ahttps://[^/?#\s@]+(?:[/?][!-~]*)?\Z")


def faults(webhooks: WebhookSettings) -> Iterator[tuple[str, str]]:
    """Yield a setting's key and what was expected of it, for each that cannot be used."""
    for key in ("postal_secret", "sendgrid_secret"):
        kind = "RSA" if key == "postal_secret" else "EC"
        provider = key.removesuffix("_secret")
        for number, text in enumerate(webhooks.trust(provider).secrets, start=1):
            if not _is_public_key(text, kind):
                yield key, f"item {number}: expected a public {kind} key, in PEM or in base64"
    if webhooks.azure_tenant and not _GUID.match(webhooks.azure_tenant):
        yield "azure_tenant", "expected the tenant's id, such as 00000000-0000-0000-0000-000000000000"
    if bool(webhooks.azure_tenant) != bool(webhooks.azure_audience):
        yield "azure_audience", "expected together with azure_tenant: a token must be for us"
    if not all(map(_GUID.match, webhooks.azure_callers)):
        yield "azure_callers", "expected application ids, such as 00000000-0000-0000-0000-000000000000"
    if not all(_TOPIC.match(topic) for topic in webhooks.ses_topics):
        yield "ses_topics", "expected TopicArns, such as arn:aws:sns:eu-west-1:111122223333:events"
    if webhooks.postal_jwks and not _HTTPS.match(webhooks.postal_jwks):
        yield "postal_jwks", "expected https://, a host, and the path of the key set"


def short_secrets(webhooks: WebhookSettings) -> Iterator[str]:
    """Yield the settings that hold a secret which could be found by trying."""
    for provider in _IN_URL:
        if any(len(secret) < LEAST_SECRET_CHARS for secret in webhooks.trust(provider).secrets):
            yield f"{provider}_secret"


def open_webhooks(webhooks: WebhookSettings) -> list[str]:
    """Return the providers for which something that could prove an event is set."""
    names = sorted({key.partition("_")[0] for key in webhooks.__struct_fields__})
    trusts = ((name, webhooks.trust(name)) for name in names)
    return [name for name, trust in trusts if trust.secrets or trust.topics or trust.key_set or trust.entra]


def _is_public_key(text: str, kind: str) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    try:
        if text.startswith("-----BEGIN"):
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(base64.b64decode("".join(text.split()), validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        return False
    return isinstance(key, RSAPublicKey if kind == "RSA" else EllipticCurvePublicKey)
