"""What a fleet stands on: the servers where none are named, and a ledger of the right shape with our keys."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec

from ledger.processes import UnknownKeyError
from ledger.schema import SchemaError
from ledger.store import UNAVAILABLE
from sidecar.embedded import EmbeddedError, embedded
from sidecar.keys import KeyFileError, load_keys
from sidecar.settings import Settings
from sidecar.wiring.process import prepare_ledger
from sidecar.wiring.role import RoleError


@asynccontextmanager
async def ground(settings: Settings, *, metrics: Path) -> AsyncIterator[Settings]:
    """Run the servers for the time of the block, and yield the settings with their URLs.

    *metrics* is this fleet's own directory; those that dead ones left beside it go. Raises `RoleError`.
    """
    try:
        async with embedded(
            settings.data_dir, postgres=not settings.database_url, valkey=not settings.redis_url
        ) as servers:
            # The data directory is ours from here on.
            for left in metrics.parent.iterdir():
                if left != metrics:
                    shutil.rmtree(left, ignore_errors=True)
            full = msgspec.structs.replace(
                settings,
                database_url=settings.database_url or servers.database_url,
                redis_url=settings.redis_url or servers.redis_url,
            )
            await _prepare(full)
            yield full
    except (KeyFileError, UnknownKeyError) as error:
        raise RoleError(str(error), code=2) from error
    except (EmbeddedError, SchemaError) as error:
        raise RoleError(str(error)) from error


async def _prepare(settings: Settings) -> None:
    try:
        await prepare_ledger(settings.database_url, load_keys(settings))
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        raise RoleError(f"PostgreSQL at DATABASE_URL cannot be used: {type(error).__name__}") from error
