"""Run one role as this process: signals, loop, and the right exit code."""

import asyncio
import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import structlog

from ledger import processes, schema
from ledger.processes import UnknownKeyError
from ledger.schema import SchemaError
from ledger.store import UNAVAILABLE, open_ledger
from sidecar.keys import KeyFileError, Keys, load_keys
from sidecar.logs import configure
from sidecar.settings import Settings
from sidecar.wiring.presence import Context
from sidecar.wiring.stopping import run_until_stopped

log = structlog.get_logger()

ROLES = ("relay", "tracker", "courier", "console")

# The roles that read or write the ledger and can wait for it; the tracker answers without.
_LEDGER_ROLES = frozenset({"relay", "courier", "console"})

_WAIT_SECONDS = 2.0


def serve(role: str, settings: Settings, *, ready: Callable[[], None], alone: bool, quiet: bool = False) -> int:
    """Run *role* until it is told to stop, and return its exit code.

    A role that runs *alone* brings the ledger to its shape and checks the keys first, and serves its own health.
    """
    configure(role, level=logging.WARNING if quiet else logging.INFO)
    loop_factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    try:
        run_until_stopped(
            lambda stopping, up: _serve(role, settings, stopping, ready=_both(up, ready), alone=alone),
            loop_factory=loop_factory,
        )
    except (SchemaError, UnknownKeyError, KeyFileError, OSError) as error:
        print(f"outrider {role}: {error}", file=sys.stderr)  # noqa: T201 - the operator is looking
        return 2 if isinstance(error, UnknownKeyError | KeyFileError) else 1
    return 0


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


def role_module(role: str) -> ModuleType:
    """Load the role's file by name, so that its process loads no other role's libraries."""
    return importlib.import_module(f"sidecar.wiring.{role}")


async def _serve(
    role: str, settings: Settings, stopping: asyncio.Event, *, ready: Callable[[], None], alone: bool
) -> None:
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    keys = load_keys(settings)
    if alone and role in _LEDGER_ROLES:
        await _prepare_when_up(settings, keys)
    work: Callable[[Context], Coroutine[Any, Any, None]] = getattr(role_module(role), role)
    await work(Context(settings=settings, keys=keys, stopping=stopping, ready=ready, alone=alone))


async def _prepare_when_up(settings: Settings, keys: Keys) -> None:
    """Prepare the ledger; while PostgreSQL is away, wait for it."""
    while True:
        try:
            await prepare_ledger(settings.database_url, keys)
        except UNAVAILABLE as error:
            log.warning("ledger_unavailable", error=type(error).__name__)
            await asyncio.sleep(_WAIT_SECONDS)
        else:
            return


async def prepare_ledger(database_url: str, keys: Keys) -> list[str]:
    """Apply what migrations are missing and check that the keys are this ledger's; return the names applied."""
    applied = await schema.migrate(database_url)
    async with open_ledger(database_url, connections=1) as ledger:
        await processes.check_keys(ledger, identity=keys.identity, signing=keys.signing, addresses=keys.addresses)
    return applied
