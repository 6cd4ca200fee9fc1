"""A courier in a process of its own, for tests that kill it: `python courier_process.py` with its settings on stdin."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from courier.consume import run_recorder
from courier.deliver import run_deliverer
from courier.settings import AmsSettings, CourierSettings, ListmonkSettings, SinkSettings
from courier.sinks import rules
from courier.tellers import run_tellers
from ledger.processes import register
from ledger.store import open_ledger
from ledger.stream import GROUP, STREAM
from tests.mailings import READER


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told."""

    database_url: str
    redis_url: str
    ams: AmsSettings
    batch: int = 20
    sinks: dict[str, SinkSettings] = {}
    listmonk: ListmonkSettings = ListmonkSettings()


@contextmanager
def courier(orders: Orders) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a courier in a process of its own; at the end it is told to stop, and does."""
    program = Path(__file__).resolve()
    process = subprocess.Popen(
        [sys.executable, str(program)], env={"PYTHONPATH": str(program.parent.parent)}, stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    with process:
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.stdin.close()
            if process.poll() is None:
                assert process.wait(timeout=20) == 0


async def release_entries(redis: Redis) -> None:
    """Age what dead couriers hold of the stream, so that the next one claims it at its start."""
    pending = await redis.xpending(STREAM, GROUP)
    for consumer in pending["consumers"]:
        entries = await redis.xpending_range(STREAM, GROUP, "-", "+", 1000, consumer["name"])
        ids: list[Any] = [entry["message_id"] for entry in entries]
        await redis.xclaim(STREAM, GROUP, consumer["name"], 0, ids, idle=120_000, justid=True)


async def main() -> None:
    """Record and deliver until killed, or until the parent closes our input."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: stopping.set() if not os.read(sys.stdin.fileno(), 1) else None)
    async with open_ledger(orders.database_url) as ledger, asyncio.TaskGroup() as group:
        process = await register(ledger, "courier")
        group.create_task(
            run_recorder(
                orders.redis_url,
                ledger,
                READER,
                CourierSettings(batch=orders.batch),
                orders.ams,
                process=process,
                stopping=stopping,
                ready=lambda _missing: None,
                rules=rules(orders.sinks, orders.listmonk),
            )
        )
        group.create_task(run_deliverer(ledger, orders.ams, process=process, stopping=stopping))
        group.create_task(run_tellers(ledger, orders.sinks, orders.listmonk, process=process, stopping=stopping))


if __name__ == "__main__":
    asyncio.run(main())
