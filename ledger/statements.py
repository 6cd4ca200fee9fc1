"""Load the statements of queries.sql by name.

Every statement is named and described there; no SQL stands in a Python file but the migrations runner's own.
"""

import re
from functools import cache
from pathlib import Path
from types import MappingProxyType

_HEADER = re.compile(r"^-- name: (?P<name>[a-z_]+)$")


class StatementError(Exception):
    """queries.sql is not made of named, described statements."""


def parse(text: str) -> dict[str, str]:
    """Return the statements of *text* by name; raise `StatementError` for one without a description or a twin."""
    found: dict[str, str] = {}
    for block in re.split(r"(?m)^(?=-- name: )", text)[1:]:
        head, _, rest = block.partition("\n")
        match = _HEADER.match(head)
        if match is None:
            raise StatementError(f"not a statement's header: {head!r}")
        name = match["name"]
        if not rest.startswith("-- "):
            raise StatementError(f"{name} has no description")
        lines = [line for line in rest.splitlines() if not line.startswith("--")]
        statement = "\n".join(lines).strip().removesuffix(";")
        if not statement or ";" in statement:
            raise StatementError(f"{name} is not exactly one statement")
        if name in found:
            raise StatementError(f"{name} stands twice")
        found[name] = statement
    return found


@cache
def statements() -> MappingProxyType[str, str]:
    """Return every statement of the ledger by its name."""
    text = Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
    return MappingProxyType(parse(text))
