"""The export is a CSV that every reader understands and no spreadsheet runs."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.export import cell_text, rows_text
from tests.rows import NOON


@pytest.mark.parametrize(
    "hostile",
    [
        '=HYPERLINK("https://evil.example.com")',
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "\n=1",
        "\N{FULLWIDTH EQUALS SIGN}1",
        "\N{FULLWIDTH COMMERCIAL AT}x",
    ],
)
def test_formula_cells_are_neutralised(hostile: str) -> None:
    """A cell that a spreadsheet would run begins with an apostrophe."""
    assert cell_text(hostile) == "'" + hostile


@pytest.mark.parametrize("plain", ["ann@example.net", "a=b", "250 2.0.0 Ok: queued as x", ""])
def test_plain_cells_stay(plain: str) -> None:
    """Every other text is the cell."""
    assert cell_text(plain) == plain


def test_values_have_one_spelling_each() -> None:
    """None is empty, booleans are lower-case, times are ISO 8601 in UTC, numbers keep their sign."""
    assert rows_text([[None, True, False, -3, NOON]]) == b",true,false,-3,2026-03-01T12:00:00Z\r\n"


def test_separators_quotes_and_line_ends_are_quoted() -> None:
    """RFC 4180, 2.6 and 2.7."""
    assert rows_text([["a,b", 'say "x"', "two\r\nlines"]]) == b'"a,b","say ""x""","two\r\nlines"\r\n'


def test_what_utf8_or_csv_cannot_hold_is_replaced() -> None:
    """Nothing that a mailer sent stops an export."""
    assert rows_text([["a\0b", "c\udcffd"]]).decode() == "a\ufffdb,c?d\r\n"


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2), min_size=1
    )
)
def test_a_csv_reader_gets_every_cell_back(rows: list[list[str]]) -> None:
    """Invariant: reading what was written gives the cells, each as it was or behind one apostrophe."""
    read = list(csv.reader(io.StringIO(rows_text(rows).decode(), newline="")))
    assert read == [[cell_text(cell) for cell in row] for row in rows]
    for row in read:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)
