"""Prove a request by a token of Microsoft Entra ID: of the operator's tenant, for us, issued to a caller that we know.

RFC 7519 within the bounds of RFC 8725: one algorithm, the key by its id out of the tenant's own key set, and issuer,
audience and caller compared whole. Microsoft's two forms of a token differ in their issuer and in `appid` and `azp`.
"""

from collections.abc import Mapping
from typing import Any

from providers.fields import decoded, text
from providers.signatures import from_base64, key_set, rsa_signed
from providers.webhook import DeniedError, Entra, Fetch, MalformedError, Proven

#: Seconds by which a clock may be wrong: Microsoft's own libraries allow as many.
SKEW = 300.0

# Tokens of applications have about 1,500 characters.
_LONGEST = 8192


def is_token(value: str) -> bool:
    """Say whether an Authorization header holds what looks like a signed token, not a secret of ours."""
    scheme, _, token = value.strip().partition(" ")
    return scheme.lower() == "bearer" and token.startswith("eyJ") and token.count(".") == 2


def by_token(authorization: str, entra: Entra, now: float, documents: Mapping[str, bytes]) -> Proven | Fetch:
    """Believe a token in an Authorization header; raise `DeniedError`, and ask for the tenant's keys first."""
    token = authorization.strip().partition(" ")[2].strip()
    if len(token) > _LONGEST:
        raise DeniedError("a token without end")
    signed, _, signature = token.rpartition(".")
    header, claims = (_object(part) for part in signed.split(".", 1))
    if text(header, "alg") != "RS256":
        raise DeniedError("a token of another algorithm")
    if (fault := _fault(claims, entra, now)) is not None:
        raise DeniedError(fault)
    keys = f"https://login.microsoftonline.com/{entra.tenant}/discovery/v2.0/keys"
    if keys not in documents:
        return Fetch(url=keys)
    kid = text(header, "kid")
    octets, proof = signed.encode("ascii", "replace"), from_base64(signature)
    if not any(rsa_signed(key, proof, octets) for name, key in key_set(documents[keys]) if name == kid):
        raise DeniedError("a token of no known key")
    return Proven()


def _fault(claims: dict[str, Any], entra: Entra, now: float) -> str | None:
    """Return what is wrong with what a token says; none: nothing is."""
    issuers = {
        f"https://sts.windows.net/{entra.tenant}/",
        f"https://login.microsoftonline.com/{entra.tenant}/v2.0",
    }
    audience = claims.get("aud")
    if text(claims, "iss") not in issuers:
        return "a token of another issuer"
    if entra.audience not in (audience if isinstance(audience, list) else [audience]):
        return "a token for somebody else"
    if (text(claims, "appid") or text(claims, "azp")).lower() not in entra.callers:
        return "a token of another caller"
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        return "a token without a time"
    if not begins - SKEW <= now <= expires + SKEW:
        return "a token of another time"
    return None


def _object(part: str) -> dict[str, Any]:
    try:
        read = decoded(from_base64(part))
    except MalformedError:
        read = None
    if not isinstance(read, dict):
        raise DeniedError("no token")
    return read
