"""Mint and verify the tokens that our URLs carry: encrypted, then signed, with exactly one valid spelling.

Both directions stand in one file so that they cannot drift apart. Tokens already sent must verify for ever: a change
to the payload is a new version byte, and nothing that a client may have altered is ever trimmed or repaired.
"""

import functools
import hashlib
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from enum import StrEnum
from hmac import compare_digest
from typing import Final, NewType

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import Signer

#: What one of our URLs carries after its last slash; ASCII, `payload.signature`, both base64url without padding.
Token = NewType("Token", str)

#: A longer token is refused unread; a destination of 1,500 octets makes one of about 2,100 characters.
MAX_TOKEN_CHARS = 4096

_VERSION = b"\x01"
_KEY_BYTES = 16
_MAX_LINK = 2**31 - 2
_MAX_PAYLOAD_BYTES = (MAX_TOKEN_CHARS - 44) * 3 // 4 - 16  # less the signature and its dot, and the SIV

_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")

# 46 characters carry the shortest payload, 43 an HMAC-SHA-256. `re.ASCII` is not needed: the classes are explicit.
_SHAPE = re.compile(r"([A-Za-z0-9_-]{46,})\.([A-Za-z0-9_-]{43})")


class Purpose(StrEnum):
    """What a token lets its bearer do; a token never works for another purpose than its own."""

    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"

    # That of an enum is written in Python and would be asked for with every link.
    __hash__ = str.__hash__


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a valid token says."""

    #: The 16 bytes of the message key.
    key: bytes
    #: The number of the link in its message, counted from 0; -1 where there is none.
    link: int
    #: The destination exactly as the mailer wrote it; empty where there is none.
    url: str


class TokenError(Exception):
    """The token is not one of ours, was altered, is for another purpose, or its key was taken out of the list."""


class _Seal:
    """What one secret needs for one purpose: to set up its cipher and its HMAC for each link would double the cost."""

    def __init__(self, secret: bytes, purpose: Purpose) -> None:
        self._cipher = AESSIV(_derive(secret, f"{purpose} encryption", 64))
        self._associated = [purpose.encode()]
        # What `Signer.sign` does from here on, with the derived key in place: its tokens are these, octet for octet.
        signer = Signer(secret, salt=f"outrider.{purpose}.1", key_derivation="hmac", digest_method=hashlib.sha256)
        self._mac = HMAC(signer.derive_key(), SHA256())

    def seal(self, payload: bytes) -> bytes:
        body = _encoded(self._cipher.encrypt(payload, self._associated))
        return b"%b.%b" % (body, self._signature(body))

    def open(self, body: bytes, signature: bytes) -> bytes | None:
        if not compare_digest(self._signature(body), signature):
            return None
        try:
            sealed = _decoded(body)
            # base64 has spare bits at its end: another spelling is refused, whoever signed it.
            return self._cipher.decrypt(sealed, self._associated) if _encoded(sealed) == body else None
        except (InvalidTag, ValueError):
            return None

    def _signature(self, body: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(body)
        return _encoded(mac.finalize())


class _Key:
    """One secret, with everything derived from it that minting and verifying need."""

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("a signing key must not be empty")
        self.secret = secret
        self.fingerprint = _derive(secret, "fingerprint", 8).hex()
        self.seals = {purpose: _Seal(secret, purpose) for purpose in Purpose}


@functools.lru_cache(maxsize=32)
def _derived_key(secret: bytes) -> _Key:
    return _Key(secret)


class Keyring:
    """The signing keys, newest first: the first signs, all verify; taking one out revokes its tokens.

    A secret's keys are derived once in a process; minting and verifying then cost microseconds.
    Equal arguments give an equal token, on every machine, so that a retry sends the same bytes.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._keys = tuple(_derived_key(secret) for secret in secrets)
        if not self._keys:
            raise ValueError("a keyring needs at least one signing key")
        self._seals = self._keys[0].seals

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key that signs: 16 hexadecimal digits that do not lead back to the secret."""
        return self._keys[0].fingerprint

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of all keys, in the order of the secrets."""
        return tuple(key.fingerprint for key in self._keys)

    def pinned(self, fingerprint: str) -> "Keyring":
        """Return a keyring that signs with the named key if it is still in the list, else this one."""
        for key in self._keys[1:]:
            if key.fingerprint == fingerprint:
                return Keyring((key.secret, *(other.secret for other in self._keys if other is not key)))
        return self

    def mint(self, purpose: Purpose, key: bytes, link: int = -1, url: str = "") -> Token:
        """Return the token for a message key of 16 bytes; raise `ValueError` for what no token can hold."""
        return Token(self._seals[purpose].seal(_pack(key, link, url)).decode("ascii"))

    def verify(self, purpose: Purpose, token: str) -> Claim:
        """Return what *token* says, or raise `TokenError` and nothing else."""
        shape = _SHAPE.fullmatch(token) if len(token) <= MAX_TOKEN_CHARS else None
        if shape is None:
            raise TokenError("not the shape of a token")
        body, signature = shape[1].encode("ascii"), shape[2].encode("ascii")
        for key in self._keys:
            payload = key.seals[purpose].open(body, signature)
            if payload is not None:
                return _unpack(payload)
        raise TokenError("no key in the list made this token")


def _derive(secret: bytes, label: str, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=f"outrider token {label} 1".encode()).derive(secret)


def _encoded(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False).translate(_TO_URL_SAFE).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    return a2b_base64(text.translate(_FROM_URL_SAFE) + b"=" * (-len(text) % 4))


def _pack(key: bytes, link: int, url: str) -> bytes:
    if len(key) != _KEY_BYTES:
        raise ValueError("a message key has 16 bytes")
    if not -1 <= link <= _MAX_LINK:
        raise ValueError("a link number is counted from 0, or -1 for none")
    payload = _head(link) + key + url.encode("utf-8")
    if len(payload) > _MAX_PAYLOAD_BYTES:
        raise ValueError("the URL is too long for a token")
    return payload


def _unpack(payload: bytes) -> Claim:
    # Only a holder of the key could have sealed anything else; it is refused all the same, never guessed at.
    try:
        claim = _read(payload)
        if _pack(claim.key, claim.link, claim.url) == payload:
            return claim
    except ValueError as error:
        raise TokenError("a token of another version") from error
    raise TokenError("a token of another version")


def _read(payload: bytes) -> Claim:
    number, at = 0, 1
    for byte in payload[1:6]:
        number |= (byte & 0x7F) << 7 * (at - 1)
        at += 1
        if byte < 0x80:
            break
    end = at + _KEY_BYTES
    return Claim(key=payload[at:end], link=number - 1, url=payload[end:].decode("utf-8"))


@functools.lru_cache(maxsize=512)
def _head(link: int) -> bytes:
    """Spell the version, and one more than *link* in LEB128: seven bits a byte, low ones first."""
    number = link + 1
    out = bytearray(_VERSION)
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
