"""Waiting for PostgreSQL: whatever its absence looks like, work is done again; whatever else fails, fails at once."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from relay.patience import patiently


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Return work that fails so, and is done then."""
    left = list(errors)

    async def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.InterfaceError("the pool is closing"),
        # What a connection that was cut in the middle of an answer says after a kill.
        asyncpg.InternalClientError("unexpected state"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_absence_is_waited_out(error: Exception) -> None:
    """The same work is done again until it is done."""
    assert await patiently(failing(error, error), seconds=10) == "done"


async def test_a_longer_one_is_told() -> None:
    """The caller hears the last error when its time is over."""
    with pytest.raises(ConnectionRefusedError):
        await patiently(failing(*[ConnectionRefusedError()] * 3), seconds=0.06)


async def test_what_is_no_absence_is_told_at_once() -> None:
    """Nothing is tried again that would fail again."""
    work = failing(asyncpg.DataError("no"))
    with pytest.raises(asyncpg.DataError):
        await patiently(work, seconds=10)
    assert await work() == "done"
