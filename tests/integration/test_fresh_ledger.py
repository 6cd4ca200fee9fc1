"""A ledger that was just made: its tables are empty when plans are made, and nobody has counted them since."""

from pathlib import Path

import pytest

from relay.capture import CaptureUpstream
from relay.forward import Upstream
from relay.upstream import BeforeDot, Letter, Outcome, Trouble
from tests.mailings import Connection
from tests.relaying import relaying, submission

#: PostgreSQL keeps a plan from the sixth time on.
MANY = 20


class Away:
    """An upstream that is not there."""

    name = "away"

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:  # noqa: ARG002 - the protocol's arguments
        """Have no connection."""
        return Trouble(reason="connect", unwell=True)

    async def close(self) -> None:
        """Have nothing open."""


@pytest.mark.parametrize("there", [True, False])
async def test_no_message_costs_a_look_at_all_the_others(
    database_url: str, look: Connection, tmp_path: Path, *, there: bool
) -> None:
    """Sent at once or queued, new or a repeat: each is found by its key, so that the next costs what the first did."""
    upstream: Upstream = CaptureUpstream(tmp_path) if there else Away()
    async with relaying(database_url, upstream) as relay:
        for number in range(MANY):
            mail = submission(f"reader{number}@example.net", f"other{number}@example.net")
            for _ in range(2):
                assert (await relay.pipeline.accept(mail)).code == 250
        assert await relay.statuses() == ["sent" if there else "queued"] * 2 * MANY
    # Whoever leaves tells what he has read.
    read = await look.fetch(
        "SELECT relname FROM pg_stat_user_tables"
        " WHERE relname IN ('message', 'delivery', 'alias', 'campaign', 'body_default') AND seq_tup_read > 0"
    )
    assert not [row["relname"] for row in read]
