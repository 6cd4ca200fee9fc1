"""Say what a bench found: for a person as a table, for a machine as JSON."""

import os
import platform
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

import msgspec

from bench import harness, paired
from bench.harness import Case, Row
from bench.paired import Load, PairedRow

#: What a bench's figures depend on beside our own code, where a bench names nothing else.
_PACKAGES = ("beautifulsoup4", "cryptography", "msgspec")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one bench found; `of_cases` and `of_loads` make it."""

    rows: tuple[Row, ...] | tuple[PairedRow, ...]
    #: The rows for a person.
    table: str
    #: How much slower this machine was than the one that bars in microseconds were set on; 1: not at all.
    pace: float | None = None
    #: Which share of the machine's cores others used meanwhile.
    foreign: float | None = None
    #: Packages that the figures depend on.
    packages: tuple[str, ...] = _PACKAGES
    #: Programs that took part, and their versions.
    programs: dict[str, str] = {}
    #: Who was not measured, and why.
    left_out: tuple[str, ...] = ()


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures were taken on; neither its name nor a path on it is told."""

    cores: int
    architecture: str
    python: str
    packages: dict[str, str]
    programs: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one bench measured, when, and on what."""

    bench: str
    taken_at: datetime
    machine: Machine
    pace: float | None
    foreign: float | None
    left_out: tuple[str, ...]
    rows: tuple[Row, ...] | tuple[PairedRow, ...]
    table: str

    @property
    def wrong(self) -> bool:
        """Whether a result was not right; its time then means nothing."""
        return any(row.flaw is not None for row in self.rows)

    def text(self) -> str:
        """Return it for a person."""
        machine = self.machine
        versions = machine.packages | machine.programs
        named = ", ".join(f"{name} {number}" for name, number in versions.items())
        head = (
            f"{self.bench}, {self.taken_at:%Y-%m-%d %H:%M} UTC, {machine.cores} cores {machine.architecture}, "
            f"Python {machine.python}, {named}"
        )
        if self.pace is not None:
            head += f"; pace {self.pace:.2f}"
        if self.foreign is not None:
            head += f"; others used {self.foreign:.0%} of the cores"
        return "\n".join([head, "", self.table, *(f"left out: {each}" for each in self.left_out)])

    def document(self) -> dict[str, Any]:
        """Return it for a machine: the fields as they are, but for the table."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        del found["table"]
        return found


def of_cases(cases: Sequence[Case], *, rounds: int) -> Found:
    """Measure functions in this process, and return what came out."""
    found = harness.measure(cases, rounds=rounds)
    return Found(rows=tuple(found.rows), table=harness.table(found.rows), pace=found.pace)


async def of_loads(
    loads: Sequence[Load],
    *,
    rounds: int,
    packages: tuple[str, ...],
    pace: Callable[[], float] | None = None,
    programs: dict[str, str] | None = None,
    left_out: Sequence[str] = (),
) -> Found:
    """Run loads on processes, and return what came out; bars in microseconds are held against the machine's *pace*."""
    found = await paired.measure(loads, rounds=rounds, pace=pace)
    return Found(
        rows=found.rows,
        table=paired.table(found.rows),
        pace=found.pace,
        foreign=found.foreign,
        packages=packages,
        programs=programs or {},
        left_out=tuple(left_out),
    )


def report(bench: str, found: Found, *, now: datetime) -> Report:
    """Return what *bench* found, with the machine that it was found on."""
    return Report(
        bench=bench,
        taken_at=now,
        machine=Machine(
            cores=os.cpu_count() or 1,
            architecture=platform.machine(),
            python=platform.python_version(),
            packages={name: version(name) for name in found.packages},
            programs=found.programs,
        ),
        pace=found.pace,
        foreign=found.foreign,
        left_out=found.left_out,
        rows=found.rows,
        table=found.table,
    )
