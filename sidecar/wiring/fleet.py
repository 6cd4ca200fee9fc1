"""Run the whole of Outrider from one command: the servers where none are named, and a process for each role.

The command is the parent of everything: it starts, restarts and stops, and when it dies nothing of it stays behind.
"""

import asyncio
import functools
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from sidecar.logs import configure
from sidecar.settings import Settings, relay_workers, tracker_workers
from sidecar.wiring.ports import claimed
from sidecar.wiring.role import Role, RoleError
from sidecar.wiring.stopping import on_hangup, run_until_stopped

log = structlog.get_logger()

#: Where the processes of one machine share their metrics, below the data directory.
METRICS_DIRECTORY = "metrics"


@asynccontextmanager
async def fleet(settings: Settings, *, quiet: bool = False) -> AsyncIterator[Settings]:
    """Run servers and roles for the time of the block, and yield the settings they run with.

    When it begins the doors for mail and hits are open and the courier runs; the console joins a moment later. *quiet*
    members log warnings and worse only. Raises `RoleError` when a part of it cannot start.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(claimed(_listens(settings)))
        metrics = _metrics_directory(settings.data_dir)
        members = [Role(role, metrics, quiet=quiet) for role in ("courier", "tracker", "relay")]
        # Nobody's mail or click waits for these: they would only keep the processors from the others.
        later = ["console", *["relay"] * (relay_workers(settings) - 1), *["tracker"] * (tracker_workers(settings) - 1)]
        joiners = [Role(role, metrics, quiet=quiet) for role in later]
        stack.push_async_callback(_stop, [*members, *joiners])
        # Their libraries load while ours do, and while the servers start.
        await asyncio.gather(*(member.load() for member in members))
        from sidecar.wiring.ground import ground

        async with ground(settings, metrics=metrics) as full:
            try:
                await _all(*(member.start(full) for member in members))
                for joiner in joiners:
                    joiner.join(full)
                on_hangup(functools.partial(_reload, [*members, *joiners]))
                yield full
            finally:
                await _stop([*members, *joiners])


def _metrics_directory(data_dir: Path) -> Path:
    # One for each fleet: that another one runs on this data directory is found out later.
    directory = data_dir / METRICS_DIRECTORY / str(os.getpid())
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


def _listens(settings: Settings) -> Mapping[str, str]:
    listens = {
        "relay.listen": settings.relay.listen,
        "relay.listen_tls": settings.relay.listen_tls,
        "tracker.listen": settings.tracker.listen,
        "console.listen": settings.console.listen,
    }
    return {name: text for name, text in listens.items() if text}


def _reload(members: Sequence[Role]) -> None:
    for member in members:
        member.reload()


async def _stop(members: Sequence[Role]) -> None:
    # The doors first: what comes in last must still find the courier.
    for role in ("relay", "tracker", "console", "courier"):
        await asyncio.gather(*(member.stop() for member in members if member.role == role))


async def _all(*starts: Coroutine[Any, Any, None]) -> None:
    results = await asyncio.gather(*starts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def main(settings: Settings) -> int:
    """Run everything until SIGTERM or SIGINT, finish what was accepted, and return the exit code."""
    configure("run")
    try:
        run_until_stopped(lambda stopping, up: _run(settings, stopping, up))
    except (RoleError, OSError) as error:
        print(f"outrider: {error}", file=sys.stderr)  # noqa: T201 - the operator is looking
        return getattr(error, "code", 1)
    return 0


async def _run(settings: Settings, stopping: asyncio.Event, up: Callable[[], None]) -> None:
    async with fleet(settings) as full:
        up()
        log.info(
            "outrider_is_up",
            smtp=full.relay.listen,
            http=full.tracker.listen,
            console=f"http://{full.console.listen}/",
            data_dir=str(full.data_dir),
        )
        await stopping.wait()
        log.info("outrider_is_stopping")
