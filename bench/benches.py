"""All benches by name, and what a bench is: one function that measures on a stage and returns what it found.

A new bench is a file with such a function, a line in `BENCHES`, and its name in `sidecar.cli_parser`: among those of
`all`, or among the long ones.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from bench import courier, growth, injector, relay, start, store, tracker, webhooks
from bench.report import Found
from bench.stage import Stage


class Bench(Protocol):
    """Measure, in the stage's rounds, and check that what was measured is right."""

    async def __call__(self, stage: Stage) -> Found:
        """Return the rows; raise `BenchError` when a server that belongs to the bench does not start."""
        ...


BENCHES: Final[Mapping[str, Bench]] = {
    "relay": relay.bench,
    "tracker": tracker.bench,
    "injector": injector.bench,
    "store": store.bench,
    "courier": courier.bench,
    "webhooks": webhooks.bench,
    "start": start.bench,
    "growth": growth.bench,
}
