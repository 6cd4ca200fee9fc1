"""Decide what is injected into a submission, and spell the tracked URLs of one recipient's message.

What rendering depends on is a `Profile`: it is pinned when a message is queued, so that a retry sends the same bytes
after settings changed and keys rotated.
"""

import hashlib

import msgspec

import injector
from injector.tokens import Keyring, Purpose

#: Rises when the same profile would render other bytes than before.
RENDER_VERSION = 3


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What rendering depends on beside the message itself."""

    version: int = RENDER_VERSION
    options: injector.Options
    #: The fingerprint of the key that signs.
    signing: str
    #: Header names removed from what leaves.
    strip: tuple[str, ...]
    hostname: str
    #: The names of the keys that sign again with DKIM: a key added later signs no message that was planned before.
    dkim_keys: tuple[str, ...] = ()

    def encode(self) -> str:
        """Return the profile as JSON, one spelling for one profile."""
        return msgspec.json.encode(self, order="deterministic").decode("utf-8")

    @property
    def digest(self) -> bytes:
        """Sixteen bytes that name this profile."""
        return hashlib.sha256(self.encode().encode("utf-8")).digest()[:16]


def decode_profile(text: str) -> Profile:
    """Return the profile that `encode` spelt."""
    return msgspec.json.decode(text, type=Profile)


class UrlMinter:
    """Spell the tracked URLs of one message: the injector asks, this answers."""

    def __init__(self, keyring: Keyring, public_url: str, key: bytes) -> None:
        self._keyring = keyring
        self._public_url = public_url
        self._key = key

    def open(self) -> str:
        """Return the pixel's URL."""
        return f"{self._public_url}/track/o/{self._keyring.mint(Purpose.OPEN, self._key)}"

    def click(self, link: int, url: str) -> str | None:
        """Return the tracked URL of link number *link* to *url*."""
        return f"{self._public_url}/track/c/{self._keyring.mint(Purpose.CLICK, self._key, link, url)}"

    def unsubscribe(self) -> str:
        """Return the one-click unsubscribe URL."""
        return f"{self._public_url}/unsubscribe/{self._keyring.mint(Purpose.UNSUBSCRIBE, self._key)}"
