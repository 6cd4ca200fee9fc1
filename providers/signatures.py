"""Read public keys as operators paste them, and check RSA and ECDSA signatures of SHA-256.

What cannot be read proves nothing and is no error: the answer is no key, or no. SHA-1 only where the caller names it.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from providers.fields import decoded, entries, text
from providers.webhook import MalformedError

# Shorter keys can be broken, longer ones only cost time.
_SHORTEST_RSA = 1024
_LONGEST_RSA = 8192

_KEYS_AT_MOST = 32

# An environment variable turns a PEM's line ends into spaces, or into the two characters `\n`.
_NO_BASE64 = re.compile(r"-----[^-]*-----|\\n|\s")
_DKIM_KEY = re.compile(r"(?:\A|;)\s*p=([^;]*)")


def _der(spelt: str) -> bytes:
    record = _DKIM_KEY.search(spelt)
    return from_base64(_NO_BASE64.sub("", record[1] if record else spelt))


def from_base64(spelt: str) -> bytes:
    """Return what base64 in either alphabet says, padded or not; nothing where it is not base64."""
    kept = spelt.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(kept + "=" * (-len(kept) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


@lru_cache(maxsize=64)
def _public_key(spelt: str) -> object:
    try:
        return load_der_public_key(_der(spelt))
    except (ValueError, UnsupportedAlgorithm):
        return None


def rsa_key(spelt: str) -> rsa.RSAPublicKey | None:
    """Return the RSA key in a PEM, in base64 DER, or in the value of a DKIM record; none where there is none."""
    key = _public_key(spelt)
    return key if isinstance(key, rsa.RSAPublicKey) and _SHORTEST_RSA <= key.key_size <= _LONGEST_RSA else None


def rsa_key_of(modulus: str, exponent: str) -> rsa.RSAPublicKey | None:
    """Return the RSA key of a JWK's `n` and `e`; none where they make none."""
    n, e = (int.from_bytes(from_base64(spelt[:4096]), "big") for spelt in (modulus, exponent))
    if not _SHORTEST_RSA <= n.bit_length() <= _LONGEST_RSA:
        return None
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        return None


@lru_cache(maxsize=8)
def key_set(document: bytes) -> tuple[tuple[str, rsa.RSAPublicKey], ...]:
    """Return the RSA keys that a JSON Web Key Set has for signatures (RFC 7517 5), each with its id."""
    try:
        known = decoded(document)
    except MalformedError:
        return ()
    return tuple(_rsa_keys(entries(known, "keys")[:_KEYS_AT_MOST]))


def _rsa_keys(described: list[dict[str, Any]]) -> Iterator[tuple[str, rsa.RSAPublicKey]]:
    for one in described:
        if text(one, "kty") == "RSA" and text(one, "use") in {"", "sig"}:
            key = rsa_key_of(text(one, "n"), text(one, "e"))
            if key is not None:
                yield text(one, "kid"), key


def p256_key(spelt: str) -> ec.EllipticCurvePublicKey | None:
    """Return the P-256 key in a PEM or in base64 DER; none where there is none."""
    key = _public_key(spelt)
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) else None


def rsa_signed(key: rsa.RSAPublicKey, signature: bytes, signed: bytes, *, sha1: bool = False) -> bool:
    """Say whether this is the key's PKCS #1 v1.5 signature of *signed*."""
    # The caller asks for SHA-1 only where the operator has.
    digest = SHA1() if sha1 else SHA256()  # noqa: S303
    try:
        key.verify(signature, signed, padding.PKCS1v15(), digest)
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def ecdsa_signed(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """Say whether this is the key's signature (in DER) of *signed*."""
    try:
        key.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
