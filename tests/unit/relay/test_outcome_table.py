"""docs/relay.md names a test for each outcome, and each of them exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FILES = {
    "U": ROOT / "tests/integration/test_upstreams.py",
    "R": ROOT / "tests/integration/test_upstream_rates.py",
    "K": ROOT / "tests/integration/test_campaign_rate.py",
    "C": ROOT / "tests/contract/test_upstream.py",
    "P": ROOT / "tests/contract/test_upstream_connections.py",
}
TABLE = (ROOT / "docs/relay.md").read_text(encoding="utf-8").partition("## Outcomes")[2].partition("\n## ")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| the upstream |")]


def test_there_are_rows() -> None:
    """The page was read."""
    assert len(ROWS) >= 30


@pytest.mark.parametrize("row", ROWS)
def test_each_row_names_a_test(row: str) -> None:
    """By file and name; the case by the words that stand in it."""
    match = re.search(r"`([URKCP])::(test_\w+)(?:\[([^\]]*)\])?` \|\Z", row)
    assert match is not None
    text = FILES[match[1]].read_text(encoding="utf-8")
    assert f"def {match[2]}(" in text
    assert match[3] is None or f'"{match[3]}"' in text
