"""Read the private keys that sign mail again, and say what to publish of each in the DNS.

A setting names each file by the DNS name at which its public key stands. What a file holds is never shown.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sidecar.keys import KeyFileError

if TYPE_CHECKING:
    from injector.dkim import Signer, SigningKey

#: RFC 8301 3.2: what verifiers must take, and what a signer should have.
LEAST_RSA_BITS, GOOD_RSA_BITS = 1024, 2048

# RFC 6376 3.1 and 3.5: both are dotted labels, the domain has two or more.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"\A(?=.{{1,253}}\Z)({_LABEL}(?:\.{_LABEL})*)\._domainkey\.({_LABEL}(?:\.{_LABEL})+)\Z")

# Others may not read it, nor the group write it. The group may read: mailers share keys so, opendkim's for example.
_OPEN = 0o027


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a key lies, and where its public part is published."""

    selector: str
    domain: str
    path: Path

    @property
    def name(self) -> str:
        """The name in the DNS."""
        return f"{self.selector}._domainkey.{self.domain}"


def key_file(text: str) -> KeyFile:
    """Return what an item of the setting says; raise `ValueError` with what is expected."""
    name, equals, path = text.partition("=")
    found = _NAME.match(name.strip().lower())
    if not equals or not path.strip():
        raise ValueError("expected SELECTOR._domainkey.DOMAIN=/path/to/key.pem")
    if found is None:
        raise ValueError("expected the name of a DNS record before the =, such as s1._domainkey.example.com, in ASCII")
    return KeyFile(selector=found[1], domain=found[2], path=Path(path.strip()))


def domains(entries: Iterable[str]) -> tuple[str, ...]:
    """Return the domains whose keys are held, each once, in one order for one set."""
    return tuple(sorted({key_file(entry).domain for entry in entries}))


def load_signer(entries: Iterable[str]) -> "Signer":
    """Return what signs with the keys that the setting names; raise `KeyFileError` for one that cannot be used."""
    from injector.dkim import Signer

    return Signer(load_key(key_file(entry)) for entry in entries)


def load_key(file: KeyFile) -> "SigningKey":
    """Return the key in *file*; raise `KeyFileError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from injector.dkim import SigningKey

    try:
        key = load_pem_private_key(_read(file.path), password=None)
    except TypeError:
        raise KeyFileError(f"{file.path}: the key is encrypted; expected one without a pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{file.path}: expected a private key in PEM, RSA or Ed25519") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise KeyFileError(f"{file.path}: DKIM does not sign with a key of this kind; expected RSA or Ed25519")
    if isinstance(key, RSAPrivateKey) and key.key_size < LEAST_RSA_BITS:
        raise KeyFileError(
            f"{file.path}: an RSA key of {key.key_size} bits; nobody takes less than {LEAST_RSA_BITS}, "
            f"{GOOD_RSA_BITS} are expected"
        )
    return SigningKey(selector=file.selector, domain=file.domain, key=key)


def record(key: "SigningKey") -> str:
    """Return the text of the TXT record at the key's name (RFC 6376 3.6.1, RFC 8463 4)."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.key.public_key()
    if isinstance(key.key, RSAPrivateKey):
        kind, octets = "rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        kind, octets = "ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; p={b64encode(octets).decode()}"


def is_weak(key: "SigningKey") -> bool:
    """Tell whether some receivers will not trust the key for its size."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    return isinstance(key.key, RSAPrivateKey) and key.key.key_size < GOOD_RSA_BITS


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OPEN:
                raise KeyFileError(f"{path} can be read by others, or written by its group: chmod 600 or 640")
            return file.read()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
