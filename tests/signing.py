"""Keys that sign, made once in a process, and the signatures that they leave in a message."""

import re
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from injector.dkim import SigningKey

DOMAIN = "shop.example.com"


@cache
def rsa_key(domain: str = DOMAIN, selector: str = "r1", bits: int = 2048) -> SigningKey:
    """Return an RSA key, made once."""
    return SigningKey(selector=selector, domain=domain, key=generate_private_key(public_exponent=65537, key_size=bits))


@cache
def ed_key(domain: str = DOMAIN, selector: str = "e1") -> SigningKey:
    """Return an Ed25519 key, made once."""
    return SigningKey(selector=selector, domain=domain, key=Ed25519PrivateKey.generate())


def both() -> tuple[SigningKey, SigningKey]:
    """Return a key of each kind, of one domain."""
    return rsa_key(), ed_key()


def kept(key: SigningKey, directory: Path, kind: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """Write *key* to a file of its owner's alone, and return the item of the setting that names it."""
    path = directory / f"{key.selector}.pem"
    path.touch(0o600)
    path.write_bytes(key.key.private_bytes(Encoding.PEM, kind, NoEncryption()))
    return f"{key.name}={path}"


def signatures(signed: bytes, content: bytes) -> list[bytes]:
    """Return the signature fields that were put before *content*."""
    assert signed.endswith(content)
    return re.findall(rb"DKIM-Signature:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", signed.removesuffix(content))


def tags(field: bytes) -> dict[str, str]:
    """Return the tags of a signature field, white space taken out of their values."""
    text = re.sub(r"\s+", "", field.partition(b":")[2].decode("ascii"))
    return dict(tag.split("=", 1) for tag in text.split(";"))
