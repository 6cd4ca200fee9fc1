"""Spell a secret in every way in which it could hide in a URL, a log line or a metric."""

import base64
import hashlib
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

# How many characters of base64 an offset of so many octets touches, and leaves unlike what the octets alone give.
_TOUCHED = {0: 0, 1: 2, 2: 3}


def spellings(secret: str) -> dict[str, bytes]:
    """Return the forms of *secret* by their names: plain, escaped, encoded at every offset, hashed."""
    forms: dict[str, bytes] = {}
    for case in {secret, secret.lower(), secret.upper()}:
        octets = case.encode()
        forms |= {f"{name} of {case}": form for name, form in _forms(octets)}
    return forms


def found(secret: str, place: bytes) -> list[str]:
    """Return the names of the forms in which *secret* stands in *place*; plain text in any case of letters."""
    names = [name for name, form in spellings(secret).items() if form in place]
    if secret.lower().encode() in place.lower():
        names.append(f"{secret} in any case")
    return names


def _forms(octets: bytes) -> Iterator[tuple[str, bytes]]:
    text = octets.decode()
    yield "text", octets
    yield "percent", quote(text, safe="").encode()
    yield "form", quote_plus(text, safe="").encode()
    yield "percent twice", quote(quote(text, safe=""), safe="").encode()
    yield "hex", octets.hex().encode()
    yield "HEX", octets.hex().upper().encode()
    yield "base32", base64.b32encode(octets).rstrip(b"=")[:-1]
    yield "backwards", octets[::-1]
    for offset, touched in _TOUCHED.items():
        length = (offset + len(octets)) * 8 // 6
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            yield f"{name} at {offset}", encode(bytes(offset) + octets)[touched:length]
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(algorithm, octets, usedforsecurity=False)
        yield algorithm, digest.hexdigest().encode()
        yield f"{algorithm} in base64", base64.b64encode(digest.digest()).rstrip(b"=")
        yield f"{algorithm} in base64url", base64.urlsafe_b64encode(digest.digest()).rstrip(b"=")
