"""Time cases against each other: A B A B rounds in one process, so that a busy machine is busy for all of them.

Absolute figures drift with the machine, and within seconds, so a bar is a ratio to a baseline that is timed right
before and right behind, in each round; a bar in microseconds is held against the pace of the machine, which a yardstick
gives.
"""

import gc
import statistics
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns, process_time_ns
from typing import NamedTuple

import msgspec

# A round calls a case as often as fits into this, and never more often than that.
_ROUND_NS = 30_000_000
_MOST_CALLS = 400


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """What a case may cost; what is None is not asked for."""

    #: CPU time, as a share of the baseline's.
    ratio: float | None = None
    #: CPU time of one call, in microseconds, on a machine of pace 1; a slower one may take longer.
    cpu_us: float | None = None

    def __str__(self) -> str:
        """Return it as it stands in a table."""
        parts = [f"{_times(self.ratio)}"] if self.ratio is not None else []
        if self.cpu_us is not None:
            parts.append(f"{self.cpu_us:,.0f} us")
        return " and ".join(parts)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is measured."""

    name: str
    run: Callable[[], object]
    #: Says what is wrong with a result of `run`; None: nothing is. It is asked once, and not timed.
    flaw: Callable[[object], str | None]
    #: The name of the case that this one is measured against.
    baseline: str | None = None
    bar: Bar | None = None
    #: What this case took, in microseconds of CPU, where bars in microseconds were set: it is the yardstick then.
    yardstick_us: float | None = None
    #: Rounds are long: so few of them are enough.
    most_rounds: int = 1_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one case. Times are microseconds of one call."""

    name: str
    #: User and system time, the median of the rounds.
    cpu_us: float
    #: Wall time of single calls, in all rounds.
    p50_us: float
    p99_us: float
    #: The most memory that Python's allocator held for one call, beside what was there before; in KiB.
    peak_kib: float
    calls: int
    rounds: int
    baseline: str | None
    #: CPU time divided by what the baseline took beside it, the median of the rounds' ratios.
    ratio: float | None
    bar: str | None
    #: Whether the bar was met; None where there is none.
    met: bool | None
    #: What is wrong with the result; None: it is right.
    flaw: str | None


class Measured(NamedTuple):
    """The rows of one run, and how much slower this machine was, all in all, than the one that bars were set on."""

    rows: list[Row]
    pace: float


def measure(cases: Sequence[Case], *, rounds: int) -> Measured:
    """Measure *cases* in *rounds* rounds, each case once in every round."""
    flaws = {case.name: case.flaw(case.run()) for case in cases}
    peaks = {case.name: _peak_kib(case.run) for case in cases}
    samples = {case.name: _Samples(case) for case in cases}
    with _no_collections():
        for number in range(rounds):
            for case in cases:
                if number < case.most_rounds:
                    samples[case.name].add_round(samples.get(case.baseline or ""))
    paces = [samples[case.name].cpu_us / case.yardstick_us for case in cases if case.yardstick_us is not None]
    # Nobody is asked for more because a machine is fast.
    pace = max([1.0, *paces])
    rows = [_row(case, samples, pace=pace, peak_kib=peaks[case.name], flaw=flaws[case.name]) for case in cases]
    return Measured(rows, pace)


class _Samples:
    """What the rounds of one case took."""

    def __init__(self, case: Case) -> None:
        self._run = case.run
        started = perf_counter_ns()
        case.run()
        once = max(perf_counter_ns() - started, 1)
        self._calls = max(1, min(_MOST_CALLS, _ROUND_NS // once))
        self.walls: list[int] = []
        #: Nanoseconds of CPU time of one call, by round; and that as a share of the baseline's.
        self.cpus: list[float] = []
        self.ratios: list[float] = []

    @property
    def cpu_us(self) -> float:
        return statistics.median(self.cpus) / 1_000

    def add_round(self, baseline: "_Samples | None") -> None:
        before = baseline.timed([]) if baseline else 0.0
        own = self.timed(self.walls)
        self.cpus.append(own)
        if baseline:
            self.ratios.append(2 * own / max(before + baseline.timed([]), 1))

    def timed(self, walls: list[int]) -> float:
        """Return the nanoseconds of CPU time of one call in a round, and add the wall time of each to *walls*."""
        run = self._run
        cpu = process_time_ns()
        for _ in range(self._calls):
            started = perf_counter_ns()
            run()
            walls.append(perf_counter_ns() - started)
        taken = (process_time_ns() - cpu) / self._calls
        # Nobody's garbage is in the next one's way.
        gc.collect()
        return taken


def _row(case: Case, samples: dict[str, _Samples], *, pace: float, peak_kib: float, flaw: str | None) -> Row:
    own = samples[case.name]
    ratio = statistics.median(own.ratios) if own.ratios else None
    walls = sorted(own.walls)
    return Row(
        name=case.name,
        cpu_us=own.cpu_us,
        p50_us=_quantile(walls, 0.5) / 1_000,
        p99_us=_quantile(walls, 0.99) / 1_000,
        peak_kib=peak_kib,
        calls=len(walls),
        rounds=len(own.cpus),
        baseline=case.baseline,
        ratio=ratio,
        bar=None if case.bar is None else str(case.bar),
        met=None if case.bar is None else _is_met(case.bar, ratio, own.cpu_us / pace),
        flaw=flaw,
    )


def _is_met(bar: Bar, ratio: float | None, cpu_us: float) -> bool:
    if bar.ratio is not None and (ratio is None or ratio > bar.ratio):
        return False
    return bar.cpu_us is None or cpu_us <= bar.cpu_us


def _quantile(ordered: Sequence[int], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _times(ratio: float) -> str:
    """Return a ratio as people say it: a fortieth, or twice."""
    return f"1/{1 / ratio:.1f}" if 0 < ratio < 1 else f"{ratio:.2f}x"


def _peak_kib(run: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (peak - before) / 1_024


@contextmanager
def _no_collections() -> Iterator[None]:
    # A collection falls upon whoever is running; it is done between two cases instead.
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def table(rows: Sequence[Row]) -> str:
    """Return *rows* for a person: times in microseconds, the ratio beside each, `ok` or `over` where there is a bar."""
    titles = ("case", "CPU us", "p50 us", "p99 us", "peak KiB", "ratio", "to", "bar", "")
    lines = [titles, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 1 <= column <= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "" if row.met is None else "ok" if row.met else "over"
    return (
        row.name,
        f"{row.cpu_us:,.1f}",
        f"{row.p50_us:,.1f}",
        f"{row.p99_us:,.1f}",
        f"{row.peak_kib:,.0f}",
        "" if row.ratio is None else _times(row.ratio),
        row.baseline or "",
        row.bar or "",
        verdict if row.flaw is None else f"{verdict} WRONG: {row.flaw}".strip(),
    )
