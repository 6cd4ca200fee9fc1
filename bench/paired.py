"""Run loads against each other on real processes: A B A B, round by round, so that a busy machine is busy for all.

A load says what it did and whether that was right; what it cost is read from the kernel here. Absolute figures drift,
so a bar is a ratio to a baseline of the same round wherever there is one.
"""

import statistics
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from bench.processes import busy_seconds, peak_mib, reset_peaks, tree_seconds

_MICROSECONDS: Final = 1_000_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did in one round."""

    #: How many units (messages, requests, events) were done, and in how many seconds of wall time.
    units: int
    seconds: float
    #: What single units took, where somebody looked.
    latencies_us: Sequence[float] = ()
    #: What was lost, doubled or wrong; None: nothing.
    flaw: str | None = None


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a load; what is None is not."""

    #: Units per second, at least so many times the baseline's.
    times: float | None = None
    #: Units per second, at least.
    per_second: float | None = None
    #: CPU time of one unit, at most, on a machine of pace 1; a slower one may take longer.
    cpu_us: float | None = None
    #: Wall time of 99 of 100 units, at most.
    p99_ms: float | None = None
    #: The most memory of all processes under test together, at most.
    peak_mib: float | None = None

    def __str__(self) -> str:
        """Return it as it stands in a table."""
        parts = [
            ("at least {:g}x", self.times),
            ("at least {:,g}/s", self.per_second),
            ("{:g} us CPU", self.cpu_us),
            ("p99 {:g} ms", self.p99_ms),
            ("{:g} MiB", self.peak_mib),
        ]
        return " and ".join(text.format(value) for text, value in parts if value is not None)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is measured."""

    name: str
    #: Does it once, to its end: a round.
    run: Callable[[], Awaitable[Outcome]]
    #: The processes under test; those below them count with them. The load's own and the stores are none of them.
    pids: Iterable[int] = ()
    #: The name of the load that this one is measured against.
    baseline: str | None = None
    bar: Bar | None = None
    #: Further loads that it is measured against, and how many times their units per second it has to reach; 0: any.
    also: Mapping[str, float] = {}
    #: Done once before the rounds: what a process does for the first time is not what it costs.
    warm_up: Callable[[], Awaitable[object]] | None = None


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Units per second against another load's, each divided by the other's in the same round."""

    baseline: str
    median: float
    lowest: float
    highest: float
    bar: str | None
    met: bool | None


class PairedRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one load: medians of the rounds, but for the peak, which is the highest."""

    name: str
    per_second: float
    p50_us: float | None
    p99_us: float | None
    #: User and system time of the processes under test for one unit; None where there are none.
    cpu_us: float | None
    peak_mib: float | None
    units: int
    rounds: int
    baseline: str | None
    #: Units per second, divided by the baseline's in the same round: the median, the lowest, the highest.
    ratio: float | None
    ratio_range: tuple[float, float] | None
    bar: str | None
    met: bool | None
    also: tuple[Ratio, ...]
    flaw: str | None


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one run, and which share of the machine's cores others used meanwhile."""

    rows: tuple[PairedRow, ...]
    foreign: float
    #: How much slower this machine was than the one that bars in microseconds were set on; None: nobody asked.
    pace: float | None


async def measure(loads: Sequence[Load], *, rounds: int, pace: Callable[[], float] | None = None) -> Paired:
    """Run each of *loads* once in each of *rounds* rounds; *pace*, asked in each too, is the machine's."""
    kept = {load.name: _Rounds(load) for load in loads}
    foreign = []
    for load in loads:
        if load.warm_up is not None:
            await load.warm_up()
    paces = []
    for _ in range(rounds):
        if pace is not None:
            paces.append(pace())
        for load in loads:
            before = busy_seconds()
            await kept[load.name].add()
            foreign.append(busy_seconds().foreign_share_since(before))
    found = statistics.median(paces) if paces else None
    rows = tuple(_row(load, kept, found or 1.0) for load in loads)
    return Paired(rows=rows, foreign=statistics.median(foreign) if foreign else 0.0, pace=found)


class _Rounds:
    """What the rounds of one load gave."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._pids = tuple(load.pids)
        self.outcomes: list[Outcome] = []
        self.cpus_us: list[float] = []
        self.peaks_mib: list[float] = []

    async def add(self) -> None:
        reset_peaks(self._pids)
        before = tree_seconds(self._pids)
        outcome = await self._load.run()
        self.outcomes.append(outcome)
        if self._pids:
            used = tree_seconds(self._pids) - before
            self.cpus_us.append(used * _MICROSECONDS / max(outcome.units, 1))
            self.peaks_mib.append(peak_mib(self._pids))

    @property
    def speeds(self) -> list[float]:
        return [outcome.units / max(outcome.seconds, 1e-9) for outcome in self.outcomes]

    def times(self, other: "_Rounds") -> list[float]:
        return [mine / max(theirs, 1e-9) for mine, theirs in zip(self.speeds, other.speeds, strict=True)]

    @property
    def flaw(self) -> str | None:
        return next((outcome.flaw for outcome in self.outcomes if outcome.flaw is not None), None)

    def latency_us(self, share: float) -> float | None:
        found = [quantile(outcome.latencies_us, share) for outcome in self.outcomes if outcome.latencies_us]
        return statistics.median(found) if found else None


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _row(load: Load, kept: dict[str, _Rounds], pace: float) -> PairedRow:
    own = kept[load.name]
    ratios = [] if load.baseline is None else own.times(kept[load.baseline])
    row = PairedRow(
        name=load.name,
        per_second=statistics.median(own.speeds),
        p50_us=own.latency_us(0.5),
        p99_us=own.latency_us(0.99),
        cpu_us=statistics.median(own.cpus_us) if own.cpus_us else None,
        peak_mib=max(own.peaks_mib, default=None),
        units=sum(outcome.units for outcome in own.outcomes),
        rounds=len(own.outcomes),
        baseline=load.baseline,
        ratio=statistics.median(ratios) if ratios else None,
        ratio_range=(min(ratios), max(ratios)) if ratios else None,
        bar=None if load.bar is None else str(load.bar),
        met=None,
        also=tuple(_ratio(name, own.times(kept[name]), asked) for name, asked in load.also.items()),
        flaw=own.flaw,
    )
    return row if load.bar is None else msgspec.structs.replace(row, met=_is_met(load.bar, row, pace))


def _ratio(baseline: str, ratios: Sequence[float], asked: float) -> Ratio:
    median = statistics.median(ratios)
    return Ratio(
        baseline=baseline,
        median=median,
        lowest=min(ratios),
        highest=max(ratios),
        bar=str(Bar(times=asked)) if asked else None,
        met=median >= asked if asked else None,
    )


def _is_met(bar: Bar, row: PairedRow, pace: float) -> bool:
    cpu_us = None if row.cpu_us is None else row.cpu_us / pace
    p99_ms = None if row.p99_us is None else row.p99_us / 1_000
    least = ((bar.times, row.ratio), (bar.per_second, row.per_second))
    most = ((bar.cpu_us, cpu_us), (bar.p99_ms, p99_ms), (bar.peak_mib, row.peak_mib))
    # What was asked for and not measured is not met.
    return all(asked is None or (found is not None and found >= asked) for asked, found in least) and all(
        asked is None or (found is not None and found <= asked) for asked, found in most
    )


def table(rows: Sequence[PairedRow]) -> str:
    """Return *rows* for a person: the ratio and its range beside each, `ok` or `missed` where there is a bar."""
    titles = ("load", "per second", "p50 ms", "p99 ms", "CPU us", "peak MiB", "ratio", "to", "bar", "")
    lines: list[tuple[str, ...]] = [titles]
    for row in rows:
        lines.append(tuple(_cells(row)))
        lines += [tuple(_more(ratio)) for ratio in row.also]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 1 <= column <= 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: PairedRow) -> Iterator[str]:
    verdict = "" if row.met is None else "ok" if row.met else "missed"
    yield row.name
    yield f"{row.per_second:,.0f}"
    for microseconds in (row.p50_us, row.p99_us):
        yield "" if microseconds is None else f"{microseconds / 1_000:,.2f}"
    yield "" if row.cpu_us is None else f"{row.cpu_us:,.0f}"
    yield "" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
    yield "" if row.ratio is None or row.ratio_range is None else _spread(row.ratio, *row.ratio_range)
    yield row.baseline or ""
    yield row.bar or ""
    yield verdict if row.flaw is None else f"{verdict} WRONG: {row.flaw}".strip()


def _more(ratio: Ratio) -> Iterator[str]:
    """Yield the cells of a further ratio: a line of its own below its load's."""
    yield from ("", "", "", "", "", "")
    yield _spread(ratio.median, ratio.lowest, ratio.highest)
    yield ratio.baseline
    yield ratio.bar or ""
    yield "" if ratio.met is None else "ok" if ratio.met else "missed"


def _spread(median: float, lowest: float, highest: float) -> str:
    return f"{median:.2f} ({lowest:.2f}-{highest:.2f})"
