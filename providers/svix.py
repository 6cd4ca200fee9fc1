"""Prove a request by Svix's signature: HMAC-SHA256 over `id.timestamp.body`, in one of several `v1,` signatures.

Every secret is tried against every signature, in constant time; a request older or newer than five minutes is a replay.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping

from providers.webhook import DeniedError, Proven, Request, Trust

AGE_S = 300

_PREFIX = "whsec_"
_VERSION = "v1,"


def has_key(trust: Trust) -> bool:
    """Say whether one of the secrets is a key: `whsec_` and base64."""
    return any(True for _ in _keys(trust))


def by_signature(
    request: Request,
    trust: Trust,
    now: float,
    documents: Mapping[str, bytes],  # noqa: ARG001 - the shape of `Provider.authenticate`
) -> Proven:
    """Believe a request that one of the secrets signed within five minutes of *now*; raise `DeniedError`."""
    identity, stamp, given = (request.headers.get(f"svix-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (identity and stamp and given):
        raise DeniedError("no signature")
    # As many digits as any time needs, and few enough for a float.
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12) or abs(now - int(stamp)) > AGE_S:
        raise DeniedError("a stale timestamp")
    said = f"{identity}.{stamp}.".encode("utf-8", "surrogateescape") + request.body
    signatures = [one.removeprefix(_VERSION) for one in given.split() if one.startswith(_VERSION)]
    if not _any_signed(said, signatures, trust):
        raise DeniedError("a wrong signature")
    # A retry has the same id, and the events of a replay within the five minutes are told by it.
    return Proven()


def _any_signed(said: bytes, signatures: list[str], trust: Trust) -> bool:
    equal = [
        hmac.compare_digest(base64.b64encode(hmac.digest(key, said, hashlib.sha256)), one.encode("utf-8", "replace"))
        for key in _keys(trust)
        for one in signatures
    ]
    return any(equal)


def _keys(trust: Trust) -> Iterator[bytes]:
    for secret in trust.secrets:
        spelt = secret.strip().removeprefix(_PREFIX)
        try:
            key = base64.b64decode(spelt + "=" * (-len(spelt) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        if key:
            yield key
