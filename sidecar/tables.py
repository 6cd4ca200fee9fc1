"""Lay out rows for a terminal."""

from collections.abc import Iterable, Sequence
from datetime import datetime


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return *rows* under *columns* as aligned lines, numbers to the right; none without rows."""
    found = list(rows)
    if not found:
        return []
    cells = [[_cell(value) for value in row] for row in found]
    head = [list(columns)] if columns else []
    widths = [max(len(row[index]) for row in [*head, *cells]) for index in range(len(cells[0]))]
    right = [bool(columns) and all(isinstance(row[index], int) for row in found) for index in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [*head, *cells]
    ]


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    # Strangers write some of it, and a terminal obeys control characters.
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
