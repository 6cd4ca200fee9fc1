"""What a bench is told: how patient to be, against whom, and how much of its load to run."""

import msgspec

from sidecar.cli_parser import BENCH_PEERS
from sidecar.embedded import Servers


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """How a bench is run."""

    #: None: as many as the bench thinks right.
    rounds: int | None = None
    #: Peers of `BENCH_PEERS`; one that is not installed is named in what was found, and left out.
    against: frozenset[str] = frozenset(BENCH_PEERS)
    #: A directory with Haraka in it; empty: `haraka` on PATH.
    haraka: str = ""
    #: The share of the usual loads; a test runs a little of them.
    scale: float = 1.0
    #: Stores that run already; None: the bench makes its own.
    servers: Servers | None = None

    def scaled(self, units: int) -> int:
        """Return how many units to run where *units* are usual; at least one."""
        return max(1, round(units * self.scale))
