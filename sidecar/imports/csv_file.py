"""Read history from a CSV file (RFC 4180, UTF-8): a row for each recipient, or for each event.

A row that cannot be read is named by its line and left out. The file is looked through for octets that are no UTF-8
before anything is taken from it.
"""

import codecs
import csv
import io
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from providers.notice import Bounce, Notice, What
from sidecar.export import as_written
from sidecar.imports.origin import OriginError, Page, address_of, milliseconds

NAME = "csv"
#: A file is one report.
REPORT = "file"

#: Rows of one page.
_ROWS = 2000
#: Wrong lines that are named.
SHOWN = 20
WRONG = "with something wrong in it"
NOT_SENT = "that say they were not sent"

#: What may have happened to a recipient, as columns.
WHATS = (
    What.SENT,
    What.DELIVERED,
    What.OPENED,
    What.CLICKED,
    What.BOUNCED,
    What.COMPLAINED,
    What.UNSUBSCRIBED,
)

#: The names that a column may have, in any case, with spaces or hyphens for underscores; any may be mapped.
FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "email": ("email", "email_address", "e_mail", "recipient", "address"),
        "event": ("event",),
        "at": ("at", "occurred_at", "time", "date"),
        "url": ("url",),
        "bounce": ("bounce", "bounce_type"),
        **{what: (what,) for what in WHATS},
        **{f"{what}_at": (f"{what}_at", f"first_{what}_at") for what in WHATS},
    }
)

_YES = frozenset({"true", "yes", "y", "on", "x"})
_NO = frozenset({"", "false", "no", "n", "off", "-", "0"})
_BOUNCES: Mapping[str, Bounce] = MappingProxyType({bounce: bounce for bounce in Bounce} | {"": Bounce.UNKNOWN})


class WrongRowError(Exception):
    """A row cannot be read; the text says why."""


class CsvFile:
    """One file, as an origin. *every* is what each row tells where the file has no column for it."""

    name = NAME

    def __init__(self, file: BinaryIO, *, name: str, columns: Mapping[str, str], every: What | None) -> None:
        self._file = file
        self._name = name
        self._mapped = columns
        self._every = every
        #: The first wrong rows, each with its line.
        self.problems: list[str] = []
        #: Rows that could be read.
        self.good = 0
        #: Columns that nothing was taken from.
        self.ignored: list[str] = []

    async def pages(self, report: str, place: str) -> AsyncIterator[Page]:
        """Yield the whole file: who begins again finds what was taken before taken."""
        del report, place
        check_utf8(self._file, self._name)
        self._file.seek(0)
        rows = self._rows()
        while page := list(itertools.islice(rows, _ROWS)):
            told = [one for row in page if not isinstance(row, str) for one in row]
            left_out = Counter(row for row in page if isinstance(row, str))
            yield Page(notices=told, rows=len(page), following="", left_out=left_out)
        yield Page(notices=(), rows=0, following=None, left_out=Counter())

    def _rows(self) -> Iterator[list[Notice] | str]:
        """Yield what each row tells, or why it is left out."""
        text = io.TextIOWrapper(self._file, encoding="utf-8-sig", newline="")
        try:
            head = text.readline()
            delimiter = max(",;\t", key=head.count)
            layout = layout_of(next(csv.reader([head], delimiter=delimiter, strict=True), []), self._mapped, self._name)
            self.ignored = layout.ignored
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            while True:
                line = reader.line_num + 2
                try:
                    cells = next(reader, None)
                    if cells is None:
                        return
                    if any(cells):
                        yield self._told(layout, cells)
                        self.good += 1
                except (csv.Error, WrongRowError) as error:
                    if len(self.problems) < SHOWN:
                        self.problems.append(f"line {line}: {error}")
                    yield WRONG
        except csv.Error as error:
            raise OriginError(f"{self._name}: line 1: {error}") from None
        finally:
            # The file is its opener's.
            text.detach()

    def _told(self, layout: "Layout", cells: Sequence[str]) -> list[Notice] | str:
        if len(cells) > layout.width:
            raise WrongRowError(f"{len(cells)} cells, and the first line names {layout.width} columns")
        row = {field: cells[index].strip() for field, index in layout.columns.items() if index < len(cells)}
        spelt = as_written(row.get("email", ""))
        address = address_of(spelt)
        if address is None:
            raise WrongRowError(f"{spelt!r} is no address" if spelt else "no address")
        return tell(row, address, self._every)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns are read as what."""

    columns: dict[str, int]
    width: int
    ignored: list[str]


def layout_of(header: Sequence[str], mapped: Mapping[str, str], name: str) -> Layout:
    """Return which column each field is read from; raise `OriginError` where that cannot be said."""
    spelt = [_plain(cell) for cell in header]
    columns: dict[str, int] = {}
    for field, column in mapped.items():
        if _plain(column) not in spelt:
            raise OriginError(
                f"{name}: --map {field}={column}: the first line names no such column: {', '.join(header)}"
            )
        columns[field] = spelt.index(_plain(column))
    for field, names in FIELDS.items():
        index = next((spelt.index(one) for one in names if one in spelt), None)
        if field not in columns and index is not None and index not in columns.values():
            columns[field] = index
    if "email" not in columns:
        raise OriginError(f"{name}: the first line names no column `email`: name it with --map email=COLUMN")
    if "event" in columns and any(what in columns or f"{what}_at" in columns for what in WHATS):
        raise OriginError(f"{name}: a row is one event, or all of one recipient: the first line names columns of both")
    ignored = [cell for index, cell in enumerate(header) if index not in columns.values()]
    return Layout(columns=columns, width=len(header), ignored=ignored)


def tell(row: Mapping[str, str], address: str, every: What | None) -> list[Notice] | str:
    """Return what a row tells of *address*, or why it is left out; raise `WrongRowError`."""
    told: dict[What, int | None] = {}
    if "event" in row:
        what = next((one for one in WHATS if one == row["event"].lower()), None)
        if what is None:
            raise WrongRowError(f"{row['event']!r} is no event: {', '.join(WHATS)}")
        told[what] = _time(row.get("at", ""), "at")
    else:
        if every is not None:
            told[every] = _time(row.get("at", ""), "at")
        for what in WHATS:
            at = _time(row.get(f"{what}_at", ""), f"{what}_at")
            happened, then = _flag(row.get(what, ""), what)
            if happened or at is not None:
                told[what] = then if at is None else at
        if not told:
            if What.SENT in row or f"{What.SENT}_at" in row:
                return NOT_SENT
            # Nothing is told but that this one was a recipient.
            told[What.SENT] = None
    bounce = row.get("bounce", "").lower()
    if bounce not in _BOUNCES:
        raise WrongRowError(f"{bounce!r} is no bounce: {', '.join(Bounce)}")
    return [
        Notice(
            provider=NAME,
            what=what,
            dedupe="",
            at_ms=at,
            recipient=address,
            bounce=_BOUNCES[bounce] if what is What.BOUNCED else None,
            url=as_written(row.get("url", "")) if what is What.CLICKED else "",
        )
        for what, at in told.items()
    ]


def check_utf8(file: BinaryIO, name: str) -> None:
    """Raise `OriginError`, with the line, unless all of *file* is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    while True:
        octets = file.read(1024 * 1024)
        if line == 1 and octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise OriginError(f"{name}: it is UTF-16; save it as UTF-8")
        try:
            decoder.decode(octets, final=not octets)
        except UnicodeDecodeError as error:
            # What was kept from before is a part of one character, so that no line ends in it.
            line += error.object[: error.start].count(b"\n")
            raise OriginError(f"{name}: line {line}: expected UTF-8; nothing was imported") from None
        if not octets:
            return
        line += octets.count(b"\n")


def _plain(cell: str) -> str:
    return cell.strip().lower().replace(" ", "_").replace("-", "_")


def _time(cell: str, field: str) -> int | None:
    if not cell:
        return None
    at_ms = milliseconds(cell)
    if at_ms is None:
        raise WrongRowError(f"{field}: {cell!r} is no time such as 2026-01-02T03:04:05Z")
    return at_ms


def _flag(cell: str, what: What) -> tuple[bool, int | None]:
    """Return whether a cell says yes, and when, where a time stands in the place of it."""
    word = cell.lower()
    if word in _NO:
        return False, None
    # A count says yes, too.
    if word in _YES or (word.isascii() and word.isdecimal() and len(word) < len("20260102")):
        return True, None
    at_ms = milliseconds(cell)
    if at_ms is None:
        raise WrongRowError(f"{what}: {cell!r} is neither yes nor no, and no time")
    return True, at_ms
