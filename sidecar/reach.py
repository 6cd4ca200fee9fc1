"""Reach the ledger for a command that looks or steers while Outrider runs elsewhere, or does not run at all.

A command never makes a ledger: it uses the one that the settings name, or the embedded one that is there.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from ledger.processes import check_addresses
from ledger.sealing import Sealer
from ledger.store import Ledger, open_ledger
from sidecar.embedded import EmbeddedError, embedded, running
from sidecar.keys import address_keys
from sidecar.settings import Settings, SettingsError


class NoLedgerError(Exception):
    """There is no ledger to look into: nothing has run on this data directory, and no DATABASE_URL is set."""


@asynccontextmanager
async def reachable(settings: Settings) -> AsyncIterator[Settings]:
    """Yield *settings* with a `database_url` that answers for the time of the block.

    Without one of its own that is a running Outrider's embedded PostgreSQL, else one started here for so long. The
    embedded Redis goes with the first, and stands still with the second.
    """
    if settings.database_url:
        yield settings
        return
    data_dir = settings.data_dir
    if servers := running(data_dir):
        redis_url = settings.redis_url or servers.redis_url
        yield msgspec.structs.replace(settings, database_url=servers.database_url, redis_url=redis_url)
        return
    if not (data_dir / "postgres").is_dir():
        raise NoLedgerError(f"no ledger: nothing has run on {data_dir} yet; set DATABASE_URL or OUTRIDER_DATA_DIR")
    try:
        async with embedded(data_dir, valkey=False) as started:
            from ledger.schema import migrate

            await migrate(started.database_url)
            yield msgspec.structs.replace(settings, database_url=started.database_url)
    except EmbeddedError as error:
        raise NoLedgerError(str(error)) from error


@asynccontextmanager
async def opened(settings: Settings, *, connections: int = 2) -> AsyncIterator[Ledger]:
    """Open the ledger for a command; raise `UnknownKeyError` where it could not read, or would not seal, addresses."""
    keys = address_keys(settings)
    async with open_ledger(settings.database_url, connections=connections, sealer=Sealer(keys)) as ledger:
        await check_addresses(ledger, keys)
        yield ledger


def joined(settings: Settings) -> Settings:
    """Return *settings* with the URLs of what a role that runs alone shares with the others.

    They are given, or they are the embedded servers of an Outrider that runs on the same data directory.
    """
    if settings.database_url:
        return settings
    servers = running(settings.data_dir)
    if servers is None:
        raise SettingsError(
            "DATABASE_URL and REDIS_URL: expected both, because a role that runs alone shares them with the others; "
            f"without them, start `outrider run` on {settings.data_dir} first"
        )
    return msgspec.structs.replace(
        settings, database_url=servers.database_url, redis_url=settings.redis_url or servers.redis_url
    )
