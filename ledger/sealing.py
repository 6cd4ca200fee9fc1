"""Seal what names people before it is stored, and open it when it is read.

Pure but for the nonce. A value says by its first octets whether it is sealed: neither text, nor mail, nor MessagePack
begins with them, and what does so all the same is marked as plain. So rows from before the first key stay as they are.
"""

import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: What stands first in a stored value that is not kept as it is. MessagePack never uses the octet 193, no UTF-8 text
#: holds it, and mail holds no NUL. queries.sql spells it, too.
MARK = b"\xc1\x00"
#: The same in a column of text; what follows is base64.
TEXT_MARK = "\x0e"
#: What is shown in place of a value that our keys do not open.
UNREADABLE = "(sealed)"

_PLAIN, _AES_GCM = b"\x00", b"\x01"
_KEY_ID_BYTES = 4
#: So many first octets of a stored value tell whether it is current.
HEAD_BYTES = len(MARK) + 1 + _KEY_ID_BYTES
_NONCE_BYTES = 12
_TAG_BYTES = 16


class Column(StrEnum):
    """Where a sealed value belongs: moved to another column it does not open."""

    SENDER = "message.sender"
    RECIPIENT = "message.recipient"
    SUBSCRIBER = "message.subscriber"
    SUPPRESSED = "suppression.recipient"
    ENVELOPE = "body.envelope"
    CONTENT = "body.content"
    PARKED = "parked_event.payload"
    RAW = "event.raw"
    DESCRIPTION = "event.description"
    #: An upstream's words: of a delivery, and of the event that tells of its failure.
    REPLY = "delivery.reply"

    # That of an enum is written in Python and would be asked for with every value.
    __hash__ = str.__hash__


class SealedError(Exception):
    """An address cannot be read: its key is not in OUTRIDER_KEYS__ADDRESSES, or the stored value was altered."""

    def __init__(self) -> None:
        super().__init__(
            "OUTRIDER_KEYS__ADDRESSES does not open an address of this ledger: put the key back under which it was "
            "sealed; if none is missing, the stored value was altered"
        )


class Sealer:
    """Opens with all of *secrets* and seals with the first; without one, or with *seals* off, it keeps values."""

    def __init__(self, secrets: Sequence[bytes] = (), *, seals: bool = True) -> None:
        # Several only if two secrets share an id, which is chance and no error.
        self._secrets: dict[bytes, list[bytes]] = {}
        for secret in secrets:
            self._secrets.setdefault(_key_id(secret), []).append(secret)
        self._first = secrets[0] if secrets and seals else None
        self._head = b"" if self._first is None else MARK + _AES_GCM + _key_id(self._first)

    def seal(self, column: Column, plain: bytes) -> bytes:
        """Return *plain* as it is stored in *column*; what is empty names nobody and stays so."""
        if self._first is None:
            return plain if not plain.startswith(MARK) else MARK + _PLAIN + plain
        if not plain:
            return plain
        nonce = os.urandom(_NONCE_BYTES)
        return b"".join((self._head, nonce, _cipher(self._first, column).encrypt(nonce, plain, self._head)))

    def open(self, column: Column, stored: bytes) -> bytes:
        """Return what was stored in *column*; raise `SealedError` where our keys do not open it."""
        if not stored.startswith(MARK):
            return stored
        form, key_id = stored[len(MARK) : len(MARK) + 1], stored[len(MARK) + 1 : HEAD_BYTES]
        if form == _PLAIN:
            return stored[len(MARK) + 1 :]
        if form == _AES_GCM and len(stored) > HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES:
            # Not copied: a stored submission may have megabytes.
            nonce, sealed = (
                stored[HEAD_BYTES : HEAD_BYTES + _NONCE_BYTES],
                memoryview(stored)[HEAD_BYTES + _NONCE_BYTES :],
            )
            for secret in self._secrets.get(key_id, ()):
                try:
                    return _cipher(secret, column).decrypt(nonce, sealed, stored[:HEAD_BYTES])
                except InvalidTag:
                    continue
        raise SealedError

    def is_current(self, stored: bytes) -> bool:
        """Tell whether *stored* is as `seal` would store it now; its first octets are enough to ask."""
        if self._first is None:
            return stored[: len(MARK) + 1] != MARK + _AES_GCM
        return not stored or stored.startswith(self._head)

    def seal_address(self, column: Column, address: str) -> bytes:
        """Return an address as it is stored in *column*."""
        return self.seal(column, address_bytes(address))

    def open_address(self, column: Column, stored: bytes) -> str:
        """Return an address that was stored in *column*."""
        return self.open(column, stored).decode("utf-8", "surrogateescape")

    def show_address(self, column: Column, stored: bytes) -> str:
        """Return a stored address as text that JSON can carry: what is not UTF-8 becomes U+FFFD. Never raises."""
        try:
            return self.open(column, stored).decode("utf-8", "replace")
        except SealedError:
            return UNREADABLE

    def seal_text(self, column: Column, plain: str | None) -> str | None:
        """Return words as they are stored in *column*, a column of text."""
        if not plain or (self._first is None and not plain.startswith(TEXT_MARK)):
            return plain
        octets = plain.encode("utf-8", "surrogatepass")
        stored = MARK + _PLAIN + octets if self._first is None else self.seal(column, octets)
        return TEXT_MARK + b64encode(stored).decode("ascii")

    def open_text(self, column: Column, stored: str | None) -> str | None:
        """Return words that were stored in *column*; raise `SealedError` where our keys do not open them."""
        octets = _octets(stored)
        return stored if octets is None else self.open(column, octets).decode("utf-8", "surrogatepass")

    def show_text(self, column: Column, stored: str | None) -> str | None:
        """Return stored words for somebody to read. Never raises."""
        try:
            return self.open_text(column, stored)
        except SealedError:
            return UNREADABLE

    def is_current_text(self, stored: str | None) -> bool:
        """Tell whether *stored* is as `seal_text` would store it now."""
        octets = _octets(stored)
        return not stored or (self._first is None if octets is None else self.is_current(octets))


def address_bytes(address: str) -> bytes:
    """Return an address as octets."""
    return address.encode("utf-8", "surrogateescape")


def _octets(stored: str | None) -> bytes | None:
    """Return what stands behind the mark of a text; none where it is kept as it is."""
    if stored is None or not stored.startswith(TEXT_MARK):
        return None
    try:
        octets = b64decode(stored[len(TEXT_MARK) :], validate=True)
    except ValueError:
        octets = b""
    if not octets.startswith(MARK):
        raise SealedError
    return octets


@lru_cache(maxsize=256)
def _cipher(secret: bytes, column: Column) -> AESGCM:
    # A key for each column: random nonces of 96 bits are good for 2^32 values under one key (NIST SP 800-38D, 8.3).
    return AESGCM(_derived(secret, f"seal {column}", 32))


@lru_cache(maxsize=64)
def _key_id(secret: bytes) -> bytes:
    return _derived(secret, "seal key id", _KEY_ID_BYTES)


def _derived(secret: bytes, purpose: str, octets: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=octets, salt=None, info=f"outrider {purpose} 1".encode()).derive(secret)
