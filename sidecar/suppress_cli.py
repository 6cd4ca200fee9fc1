"""What `suppress` does: enter recipients, lift them, list them, and carry the list in and out as CSV.

A file with a wrong line changes nothing, and every wrong line is named; the same file twice is once.
"""

import argparse
import csv
import io
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from ledger import suppressions
from ledger.ids import recipient_index
from ledger.store import Ledger
from ledger.suppressions import EVERY_SOURCE, Entry, Suppression
from sidecar.answers import mailbox, position, say, say_json
from sidecar.cli_parser import moment
from sidecar.cursors import SUPPRESSION_CURSOR, cursor_text
from sidecar.export import rows_text
from sidecar.failures import CommandError
from sidecar.keys import load_keys
from sidecar.reach import opened
from sidecar.settings import Settings
from sidecar.tables import table

#: What an export writes and an import reads; `recipient` alone must be there.
COLUMNS = ("recipient", "source", "reason", "at")

_BATCH = 5_000
_PAGE = 1_000
_SHOWN_PROBLEMS = 20
_MAX_REASON = 64


class _List:
    """The list of one ledger, asked with the key under which it finds people."""

    def __init__(self, ledger: Ledger, identity_key: bytes) -> None:
        self.ledger = ledger
        self._identity_key = identity_key

    def index(self, recipient: str) -> bytes:
        """Return the blind index of a recipient."""
        return recipient_index(self._identity_key, recipient)

    def entry(self, recipient: str, source: str, reason: str, at: datetime | None = None) -> Entry:
        """Return an entry; raise `ValueError` for what cannot be one."""
        if not 0 < len(reason) <= _MAX_REASON or not reason.isprintable():
            raise ValueError(f"a reason is 1 to {_MAX_REASON} printable characters")
        return Entry(
            source=source, recipient_index=self.index(mailbox(recipient)), recipient=recipient, reason=reason, at=at
        )


async def suppress(settings: Settings, given: argparse.Namespace) -> int:
    """Add, remove, list, import or export."""
    if given.action in {"list", "export"} and given.names:
        raise CommandError(f"suppress {given.action}: takes no recipients", code=2)
    if given.action in {"add", "remove"} and not given.names:
        raise CommandError(f"suppress {given.action}: name at least one recipient", code=2)
    if given.action == "import" and len(given.names) != 1:
        raise CommandError("suppress import: name one file, or - for standard input", code=2)
    identity_key = load_keys(settings).identity
    async with opened(settings) as ledger:
        return await _ACTIONS[given.action](_List(ledger, identity_key), given)


async def _add(known: _List, given: argparse.Namespace) -> int:
    try:
        entries = [known.entry(name, given.source or EVERY_SOURCE, given.reason) for name in given.names]
    except ValueError as error:
        raise CommandError(f"suppress add: {error}", code=2) from None
    return _tell(given, "added", await suppressions.enter(known.ledger, entries))


async def _remove(known: _List, given: argparse.Namespace) -> int:
    try:
        indexes = [known.index(mailbox(name)) for name in given.names]
    except ValueError as error:
        raise CommandError(f"suppress remove: {error}", code=2) from None
    removed = await suppressions.lift(known.ledger, indexes, source=given.source)
    _tell(given, "removed", removed)
    return 0 if removed else 1


async def _listing(known: _List, given: argparse.Namespace) -> int:
    page = await suppressions.listing(
        known.ledger, limit=given.limit, after=position(given.cursor, SUPPRESSION_CURSOR), source=given.source
    )
    following = cursor_text(page.next)
    if given.json:
        say_json({"suppressions": page.suppressions, "next": following})
        return 0
    rows = [(one.recipient or "-", one.source or "every", one.reason, one.at) for one in page.suppressions]
    say(table(("recipient", "source", "reason", "since"), rows) or ["nobody is suppressed"])
    if following is not None:
        say([f"more: --cursor {following}"])
    return 0


async def _export(known: _List, given: argparse.Namespace) -> int:
    sys.stdout.buffer.write(rows_text([COLUMNS]))
    after: tuple[str, bytes] | None = None
    while True:
        page = await suppressions.listing(known.ledger, limit=_PAGE, after=after, source=given.source)
        # An entry without an address, of somebody who is erased for example, could not be read again.
        sys.stdout.buffer.write(rows_text(_cells(one) for one in page.suppressions if one.recipient is not None))
        sys.stdout.buffer.flush()
        if page.next is None:
            return 0
        after = page.next


async def _import(known: _List, given: argparse.Namespace) -> int:
    (name,) = given.names
    entries: list[Entry] = []
    problems: list[str] = []
    for line, row in _rows(name, _text(name)):
        try:
            entries.append(
                known.entry(
                    row["recipient"],
                    row.get("source") or given.source or EVERY_SOURCE,
                    row.get("reason") or "import",
                    moment(row["at"]) if row.get("at") else None,
                )
            )
        except (ValueError, argparse.ArgumentTypeError) as error:
            problems.append(f"line {line}: {error}")
    if problems:
        more = [f"and {len(problems) - _SHOWN_PROBLEMS} more"] if len(problems) > _SHOWN_PROBLEMS else []
        raise CommandError("\n  ".join([f"{name}: nothing was imported", *problems[:_SHOWN_PROBLEMS], *more]), code=2)
    added = 0
    for start in range(0, len(entries), _BATCH):
        added += await suppressions.enter(known.ledger, entries[start : start + _BATCH])
    return _tell(given, "added", added)


def _text(name: str) -> str:
    try:
        octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return octets.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}", code=2) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{name}: expected UTF-8", code=2) from error


def _rows(name: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield every row with its line; raise `CommandError` for a header that is none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if "recipient" not in header or len(set(header)) != len(header) or not set(header) <= set(COLUMNS):
            raise CommandError(f"{name}: the first row names the columns: recipient, and any of {COLUMNS[1:]}", code=2)
        for cells in reader:
            if cells:
                values = [cell.removeprefix("'") for cell in map(str.strip, cells)]
                yield reader.line_num, dict(zip(header, [*values, *[""] * len(header)], strict=False))
    except csv.Error as error:
        raise CommandError(f"{name}: line {reader.line_num}: {error}", code=2) from error


def _cells(one: Suppression) -> Sequence[str | datetime | None]:
    return one.recipient, one.source, one.reason, one.at


def _tell(given: argparse.Namespace, field: str, count: int) -> int:
    if given.json:
        say_json({field: count})
    else:
        say([f"{count} {'recipient' if count == 1 else 'recipients'} {field}"])
    return 0


_ACTIONS: dict[str, Callable[[_List, argparse.Namespace], Awaitable[int]]] = {
    "add": _add,
    "remove": _remove,
    "list": _listing,
    "import": _import,
    "export": _export,
}
