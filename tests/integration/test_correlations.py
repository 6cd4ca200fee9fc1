"""The recipients of a submission are correlated together, and each stands for itself."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from ledger.store import UNAVAILABLE
from relay import stamp
from relay.capture import CaptureUpstream
from relay.correlate import Done, Ready, Standing, correlate
from relay.settings import RelaySettings
from tests.relaying import IDENTITY, Relay, relaying, submission

EVERYBODY = ("ann@example.net", "bea@example.net", "eve@example.net")


@pytest.fixture
async def relay(database_url: str, tmp_path: Path) -> AsyncIterator[Relay]:
    """Return a relay that keeps what it sends."""
    async with relaying(database_url, CaptureUpstream(tmp_path)) as running:
        yield running


async def correlated(
    relay: Relay, recipients: Sequence[str], *, ledger_wait: float = 5.0
) -> list[Standing | BaseException]:
    """Correlate one submission to *recipients*."""
    draft = stamp.draft_of(
        submission(*recipients), settings=RelaySettings(), ams_headers=("X-Id-Mail",), profile=relay.profile
    )
    return await correlate(
        draft,
        [stamp.address(draft, each, identity_key=IDENTITY, generation=0) for each in recipients],
        ledger=relay.mail,
        identity_key=IDENTITY,
        campaign=None,
        submission=None,
        patience=0.0,
        ledger_wait=ledger_wait,
    )


async def test_what_is_known_stands_among_what_is_new(relay: Relay) -> None:
    """Two are new and go; the one that was sent before is not sent again."""
    assert (await relay.pipeline.accept(submission(EVERYBODY[1]))).code == 250
    standings = await correlated(relay, EVERYBODY)
    assert [type(standing) for standing in standings] == [Ready, Done, Ready]
    assert [one.addressed.recipient for one in standings if not isinstance(one, BaseException)] == list(EVERYBODY)
    assert len(await relay.statuses()) == len(EVERYBODY)


async def test_a_ledger_that_hangs_is_left_behind(relay: Relay, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Nobody knows then; what was entered is found when the ledger answers again, and is still ours to send."""
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
        standings = await correlated(relay, EVERYBODY, ledger_wait=0.05)
        assert len(standings) == len(EVERYBODY)
        assert all(isinstance(standing, UNAVAILABLE) for standing in standings)
    standings = await correlated(relay, EVERYBODY)
    assert [type(standing) for standing in standings] == [Ready, Ready, Ready]
    assert len(await relay.statuses()) == len(EVERYBODY)
