"""Derive and normalise the ids that tie a message to every event that follows it.

Everything here is a pure function: equal input, equal id, on every machine, for ever. The identity key must
therefore never change; a change to a derivation below is a new version byte, never an edit.
"""

import hashlib
import hmac
import unicodedata
from typing import NewType

import idna

#: 26 characters `[a-z2-7]`: base32 of 16 bytes. The left side of a stamped Message-ID and the word in our 250.
MessageKey = NewType("MessageKey", str)

#: A Message-ID without angle brackets, its domain in lower case, its local part exact.
MessageId = NewType("MessageId", str)

KEY_BYTES = 16
KEY_CHARS = 26

_KEY_VERSION = b"outrider message key 1"
_SUBMISSION_VERSION = b"outrider submission key 1"
_INDEX_VERSION = b"outrider recipient index 1"
_ALIAS_VERSION = b"outrider alias 1"
_IMPORTED_VERSION = b"outrider imported event 1"

#: The origin field of what was sent elsewhere, long ago: a campaign has one message for each person there.
ORIGIN_OF_IMPORT = b"import:"

# RFC 4648's base32 in lower case: written twice and read ten times as fast as by the library, which knows more of it.
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_ALPHABET = frozenset(_LETTERS)
# The digits by which `int` reads base 32.
_DIGITS = str.maketrans(_LETTERS, "0123456789abcdefghijklmnopqrstuv")
# Two characters for ten bits each, from the highest down.
_PAIRS = tuple(first + second for first in _LETTERS for second in _LETTERS)
_SHIFTS = tuple(range(120, -1, -10))


def _framed(*fields: bytes) -> bytes:
    # Length-prefixed, so that no two different lists of fields ever concatenate to the same bytes.
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def key_text(raw: bytes) -> MessageKey:
    """Spell 16 bytes as a message key."""
    number = int.from_bytes(raw, "big") << 2
    return MessageKey("".join([_PAIRS[number >> shift & 0x3FF] for shift in _SHIFTS]))


def key_bytes(key: str) -> bytes:
    """Return the 16 bytes of a message key; raise `ValueError` for anything that is not one."""
    if len(key) != KEY_CHARS or not _ALPHABET.issuperset(key):
        raise ValueError("a message key has 26 characters a-z and 2-7")
    number = int(key.translate(_DIGITS), 32)
    # 26 characters carry 130 bits; the last two must be zero, so that a key has one spelling.
    if number & 3:
        raise ValueError("a message key has exactly one spelling")
    return (number >> 2).to_bytes(KEY_BYTES, "big")


def message_key(
    identity_key: bytes,
    *,
    source: str,
    campaign: str | None,
    recipient: str,
    origin: bytes,
    generation: int,
) -> MessageKey:
    """Return the key of one recipient's message.

    *recipient* is normalised here. *origin* is the original Message-ID, normalised, or the content digest where
    there was none (see `origin_of_id` and `origin_of_content`). *generation* is 0, and rises when the same
    identity comes back as something else than a repeat.
    """
    fields = _framed(
        _KEY_VERSION,
        source.encode("utf-8", "surrogateescape"),
        b"" if campaign is None else b"=" + campaign.encode("utf-8", "surrogateescape"),
        normalise_address(recipient).encode("utf-8", "surrogateescape"),
        origin,
        generation.to_bytes(4, "big"),
    )
    return key_text(hmac.digest(identity_key, fields, "sha256")[:KEY_BYTES])


def submission_key(identity_key: bytes, keys: list[MessageKey]) -> MessageKey:
    """Return the key under which the messages of one transaction are found together."""
    fields = _framed(_SUBMISSION_VERSION, *(key.encode("ascii") for key in keys))
    return key_text(hmac.digest(identity_key, fields, "sha256")[:KEY_BYTES])


def origin_of_id(message_id: MessageId) -> bytes:
    """Return the origin field for a submission that brought a Message-ID."""
    return b"id:" + message_id.encode("utf-8", "surrogateescape")


def origin_of_content(digest: bytes) -> bytes:
    """Return the origin field for a submission without a Message-ID: a digest of its content, Date included."""
    return b"content:" + digest


def normalise_message_id(value: str) -> MessageId:
    """Strip white space and angle brackets, lower the domain, keep the local part exact."""
    text = value.strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1].strip()
    local, at, domain = text.rpartition("@")
    return MessageId(local + at + domain.lower() if at else text)


def normalise_address(address: str) -> str:
    """Return *address* with its domain in lower-case A-labels; the local part stays exact (RFC 5321 2.4)."""
    local, at, domain = address.rpartition("@")
    if not at:
        return address
    if not domain.isascii():
        try:
            # The rules that browsers and today's mailers follow (UTS 46), not Python's codec of 2003.
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            domain = unicodedata.normalize("NFC", domain)
    return local + at + domain.lower()


def canonical_address(address: str) -> str:
    """Return the form under which two spellings are the same person: for suppression, look-up and erasure.

    Unlike `normalise_address` the local part is case-folded too: no mailbox provider in use tells `Ann@` from `ann@`.
    """
    local, at, domain = normalise_address(unicodedata.normalize("NFC", address)).rpartition("@")
    return local.casefold() + at + domain


def recipient_index(identity_key: bytes, address: str) -> bytes:
    """Return the keyed blind index (16 bytes) under which the ledger finds an address it may keep encrypted."""
    canonical = canonical_address(address).encode("utf-8", "surrogateescape")
    return hmac.digest(identity_key, _framed(_INDEX_VERSION, canonical), "sha256")[:KEY_BYTES]


def alias_digest(kind: str, scope: str, value: str) -> bytes:
    """Return the digest (16 bytes) under which the ledger finds a foreign id: an original Message-ID, a 250 id.

    *scope* keeps short ids apart that recur between upstreams; it is empty for ids that are unique in the world.
    """
    fields = _framed(_ALIAS_VERSION, *(part.encode("utf-8", "surrogateescape") for part in (kind, scope, value)))
    return hashlib.sha256(fields).digest()[:KEY_BYTES]


def imported_event(key: MessageKey, *details: str) -> bytes:
    """Return what makes the copies of an imported event one (16 bytes): its message, and what was told of it.

    The key is a keyed hash already, so nobody finds an address by trying.
    """
    fields = _framed(_IMPORTED_VERSION, *(part.encode("utf-8", "surrogateescape") for part in (key, *details)))
    return hashlib.sha256(fields).digest()[:KEY_BYTES]
