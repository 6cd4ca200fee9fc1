"""Every statement has a name, a purpose, and is used."""

import re
from pathlib import Path

import pytest

from ledger.statements import StatementError, parse, statements

ROOT = Path(__file__).resolve().parents[3]


def test_statements_are_found_by_name() -> None:
    """The file is read whole."""
    assert "insert_messages" in statements()


@pytest.mark.parametrize(
    "text",
    [
        "-- name: lonely\nSELECT 1;\n",
        "-- name: empty\n-- Says nothing.\n",
        "-- name: two\n-- Says too much.\nSELECT 1; SELECT 2;\n",
        "-- name: one\n-- A.\nSELECT 1;\n-- name: one\n-- B.\nSELECT 1;\n",
        "-- name: Bad Name\n-- A.\nSELECT 1;\n",
    ],
)
def test_a_statement_that_breaks_the_form_is_refused(text: str) -> None:
    """Named, described, exactly one."""
    with pytest.raises(StatementError):
        parse(text)


def test_no_statement_is_dead() -> None:
    """Each is named in the code."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("ledger", "relay", "tracker", "courier", "sidecar")
        for path in (ROOT / folder).rglob("*.py")
    )
    assert [name for name in statements() if f'"{name}"' not in code] == []


def test_no_statement_changes_its_session() -> None:
    """A connection goes back to the pool as it is: what outlives a transaction would meet whoever takes it next.

    But for what a connection of the relay begins with, before anybody has it.
    """
    lasting = re.compile(
        r"\A(?:SET(?! LOCAL)|LISTEN|DECLARE|PREPARE|CREATE|LOAD)\b|\bpg_(?:try_)?advisory_lock|\bset_config\(",
        re.IGNORECASE,
    )
    assert [name for name, statement in statements().items() if lasting.search(statement)] == ["go_by_index"]
