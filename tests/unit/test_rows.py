"""docs/events.md names a test for every odd thing that is known to arrive; `test_docs` holds that each exists."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "events.md"


def rows() -> dict[str, str]:
    """Return the last column of every numbered row."""
    return dict(re.findall(r"^\| ([WE]\d+) \|.*\| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_number_has_its_row_and_every_row_a_test() -> None:
    """W1 to W14, E1 to E12: none is left out, and none is a promise only."""
    found = rows()
    assert list(found) == [*(f"W{number}" for number in range(1, 15)), *(f"E{number}" for number in range(1, 13))]
    for number, tests in found.items():
        names = re.findall(r"`tests/[a-z0-9_/]+\.py::test_\w+`", tests)
        assert names, number
        assert tests == ", ".join(names), number
