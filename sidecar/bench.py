"""Run benches and print what they found; the exit code judges whether results were right, never how fast they came.

A bench and its libraries are imported when it is asked for: nothing else in the product needs them.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Collection, Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import TypeVar

from sidecar.failures import CommandError
from sidecar.logs import configure_command

_Result = TypeVar("_Result")


def run_benches(
    names: Sequence[str],
    *,
    rounds: int | None,
    against: Collection[str] | None,
    haraka: str,
    as_json: bool,
    now: datetime,
) -> int:
    """Measure each of *names*, print tables or JSON, and return 1 where a result was not right.

    *rounds* is each bench's own number when it is None; *against* are the peers, all that are there when it is None.
    """
    if find_spec("bench") is None:
        raise CommandError("the benches are no part of an installation: run this in a checkout")
    from bench.benches import BENCHES
    from bench.report import report
    from bench.servers import BenchError
    from bench.stage import Stage
    from sidecar.cli_parser import BENCH_PEERS
    from sidecar.embedded import EmbeddedError
    from sidecar.wiring.role import RoleError

    configure_command("bench")
    stage = Stage(rounds=rounds, against=frozenset(BENCH_PEERS if against is None else against), haraka=haraka)
    reports = []
    for name in names:
        try:
            found = asyncio.run(_until_told(BENCHES[name](stage)))
        except asyncio.CancelledError:
            raise CommandError(f"{name}: stopped") from None
        except (BenchError, EmbeddedError, RoleError) as error:
            raise CommandError(f"{name}: {error}") from error
        reports.append(report(name, found, now=now))
        if not as_json:
            # Each as soon as it is there: all of them take minutes.
            sys.stdout.write(("\n" if len(reports) > 1 else "") + reports[-1].text() + "\n")
            sys.stdout.flush()
    if as_json:
        sys.stdout.write(json.dumps([each.document() for each in reports], indent=2) + "\n")
    return int(any(each.wrong for each in reports))


async def _until_told(measured: Awaitable[_Result]) -> _Result:
    """Measure; SIGTERM cancels it as Ctrl-C does, so that every server that was started is stopped."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await measured
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
