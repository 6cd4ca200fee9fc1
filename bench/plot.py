"""Draw what `growth` found: a small SVG for each axis, every series in multiples of its first step.

`python -m bench.plot REPORT DIRECTORY` takes what `bench growth --json` printed. A plot is text: equal figures give
equal octets, and it is read on a light ground and on a dark one.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec

_WIDTH, _HEIGHT = 480, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 140, 34, 40
#: Labels of series stand at least so far apart.
_LABEL_HEIGHT: Final = 14
_COLOURS: Final = ("#2f7ed8", "#d9822b", "#2e9e6b", "#a06fd0")
_STYLE: Final = (
    "text{font:11px sans-serif;fill:#333}.g{stroke:#8884}.l{stroke:#888;stroke-dasharray:4 3}"
    "polyline,.l{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line: its name, and a value above 0 for each step."""

    name: str
    values: Sequence[float]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """Lines over the same steps, which stand at equal distances."""

    title: str
    steps: Sequence[str]
    series: Sequence[Series]
    #: Where cost would be if it grew as the steps do; drawn dashed.
    linear: Sequence[float] | None = None

    def svg(self) -> str:
        """Return the drawing, its values on a logarithmic scale."""
        lines = [*(each.values for each in self.series), *([self.linear] if self.linear else [])]
        ticks = _ticks(min(map(min, lines)), max(map(max, lines)))

        def place(at: int, value: float) -> tuple[float, float]:
            across = (_WIDTH - _LEFT - _RIGHT) * at / max(1, len(self.steps) - 1)
            up = math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])
            return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * up, 1)

        body = "\n".join(self._parts(place, ticks))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" role="img" aria-label="{escape(self.title)}">\n'
            f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
        )

    def _parts(self, place: Callable[[int, float], tuple[float, float]], ticks: Sequence[float]) -> Iterator[str]:
        yield _text(_LEFT, 16, self.title)
        for tick in ticks:
            _, height = place(0, tick)
            yield f'<line class="g" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height}" y2="{height}"/>'
            yield _text(_LEFT - 6, height + 4, _short(tick), anchor="end")
        for at, step in enumerate(self.steps):
            yield _text(place(at, 1)[0], _HEIGHT - 18, step, anchor="middle")
        if self.linear is not None:
            yield f'<polyline class="l" points="{_points(place, self.linear)}"/>'
        labels = []
        for series, colour in zip(self.series, _COLOURS, strict=False):
            yield f'<polyline stroke="{colour}" points="{_points(place, series.values)}"/>'
            labels.append((place(len(series.values) - 1, series.values[-1])[1], series.name, colour))
        if self.linear is not None:
            labels.append((place(len(self.linear) - 1, self.linear[-1])[1], "linear", "#888"))
        heights = _apart([height for height, _, _ in labels])
        for height, (_, name, colour) in zip(heights, labels, strict=True):
            left = _WIDTH - _RIGHT + 6
            yield f'<rect x="{left}" y="{height - 4}" width="8" height="8" fill="{colour}"/>'
            yield _text(left + 12, height + 4, name)


def _text(across: float, height: float, words: str, *, anchor: str = "start") -> str:
    return f'<text x="{across}" y="{height}" text-anchor="{anchor}">{escape(words)}</text>'


def _points(place: Callable[[int, float], tuple[float, float]], values: Sequence[float]) -> str:
    return " ".join(f"{across},{height}" for across, height in (place(*each) for each in enumerate(values)))


def _ticks(lowest: float, highest: float) -> list[float]:
    """Return 1, 2, 5, 10 … from below *lowest* to above *highest*; powers of ten alone where they are many."""
    low, high = math.floor(math.log10(lowest)), math.ceil(math.log10(highest) + 1e-9)
    digits = (1,) if high - low > 2 else (1, 2, 5)
    fine = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
    first = max(at for at, tick in enumerate(fine) if tick <= lowest * 1.000001)
    last = min((at for at, tick in enumerate(fine) if tick >= highest * 0.999999), default=len(fine) - 1)
    return fine[first : max(last, first + 1) + 1]


def _apart(heights: Sequence[float]) -> list[float]:
    """Return *heights* moved down, where they have to be, so that no label covers another."""
    moved = dict.fromkeys(range(len(heights)), 0.0)
    floor = -math.inf
    for at in sorted(moved, key=lambda each: heights[each]):
        floor = moved[at] = max(heights[at], floor)
        floor += _LABEL_HEIGHT
    over = max(0.0, floor - _LABEL_HEIGHT - (_HEIGHT - _BOTTOM + 8))
    return [round(moved[at] - over, 1) for at in range(len(heights))]


_Row = Mapping[str, Any]


def _cost(row: _Row) -> float:
    return float((row["cpu_us"] or 0) + row["store_us"])


def _seconds(row: _Row) -> float:
    return 1 / float(row["per_second"])


def _field(name: str) -> Callable[[_Row], float]:
    return lambda row: float(row[name])


#: What is drawn: the file, its title, and its lines, each an axis, a name and what it reads of a row.
_DRAWN: Final[Mapping[str, tuple[str, Sequence[tuple[str, str, Callable[[_Row], float]]]]]] = {
    "ledger": (
        "messages in the ledger; times of an empty one",
        (
            ("ledger", "p99 of an answer", _field("p99_times")),
            ("ledger", "CPU of a message", _cost),
            ("correlations", "time of a correlation", _seconds),
            ("settled", "WAL of a message", _field("log_bytes")),
        ),
    ),
    "recipients": (
        "recipients of a submission; for each, times of one alone",
        (("recipients", "CPU", _cost), ("recipients", "time", _seconds), ("recipients", "WAL", _field("log_bytes"))),
    ),
    "links": ("links of a message; times of one link", (("links", "CPU", _cost), ("links", "p50", _field("p50_us")))),
    "body": (
        "octets of a message; times of 2 KB",
        (("body", "CPU", _cost), ("body", "p50", _field("p50_us")), ("body", "peak memory", _field("peak_mib"))),
    ),
    "connections": (
        "sessions at a time; times of one",
        (
            ("connections", "p50", _field("p50_us")),
            ("connections", "messages/s", _field("per_second")),
            ("connections", "CPU", _cost),
        ),
    ),
    "workers": (
        "relay processes on 2 shared cores; times of one",
        (
            ("workers", "messages/s", _field("per_second")),
            ("workers", "CPU", _cost),
            ("workers", "peak memory", _field("peak_mib")),
        ),
    ),
    "hits": (
        "hits in a group; for each, times of one alone",
        (("hits", "CPU of Valkey", _cost), ("hits", "time", _seconds)),
    ),
}
_LINEAR: Final = ("links", "body", "connections")


def plots(rows: Sequence[_Row]) -> dict[str, Plot]:
    """Return the plots of a report's *rows*, by the name of their file."""
    found = {}
    for name, (title, lines) in _DRAWN.items():
        steps = [int(row["at"]) for row in rows if row["axis"] == name]
        read = [(label, [of(row) for row in rows if row["axis"] == axis]) for axis, label, of in lines]
        if not steps:
            continue
        found[name] = Plot(
            title=title,
            steps=[_short(step) if step else "empty" for step in steps],
            series=[_series(label, values) for label, values in read if values],
            linear=[step / steps[0] for step in steps] if name in _LINEAR else None,
        )
    return found


def _series(name: str, values: Sequence[float]) -> Series:
    # What took less than the clock's tick counts as a thousandth of the first.
    first = values[0] or 1.0
    return Series(name=name, values=[max(value / first, 0.001) for value in values])


def _short(value: float) -> str:
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _main(report: str, directory: str) -> None:
    [found] = msgspec.json.decode(Path(report).read_bytes())
    for name, plot in plots(found["rows"]).items():
        Path(directory, f"{name}.svg").write_text(plot.svg(), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
