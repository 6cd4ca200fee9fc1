"""Sign a finished message with DKIM (RFC 6376, RFC 8463): relaxed/relaxed, one signature for each key.

Equal message and equal keys give equal bytes, so no signature carries a time; and no `l=`, under which anybody could
append to what was signed.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

#: What a signature covers of what a message has: who speaks to whom about what, how the body is to be read, and where
#: to unsubscribe (RFC 6376 5.4.1, RFC 8058 4). Not what travel adds or changes: Received, Return-Path, Resent-….
COVERED: Final = (
    b"From",
    b"Sender",
    b"Reply-To",
    b"To",
    b"Cc",
    b"Subject",
    b"Date",
    b"Message-ID",
    b"In-Reply-To",
    b"References",
    b"MIME-Version",
    b"Content-Type",
    b"Content-Transfer-Encoding",
    b"List-Id",
    b"List-Unsubscribe",
    b"List-Unsubscribe-Post",
    b"List-Help",
    b"List-Subscribe",
    b"List-Post",
    b"List-Owner",
    b"List-Archive",
    b"Feedback-ID",
)

#: Each covered name is listed once more than it stands, so that a second one added later breaks the signature
#: (RFC 6376 5.4 and 8.15). These are listed where they are absent, too: a reader is shown them. Date is not, because a
#: submission server may add a missing one (RFC 6409 8.2).
SEALED_WHEN_ABSENT: Final = frozenset({b"From", b"Reply-To", b"To", b"Cc", b"Subject"})

MAX_LINE: Final = 77

# A body is read in pieces of about this size: one of 25 MB takes no more memory than a piece of it.
_PIECE: Final = 256 * 1024

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_SPACES = re.compile(rb"  +")
_PREHASHED = Prehashed(SHA256())


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A private key, and where its public part is published."""

    #: Both in lower-case ASCII.
    selector: str
    domain: str
    key: RSAPrivateKey | Ed25519PrivateKey

    @property
    def name(self) -> str:
        """The name in the DNS at which the public key stands."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def algorithm(self) -> str:
        """The `a=` of its signatures."""
        return "rsa-sha256" if isinstance(self.key, RSAPrivateKey) else "ed25519-sha256"


class Signer:
    """The keys that are held, by their domains."""

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        # RSA on top: a verifier that knows no other may look at the first signature alone.
        self._keys = sorted(keys, key=lambda key: (not isinstance(key.key, RSAPrivateKey), key.name))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all keys, in order."""
        return tuple(sorted(key.name for key in self._keys))

    def keys_for(self, domain: str, pinned: Iterable[str] = ()) -> tuple[SigningKey, ...]:
        """Return the keys of *domain*: those named in *pinned* if one of them is still held, else all."""
        held = tuple(key for key in self._keys if key.domain == domain)
        names = frozenset(pinned)
        return tuple(key for key in held if key.name in names) or held


def sign(content: bytes, keys: Sequence[SigningKey]) -> bytes:
    """Return *content*, whose lines end in CRLF, with a DKIM-Signature of each key at its top, the first on top."""
    header, body_start = _split(content)
    names, canonical = _covered(header)
    fields = hashlib.sha256(canonical)
    body = b64encode(body_digest(content, body_start))
    return b"".join([*(_field(key, names, fields.copy(), body) for key in keys), content])


def body_digest(content: bytes, start: int) -> bytes:
    """Return the SHA-256 of the body at *start* in relaxed canonical form (RFC 6376 3.4.4)."""
    digest = hashlib.sha256()
    empty = True
    # Line ends that count only if something follows them.
    held = 0
    for piece in _pieces(content, start):
        lines = relaxed(piece).replace(b" \r\n", b"\r\n").removesuffix(b" ")
        end = _text_end(lines)
        if end:
            digest.update(b"\r\n" * held + lines[:end])
            empty, held = False, 0
        held += (len(lines) - end) // 2
    if not empty:
        digest.update(b"\r\n")
    return digest.digest()


def relaxed(octets: bytes) -> bytes:
    """Return *octets* with each run of spaces and tabs as one space."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    # Looking is cheaper than replacing: most of what is encoded has no run at all.
    return _SPACES.sub(b" ", octets) if b"  " in octets else octets


def relaxed_field(field: bytes) -> bytes:
    """Return a header field, given without its last line end, in relaxed canonical form (RFC 6376 3.4.2)."""
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + relaxed(value.replace(b"\r\n", b"")).strip(b" ")


def _split(content: bytes) -> tuple[bytes, int]:
    """Return the header without its last line end, and where the body starts."""
    if content.startswith(b"\r\n"):
        return b"", 2
    end = content.find(b"\r\n\r\n")
    return (content.removesuffix(b"\r\n"), len(content)) if end < 0 else (content[:end], end + 4)


def _covered(header: bytes) -> tuple[list[bytes], bytes]:
    """Return the names for `h=`, and the fields that they mean in canonical form."""
    found: dict[bytes, list[bytes]] = {}
    for field in _FIELD_END.split(header):
        found.setdefault(field.partition(b":")[0].rstrip(b" \t").lower(), []).append(field)
    names: list[bytes] = []
    chosen: list[bytes] = []
    for name in COVERED:
        # RFC 6376 5.4.2: several of one name are taken from the bottom up.
        same = found.get(name.lower(), [])[::-1]
        chosen += same
        if same or name in SEALED_WHEN_ABSENT:
            names += [name] * (len(same) + 1)
    return names, b"".join([relaxed_field(field) + b"\r\n" for field in chosen])


def _pieces(content: bytes, start: int) -> Iterator[bytes]:
    """Yield the body bit by bit, each bit whole lines."""
    while start < len(content):
        end = content.find(b"\r\n", start + _PIECE)
        end = len(content) if end < 0 else end + 2
        yield content[start:end]
        start = end


def _text_end(lines: bytes) -> int:
    """Return where the line ends at the end of *lines* begin."""
    end = len(lines.rstrip(b"\r\n"))
    if 2 * lines.count(b"\r\n", end) == len(lines) - end:
        return end
    # A CR or LF that stands alone is no line end.
    end = len(lines)
    while lines.endswith(b"\r\n", 0, end):
        end -= 2
    return end


def _field(key: SigningKey, names: Sequence[bytes], digest: "hashlib._Hash", body: bytes) -> bytes:
    """Return the signature field of *key*; *digest* has taken in the covered fields."""
    tags = f"a={key.algorithm}; c=relaxed/relaxed; d={key.domain}; s={key.selector};".encode()
    listed = b":".join(names).replace(b":", b": ")
    unsigned = _folded(b"DKIM-Signature: v=1; %b h=%b; bh=%b; b=" % (tags, listed, body))
    # RFC 6376 3.7: the field itself comes last, with an empty `b=` and without a line end.
    digest.update(relaxed_field(unsigned))
    signature = b64encode(_signature(key.key, digest.digest()))
    width = MAX_LINE - 1
    lines = [signature[at : at + width] for at in range(0, len(signature), width)]
    return b"\r\n\t".join([unsigned, *lines]) + b"\r\n"


def _folded(field: bytes) -> bytes:
    """Return *field* in lines of at most 77 columns, broken at its spaces; a longer word stands alone."""
    lines: list[bytes] = []
    line = b""
    for word in field.split(b" "):
        if line and len(line) + 1 + len(word) > MAX_LINE:
            lines.append(line)
            line = b"\t" + word
        else:
            line = line + b" " + word if line else word
    return b"\r\n".join([*lines, line])


def _signature(key: RSAPrivateKey | Ed25519PrivateKey, digest: bytes) -> bytes:
    # RFC 8463 3: what Ed25519 signs is the SHA-256 of what RSA signs.
    return key.sign(digest, PKCS1v15(), _PREHASHED) if isinstance(key, RSAPrivateKey) else key.sign(digest)
