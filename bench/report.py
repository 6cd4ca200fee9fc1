"""Say what a bench found: for a person as a table, for a machine as JSON."""

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

import msgspec

from bench.harness import Case, Row, measure, table

#: What a bench's figures depend on beside our own code.
_PACKAGES = ("beautifulsoup4", "cryptography", "msgspec")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures were taken on; neither its name nor a path on it is told."""

    cores: int
    architecture: str
    python: str
    packages: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one bench measured."""

    bench: str
    taken_at: datetime
    machine: Machine
    #: How much slower this machine was than the one that bars in microseconds were set on; 1: not at all.
    pace: float
    rows: tuple[Row, ...]

    @property
    def wrong(self) -> bool:
        """Whether a result was not right; its time then means nothing."""
        return any(row.flaw is not None for row in self.rows)

    def text(self) -> str:
        """Return it for a person."""
        machine = self.machine
        packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
        return (
            f"{self.bench}, {self.taken_at:%Y-%m-%d %H:%M} UTC, {machine.cores} cores {machine.architecture}, "
            f"Python {machine.python}, {packages}; pace {self.pace:.2f}\n\n{table(self.rows)}"
        )

    def document(self) -> dict[str, Any]:
        """Return it for a machine: the fields as they are."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def measured(bench: str, cases: Sequence[Case], *, rounds: int, now: datetime) -> Report:
    """Measure *cases* and return what came out."""
    found = measure(cases, rounds=rounds)
    return Report(
        bench=bench,
        taken_at=now,
        machine=Machine(
            cores=os.cpu_count() or 1,
            architecture=platform.machine(),
            python=platform.python_version(),
            packages={name: version(name) for name in _PACKAGES},
        ),
        pace=found.pace,
        rows=tuple(found.rows),
    )
