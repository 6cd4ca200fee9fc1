"""A courier in a process of its own, for tests that kill it: `python courier_process.py` with its settings on stdin."""

import asyncio
import os
import sys

import msgspec

from courier.consume import run_recorder
from courier.deliver import run_deliverer
from courier.settings import AmsSettings, CourierSettings
from ledger.processes import register
from ledger.store import open_ledger
from tests.mailings import READER


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told."""

    database_url: str
    redis_url: str
    ams: AmsSettings
    batch: int = 20


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
            )
        )
        group.create_task(run_deliverer(ledger, orders.ams, process=process, stopping=stopping))


if __name__ == "__main__":
    asyncio.run(main())
