"""Prove a request by a secret that both sides know: in the URL's `?key=`, as Basic password, or as bearer token.

Every comparison takes the same time whatever is compared, and every secret is tried.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping

from providers.webhook import DeniedError, Proven, Request, Trust


def has_secret(trust: Trust) -> bool:
    """Say whether the operator named a secret."""
    return bool(trust.secrets)


def any_equal(given: str, secrets: tuple[str, ...]) -> bool:
    """Say whether *given* is one of *secrets*; an empty one is none."""
    spelt = given.encode("utf-8", "surrogateescape")
    equal = [hmac.compare_digest(spelt, secret.encode()) for secret in secrets]
    return bool(spelt) and any(equal)


def by_secret(
    request: Request,
    trust: Trust,
    now: float,  # noqa: ARG001 - the shape of `Provider.authenticate`
    documents: Mapping[str, bytes],  # noqa: ARG001
) -> Proven:
    """Believe a request that brings one of the secrets; raise `DeniedError`."""
    given = (request.query.get("key", ""), *_authorization(request.headers.get("authorization", "")))
    if not any(any_equal(one, trust.secrets) for one in given):
        raise DeniedError("no secret, or a wrong one")
    return Proven()


def _authorization(value: str) -> tuple[str, ...]:
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "bearer":
        return (rest.strip(),)
    if scheme.lower() != "basic":
        return ()
    try:
        _, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ()
    return (password,) if colon else ()
