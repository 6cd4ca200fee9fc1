"""Who runs, which keys they hold, and who may do what only one may do: leases and fingerprints."""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import date

from ledger.store import Ledger, Session

#: Seconds after its last sign of life that a process's work is taken over.
LEASE_SECONDS = 35.0


class UnknownKeyError(Exception):
    """This process's keys are not the ones that the ledger was written with."""


def fingerprint(secret: bytes) -> str:
    """Return 16 hex digits that tell one secret from another and give nothing of it away."""
    return hmac.digest(secret, b"outrider fingerprint 1", hashlib.sha256).hex()[:16]


async def register(ledger: Ledger, role: str) -> int:
    """Enter this process and return its id; keep it alive with `renew`, under the same *role*."""
    row = await ledger.fetchrow("register_process", role, LEASE_SECONDS)
    assert row is not None, "INSERT … RETURNING gives a row"  # noqa: S101 - tells mypy what SQL promises
    return int(row["id"])


async def renew(ledger: Ledger | Session, process: int, role: str) -> None:
    """Extend the lease; a process that was forgotten comes back under its id."""
    await ledger.execute("renew_process", process, LEASE_SECONDS, role)


async def leave(ledger: Ledger, process: int) -> None:
    """End the lease at once, and give back every lease with a name; nobody may renew it any more."""
    await ledger.execute("leave_process", process)


async def take_lease(ledger: Ledger, name: str, process: int, seconds: float) -> bool:
    """Take or renew the lease *name*; false while another process holds it."""
    return await ledger.fetchrow("take_lease", name, process, seconds) is not None


async def give_lease(ledger: Ledger, name: str, process: int) -> None:
    """Give the lease *name* back."""
    await ledger.execute("give_lease", name, process)


async def my_turn(ledger: Ledger, name: str, process: int, seconds: float) -> bool:
    """Tell whether the chore *name*, which one process does for all, is ours for the next *seconds*.

    Who asks again within that time keeps it, so let it be a few times what lies between two turns: that is how long
    the chore rests when its process dies.
    """
    return await take_lease(ledger, f"chore:{name}", process, seconds)


async def make_partitions(ledger: Ledger, today: date) -> bool:
    """Make the partitions that the coming days need, drop spent ones; false when it has to be tried again."""
    row = await ledger.fetchrow("make_partitions", today)
    return row is not None and bool(row["done"])


async def forget_the_past(ledger: Ledger) -> None:
    """Drop what only the past needed: ended processes, and what could only tell of events that cannot come any more."""
    await ledger.execute("forget_processes")
    await ledger.execute("forget_seen")
    await ledger.execute("forget_writers")


async def check_identity(ledger: Ledger | Session, identity: bytes) -> None:
    """Raise `UnknownKeyError` unless messages of this ledger are found by this identity key."""
    known = {row["fingerprint"] for row in await ledger.fetch("keyring_fingerprints", "identity")}
    if known and fingerprint(identity) not in known:
        raise UnknownKeyError(
            "OUTRIDER_KEYS__IDENTITY is not the key that this ledger was written with: Message-IDs would change. "
            "Give the key of the first start (it never rotates), or use another DATABASE_URL."
        )


async def check_addresses(ledger: Ledger | Session, addresses: Sequence[bytes]) -> None:
    """Raise `UnknownKeyError` unless these keys open every address that was ever sealed in this ledger."""
    known = {row["fingerprint"] for row in await ledger.fetch("keyring_fingerprints", "addresses")}
    lacking = sorted(known.difference(map(fingerprint, addresses)))
    if lacking:
        raise UnknownKeyError(
            f"OUTRIDER_KEYS__ADDRESSES lacks the key with the fingerprint {', '.join(lacking)}: addresses in this "
            "ledger are sealed under it. Put it back into the list. To do without it, run `outrider seal` with both "
            "the new key and, behind it, this one; to do without any, `outrider seal --open` with this one."
        )


async def check_keys(
    ledger: Ledger, *, identity: bytes, signing: Sequence[bytes], addresses: Sequence[bytes] = ()
) -> None:
    """Raise `UnknownKeyError` unless the keys belong to this ledger; remember them.

    The identity key is one for ever. Signing keys rotate: a new list must share at least one key with those known. Of
    the keys of addresses every one must be there that ever sealed; the first is one of them from now on.
    """
    async with ledger.transaction() as session:
        await session.fetch("lock_keyring")
        await check_identity(session, identity)
        known_signing = {row["fingerprint"] for row in await session.fetch("keyring_fingerprints", "signing")}
        fingerprints = [fingerprint(secret) for secret in signing]
        if known_signing and known_signing.isdisjoint(fingerprints):
            raise UnknownKeyError(
                "OUTRIDER_KEYS__SIGNING holds no key that this ledger knows: links in delivered mail would die. "
                "Put the new key first and keep the old one in the list."
            )
        await check_addresses(session, addresses)
        await session.execute("remember_fingerprint", "identity", fingerprint(identity))
        for secret in addresses[:1]:
            await session.execute("remember_fingerprint", "addresses", fingerprint(secret))
        for value in fingerprints:
            await session.execute("remember_fingerprint", "signing", value)
