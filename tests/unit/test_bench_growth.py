"""How `growth` says what it found: rows with multiples of the first step, and plots that can be read."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from bench.axes import Axis, Step
from bench.gauge import Written
from bench.growth import GrowthRow, measured, random_indexes, table
from bench.mailer import Batch, submit_watched
from bench.mails import plain
from bench.paired import Outcome
from bench.plot import Plot, Series, plots
from bench.servers import free_port
from bench.sink import sink
from injector import Options, parse
from injector import plan as planned

_SVG = "{http://www.w3.org/2000/svg}"


class Scale:
    """A gauge that says what it is told, round by round."""

    def __init__(self, *cpu_us: float, pages: dict[str, float] | None = None) -> None:
        self._cpu_us = iter(cpu_us)
        self._pages = pages or {}

    async def written(self, run: Callable[[], Awaitable[Outcome]]) -> Written:
        """Run it."""
        return Written(outcome=await run(), cpu_us=next(self._cpu_us), log_bytes=700.0, pages=self._pages)


def step(at: int, gauge: Scale, *p99_us: float, flaw: str | None = None) -> Step:
    """Return a step whose rounds, the first of which warms up, have these p99."""
    latencies = iter([0.0, *p99_us])

    async def run() -> Outcome:
        return Outcome(units=10, seconds=1.0, latencies_us=[next(latencies)] * 10, flaw=flaw)

    return Step(name=f"steps: {at}", at=at, run=run, gauge=gauge)


async def rows(*, flaw: str | None = None) -> list[GrowthRow]:
    """Return two steps of three rounds: the second costs three times the first, on a machine that grows slower."""
    first = step(1, Scale(100, 200, 400), 1_000, 2_000, 4_000)
    second = step(10, Scale(300, 600, 1_200, pages={"a_pkey": 0.9, "b_idx": 0.1}), 1_500, 3_000, 6_000, flaw=flaw)
    found, foreign = await measured(Axis(name="steps", steps=[first, second]), rounds=3)
    assert 0 <= foreign <= 1
    return found


class TestRows:
    """A row has what its step cost, and how many times the first one that is."""

    async def test_multiples_are_those_of_the_first_step(self) -> None:
        first, second = await rows()
        assert (first.cost_times, first.p99_times) == (1.0, 1.0)
        assert (second.cost_times, second.p99_times) == (3.0, 1.5)
        assert (second.axis, second.at, second.store_us, second.log_bytes) == ("steps", 10, 600, 700)
        assert (second.per_second, second.units, second.rounds) == (10, 30, 3)

    async def test_an_index_that_shares_no_page_is_random(self) -> None:
        first, second = await rows()
        assert random_indexes(first.pages) == []
        assert random_indexes(second.pages) == ["a_pkey"]

    async def test_the_table_says_all_of_it(self) -> None:
        lines = table(await rows(flaw="a link is lost")).splitlines()
        assert len(lines) == 4
        assert lines[1].split()[:2] == ["steps:", "1"]
        assert lines[2].endswith("1.50 WRONG: a link is lost")
        assert lines[3] == "steps: 10: random indexes: a_pkey; pages for each: a_pkey 0.90, b_idx 0.10"


class TestPlots:
    """A plot is an image with one point for each step of each line, and labels that do not cover each other."""

    def test_points_rise_with_their_values(self) -> None:
        lines = [Series(name="cost", values=[1, 10, 100]), Series(name="a < b", values=[1, 1, 0.1])]
        image = ET.fromstring(  # noqa: S314 - our own
            Plot(title="steps & costs", steps=["1", "10", "100"], series=lines, linear=[1, 10, 100]).svg()
        )
        drawn = [line.attrib["points"].split() for line in image.iter(f"{_SVG}polyline")]
        linear, cost, other = [[tuple(map(float, point.split(","))) for point in points] for points in drawn]
        assert linear == cost
        assert cost[0][1] - cost[1][1] == pytest.approx(cost[1][1] - cost[2][1], abs=0.2)
        assert other[2][1] > other[1][1] == other[0][1] == cost[0][1]
        words = [text.text for text in image.iter(f"{_SVG}text")]
        assert {"steps & costs", "a < b", "linear"} <= set(words)

    def test_labels_stand_apart(self) -> None:
        lines = [Series(name=name, values=[1, 2]) for name in "abcd"]
        image = ET.fromstring(Plot(title="", steps=["1", "2"], series=lines).svg())  # noqa: S314 - our own
        heights = sorted(float(mark.attrib["y"]) for mark in image.iter(f"{_SVG}rect"))
        assert len(heights) == 4
        assert min(after - before for before, after in itertools.pairwise(heights)) >= 14
        assert max(heights) < 220

    @pytest.mark.parametrize("values", [[1.0, 1.0], [1.0, 0.001], [1.0, 12_500.0], [1.0, 1.2]])
    def test_every_value_lies_between_the_first_and_the_last_line(self, values: list[float]) -> None:
        image = ET.fromstring(  # noqa: S314 - our own
            Plot(title="", steps=["1", "2"], series=[Series(name="a", values=values)]).svg()
        )
        grid = [float(line.attrib["y1"]) for line in image.iter(f"{_SVG}line")]
        [points] = [line.attrib["points"].split() for line in image.iter(f"{_SVG}polyline")]
        assert len(grid) >= 2
        assert all(min(grid) <= float(point.split(",")[1]) <= max(grid) for point in points)

    def test_a_report_gives_a_small_plot_for_each_axis(self) -> None:
        steps = {
            "ledger": (0, 100_000),
            "correlations": (0, 100_000),
            "settled": (0, 100_000),
            "recipients": (1, 10),
            "links": (1, 10),
            "body": (2_000, 25_000_000),
            "connections": (1, 10),
            "workers": (1, 2),
            "hits": (1, 10),
        }
        found = plots([report_row(axis, at) for axis, each in steps.items() for at in each])
        assert list(found) == ["ledger", "recipients", "links", "body", "connections", "workers", "hits"]
        assert found["ledger"].steps == ["empty", "100 k"]
        assert found["body"].steps == ["2 k", "25 M"]
        assert found["body"].linear == [1, 12_500]
        assert [each.name for each in found["ledger"].series][-1] == "WAL of a message"
        assert all(len(plot.svg()) < 10_000 for plot in found.values())

    def test_what_was_not_measured_is_not_drawn(self) -> None:
        assert plots([]) == {}
        [plot] = plots([report_row("ledger", 0)]).values()
        assert [each.name for each in plot.series] == ["p99 of an answer", "CPU of a message"]


def report_row(axis: str, at: int) -> dict[str, Any]:
    """Return what a plot reads of a row in a report."""
    cost: dict[str, Any] = dict.fromkeys(("p50_us", "p99_times", "per_second", "log_bytes", "peak_mib"), at + 5.0)
    return cost | {"axis": axis, "at": at, "cpu_us": None, "store_us": 0.0}


class TestLetters:
    """Each has a Message-ID of its own, and as many links as were asked for."""

    @pytest.mark.parametrize(("octets", "links"), [(1_000, 1), (400_000, 1), (400_000, 1_000)])
    def test_a_page_has_its_links_and_octets(self, octets: int, links: int) -> None:
        content = plain(octets, links=links)
        options = Options(public_url="https://track.example.com")
        assert sum(link.count for link in planned(parse(content), options, campaign=True).links) == links
        assert octets < len(content) < octets + 5_000

    async def test_every_letter_is_another_one(self) -> None:
        batch = Batch(content=plain(1_000, links=1), messages=5, sessions=2, recipients=3, own_ids=True)
        async with sink() as counting:
            await counting.begin()
            first = await submit_watched(batch, port=counting.port)
            again = await submit_watched(msgspec.structs.replace(batch, messages=1), port=counting.port)
            arrived = await counting.report()
        assert (first.flaw, again.flaw, len(first.latencies_us)) == (None, None, 5)
        assert (arrived.messages, arrived.recipients, arrived.message_ids) == (6, 18, 6)

    async def test_nobody_listens(self) -> None:
        batch = Batch(content=plain(1_000, links=1), messages=2, sessions=2, own_ids=True)
        submitted = await submit_watched(batch, port=free_port())
        assert submitted.flaw is not None
        assert submitted.latencies_us == []
