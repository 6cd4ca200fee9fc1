"""The file of those who may submit with AUTH: one `user:$scrypt$ln=15,r=8,p=1$salt$hash` a line.

Checking takes the same time for a wrong password and for a user that does not exist, and nothing here prints or logs
either. The only entropy is the salt, which the caller passes in.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

import msgspec

SALT_BYTES = 16
_HASH_BYTES = 32

# 32 MiB and about 0.1 s for each guess.
_LOG_COST = 15
_BLOCK_SIZE = 8
_PARALLEL = 1
# A file must not be able to take the machine's memory: 256 MiB at most (128 * r * 2**ln octets).
_MAX_LOG_COST = 18
_MAX_BLOCK_SIZE = 8
_MAX_PARALLEL = 16

_USER = re.compile(r"[^\s:\x00-\x1f\x7f#][^:\x00-\x1f\x7f]{0,254}")
_HASHED = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")


class PasswordFileError(ValueError):
    """A line of the users file is not `user:hash` as `./outrider passwd FILE USER` writes it.

    The message names the line by number and never shows what stands in it.
    """


class PasswordHash(msgspec.Struct, frozen=True, kw_only=True):
    """A salted scrypt hash (RFC 7914) and the cost it was made with."""

    log_cost: int
    block_size: int
    parallel: int
    salt: bytes
    digest: bytes

    def __repr__(self) -> str:
        """Show the cost alone: a hash in a traceback is a hash in a log."""
        return f"PasswordHash(log_cost={self.log_cost}, block_size={self.block_size}, parallel={self.parallel})"

    def __str__(self) -> str:
        """Return the hash as it stands in the file."""
        cost = f"ln={self.log_cost},r={self.block_size},p={self.parallel}"
        return f"$scrypt${cost}${_spell(self.salt)}${_spell(self.digest)}"


# Checked in place of a user that does not exist where the file names nobody at all.
_NOBODY = PasswordHash(
    log_cost=_LOG_COST,
    block_size=_BLOCK_SIZE,
    parallel=_PARALLEL,
    salt=bytes(SALT_BYTES),
    digest=bytes(_HASH_BYTES),
)


def hash_password(password: str, *, salt: bytes) -> PasswordHash:
    """Hash *password* at today's cost; *salt* is `SALT_BYTES` random octets. Takes about 0.1 s."""
    digest = _scrypt(password.encode("utf-8"), _LOG_COST, _BLOCK_SIZE, _PARALLEL, salt, _HASH_BYTES)
    return PasswordHash(log_cost=_LOG_COST, block_size=_BLOCK_SIZE, parallel=_PARALLEL, salt=salt, digest=digest)


def verify(users: Mapping[str, PasswordHash], user: str, password: bytes) -> bool:
    """Say whether *password* is this user's; a thread's work (0.1 s of CPU), never the event loop's."""
    # Somebody else's hash stands in for an unknown user's, so that the answer takes as long.
    stored = users.get(user) or next(iter(users.values()), _NOBODY)
    digest = _scrypt(password, stored.log_cost, stored.block_size, stored.parallel, stored.salt, len(stored.digest))
    # Compared in either case, so that being unknown takes no less time than being wrong.
    equal = hmac.compare_digest(digest, stored.digest)
    return equal and user in users


def parse(text: str) -> dict[str, PasswordHash]:
    """Read a users file; empty lines and lines that begin with `#` are passed over. Raises `PasswordFileError`."""
    users: dict[str, PasswordHash] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.rstrip().partition(":")
        if not colon or not _USER.fullmatch(user):
            raise PasswordFileError(f"line {number}: expected `user:hash`, as `outrider passwd` writes it")
        if user in users:
            raise PasswordFileError(f"line {number}: this user stands in the file twice")
        users[user] = _parse_hash(hashed, number)
    return users


def with_user(text: str, user: str, hashed: PasswordHash) -> str:
    """Return the users file *text* with this user's line replaced, or added at its end; the rest stays as it is."""
    if not _USER.fullmatch(user):
        raise PasswordFileError("a user name has 1 to 255 characters, no colon, no control character, no # first")
    parse(text)
    line = f"{user}:{hashed}"
    lines = text.splitlines()
    place = next((i for i, old in enumerate(lines) if old.startswith(f"{user}:")), len(lines))
    return "\n".join([*lines[:place], line, *lines[place + 1 :]]) + "\n"


def _parse_hash(hashed: str, number: int) -> PasswordHash:
    match = _HASHED.fullmatch(hashed)
    if match is None:
        raise PasswordFileError(f"line {number}: the hash is not one that `outrider passwd` writes")
    log_cost, block_size, parallel = int(match[1]), int(match[2]), int(match[3])
    if not (1 <= log_cost <= _MAX_LOG_COST and 1 <= block_size <= _MAX_BLOCK_SIZE and 1 <= parallel <= _MAX_PARALLEL):
        raise PasswordFileError(f"line {number}: the cost of the hash is outside what this relay computes")
    try:
        salt, digest = _read(match[4]), _read(match[5])
    except binascii.Error:
        raise PasswordFileError(f"line {number}: the salt or the hash is not base64") from None
    if len(salt) < SALT_BYTES or len(digest) < _HASH_BYTES:
        raise PasswordFileError(f"line {number}: the salt or the hash is too short")
    return PasswordHash(log_cost=log_cost, block_size=block_size, parallel=parallel, salt=salt, digest=digest)


def _scrypt(password: bytes, log_cost: int, block_size: int, parallel: int, salt: bytes, size: int) -> bytes:
    # OpenSSL counts a little more than the table of 128 * r * N octets.
    memory = 128 * block_size * ((1 << log_cost) + parallel + 2)
    return hashlib.scrypt(password, salt=salt, n=1 << log_cost, r=block_size, p=parallel, maxmem=memory, dklen=size)


def _spell(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def _read(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
