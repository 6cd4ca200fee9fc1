"""The AUTH exchange (RFC 4954): PLAIN and LOGIN, and the check of what they bring.

What a client sends here is neither logged nor echoed, and every failure gets one and the same answer.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from prometheus_client import Counter

from relay import replies
from relay.passwords import PasswordHash, verify
from relay.replies import Reply

AUTH_FAILURES = Counter("outrider_relay_auth_failures_total", "Wrong credentials given to AUTH.")

MECHANISMS = ("PLAIN", "LOGIN")

#: Sends a challenge and returns the response line, or the reply that ends the exchange.
Ask = Callable[[bytes], Awaitable[bytes | Reply]]

LOCKOUTS = Counter("outrider_relay_lockouts_total", "Addresses locked out after too many wrong credentials.")

_LOCKOUT_FAILURES = 20
_LOCKOUT_SECONDS = 600.0
_LOCKOUT_ADDRESSES = 10_000

# A guess costs 0.1 s of CPU and 32 MiB: a swarm of guessers gets two at a time, and the rest wait.
_CHECKS_AT_ONCE = 2


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who a client claims to be, unproven."""

    user: str
    password: bytes

    def __repr__(self) -> str:
        """Show nothing: a password in a traceback is a password in a log."""
        return "Credentials()"


class Gate:
    """Checks credentials against the users file, off the event loop."""

    def __init__(self, users: Mapping[str, PasswordHash]) -> None:
        self._users = users
        self._turn = asyncio.Semaphore(_CHECKS_AT_ONCE)
        # Mailers that open a connection for each message would pay 0.1 s each time: what was proven once is
        # remembered for the life of the process, as a tag under a key that never leaves it.
        self._key = secrets.token_bytes(32)
        self._proven: dict[str, bytes] = {}

    def admit_only(self, users: Mapping[str, PasswordHash]) -> None:
        """Take other users from here on; who is no longer among them, or has another password, proves it anew."""
        self._users = users
        self._proven.clear()

    async def admits(self, credentials: Credentials) -> bool:
        """Say whether the password is this user's."""
        tag = hmac.digest(self._key, credentials.password, "sha256")
        if hmac.compare_digest(self._proven.get(credentials.user, b""), tag):
            return True
        async with self._turn:
            proven = await asyncio.to_thread(verify, self._users, credentials.user, credentials.password)
        if proven:
            self._proven[credentials.user] = tag
        else:
            AUTH_FAILURES.inc()
        return proven


class Lockout:
    """Who guessed too often: an address with so many wrong credentials in a window is not listened to until its end.

    This machine is exempt: a mailer here with an old password must not keep its neighbours out.
    """

    def __init__(self, *, failures: int = _LOCKOUT_FAILURES, seconds: float = _LOCKOUT_SECONDS) -> None:
        self._failures = failures
        self._seconds = seconds
        #: For each address when its window ends, and how often it failed in it.
        self._windows: dict[str, tuple[float, int]] = {}

    def holds(self, client: str, now: float) -> bool:
        """Tell whether *client* is locked out; *now* in seconds of any clock."""
        until, failed = self._windows.get(client, (0.0, 0))
        return now < until and failed >= self._failures

    def count(self, client: str, now: float) -> None:
        """Count a failure of *client*."""
        if not client or ipaddress.ip_address(client.partition("%")[0]).is_loopback:
            return
        until, failed = self._windows.pop(client, (0.0, 0))
        if now >= until:
            until, failed = now + self._seconds, 0
        if failed + 1 == self._failures:
            LOCKOUTS.inc()
        # The newest stands last, so that a swarm of addresses pushes out the oldest.
        self._windows[client] = until, failed + 1
        if len(self._windows) > _LOCKOUT_ADDRESSES:
            del self._windows[next(iter(self._windows))]


async def exchange(argument: bytes, ask: Ask) -> Credentials | Reply:
    """Carry out the exchange that `AUTH` *argument* begins, and return what it brought."""
    mechanism, _, initial = argument.partition(b" ")
    # RFC 4954 4: a lone "=" is an initial response of no octets.
    first = None if not initial else b"" if initial == b"=" else initial.strip()
    match mechanism.upper():
        case b"PLAIN":
            return await _plain(first, ask)
        case b"LOGIN":
            return await _login(first, ask)
    return replies.UNKNOWN_MECHANISM


async def _plain(first: bytes | None, ask: Ask) -> Credentials | Reply:
    message = await _decoded(first, b"", ask)
    if isinstance(message, Reply):
        return message
    identity, *rest = message.split(b"\0")
    if len(rest) != 2:
        return replies.BAD_BASE64
    user, password = rest
    if identity not in {b"", user}:
        # RFC 4616 2: to act as somebody else is a right that nobody has here.
        return replies.BAD_CREDENTIALS
    return _credentials(user, password)


async def _login(first: bytes | None, ask: Ask) -> Credentials | Reply:
    user = await _decoded(first, b"Username:", ask)
    if isinstance(user, Reply):
        return user
    password = await _decoded(None, b"Password:", ask)
    if isinstance(password, Reply):
        return password
    return _credentials(user, password)


def _credentials(user: bytes, password: bytes) -> Credentials:
    return Credentials(user=user.decode("utf-8", "surrogateescape"), password=password)


async def _decoded(given: bytes | None, challenge: bytes, ask: Ask) -> bytes | Reply:
    response = await ask(base64.b64encode(challenge)) if given is None else given
    if isinstance(response, Reply):
        return response
    if response == b"*":
        return replies.AUTH_CANCELLED
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        return replies.BAD_BASE64
