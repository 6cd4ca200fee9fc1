"""Sign and verify with DKIM (RFC 6376, RFC 8463), small and apart from the product: it judges what the relay did."""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from tests.splices import split

Canonicalization = Literal["simple", "relaxed"]

_FIELD = re.compile(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
_SIGNATURE = re.compile(rb"(;[ \t\r\n]*b=)[^;]*")


def sign(
    content: bytes, key: RSAPrivateKey, *, how: Canonicalization, names: Sequence[str], domain: str = "shop.example.com"
) -> bytes:
    """Return *content* with a DKIM-Signature over the fields *names* at its top."""
    head, body = split(content)
    digest = base64.b64encode(hashlib.sha256(_body(body.removeprefix(b"\r\n"), how)).digest()).decode()
    unsigned = (
        f"DKIM-Signature: v=1; a=rsa-sha256; c={how}/{how}; d={domain}; s=s1;\r\n"
        f"\th={':'.join(names)};\r\n\tbh={digest};\r\n\tb="
    ).encode()
    made = key.sign(_signed(head, unsigned, [name.encode() for name in names], how), PKCS1v15(), SHA256())
    signature = base64.b64encode(made)
    folded = b"\r\n\t ".join(signature[at : at + 64] for at in range(0, len(signature), 64))
    return unsigned + folded + b"\r\n" + content


def verifies(content: bytes, key: RSAPublicKey | Ed25519PublicKey) -> bool:
    """Tell whether the first DKIM-Signature of *content* made with such a key holds."""
    head, body = split(content)
    kind = b"rsa-sha256" if isinstance(key, RSAPublicKey) else b"ed25519-sha256"
    field = next(
        field
        for field in _FIELD.findall(head)
        if field.lower().startswith(b"dkim-signature:") and b"a=" + kind + b";" in field
    )
    tags = dict(re.findall(rb"([a-z]+)=([^;]*)", field.partition(b":")[2]))
    how: Canonicalization = "relaxed" if tags[b"c"].strip() == b"relaxed/relaxed" else "simple"
    if binascii.a2b_base64(tags[b"bh"]) != hashlib.sha256(_body(body.removeprefix(b"\r\n"), how)).digest():
        return False
    empty = _SIGNATURE.sub(rb"\1", field).removesuffix(b"\r\n")
    names = [name.strip() for name in tags[b"h"].split(b":")]
    signature, signed = binascii.a2b_base64(tags[b"b"]), _signed(head, empty, names, how)
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, signed, PKCS1v15(), SHA256())
        else:
            key.verify(signature, hashlib.sha256(signed).digest())
    except InvalidSignature:
        return False
    return True


def _signed(head: bytes, unsigned: bytes, names: Sequence[bytes], how: Canonicalization) -> bytes:
    # RFC 6376 5.4.2: a name that stands several times takes the fields from the bottom up, then nothing.
    left: dict[bytes, list[bytes]] = {}
    for field in _FIELD.findall(head):
        left.setdefault(field.partition(b":")[0].strip().lower(), []).append(field)
    pieces = [_header(below.pop(), how) for name in names if (below := left.get(name.lower()))]
    return b"".join([*pieces, _header(unsigned + b"\r\n", how).removesuffix(b"\r\n")])


def _header(field: bytes, how: Canonicalization) -> bytes:
    if how == "simple":
        return field
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip() + b"\r\n"


def _body(body: bytes, how: Canonicalization) -> bytes:
    if how == "relaxed":
        body = b"\r\n".join(re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n"))
    while body.endswith(b"\r\n"):
        body = body.removesuffix(b"\r\n")
    # RFC 6376 3.4.3 and 3.4.4: an empty body is one line end in simple, and nothing in relaxed.
    return body + b"\r\n" if body or how == "simple" else b""
