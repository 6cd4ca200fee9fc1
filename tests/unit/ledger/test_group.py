"""Group commit: everybody waits for a real write, and one bad member fails alone."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.group import GroupCommit


class BadMemberError(Exception):
    """A value that the store refuses."""


class Store:
    """Keeps groups, refuses the member 13, and waits at a gate."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def write(self, members: Sequence[int]) -> Sequence[int]:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if 13 in members:
            raise BadMemberError
        self.groups.append(list(members))
        return [member * 2 for member in members]


async def test_what_arrives_during_a_write_goes_together() -> None:
    """The first goes alone, all that came meanwhile go in one group."""
    store = Store()
    store.gate.clear()
    group = GroupCommit(store.write)
    waiting = [asyncio.create_task(group.add(number)) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = [asyncio.create_task(group.add(number)) for number in range(5, 8)]
    await asyncio.sleep(0)
    store.gate.set()
    assert await asyncio.gather(*waiting, *late) == [number * 2 for number in range(8)]
    assert len(store.groups) == 2


async def test_a_group_is_bounded() -> None:
    """No statement grows without bound."""
    store = Store()
    group = GroupCommit(store.write, limit=3)
    await asyncio.gather(*(group.add(number) for number in range(10)))
    assert max(map(len, store.groups)) <= 3


async def test_one_bad_member_fails_alone() -> None:
    """Its neighbours are stored."""
    store = Store()
    group = GroupCommit(store.write, divisible=(BadMemberError,))
    results = await asyncio.gather(*(group.add(number) for number in range(20)), return_exceptions=True)
    assert [number for number, result in enumerate(results) if isinstance(result, BadMemberError)] == [13]
    assert sorted(member for stored in store.groups for member in stored) == [n for n in range(20) if n != 13]


async def test_an_outage_fails_the_group_and_not_the_next() -> None:
    """A lost connection is told to everybody who waits; the next member is tried again."""
    store = Store()
    store.error = ConnectionError()
    group = GroupCommit(store.write, divisible=(BadMemberError,))
    results = await asyncio.gather(group.add(1), group.add(2), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, ConnectionError]
    store.error = None
    assert await group.add(3) == 6


async def test_a_caller_that_gives_up_harms_nobody() -> None:
    """A cancelled member's neighbours get their results."""
    store = Store()
    store.gate.clear()
    group = GroupCommit(store.write)
    first, second = asyncio.create_task(group.add(1)), asyncio.create_task(group.add(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.gate.set()
    assert await second == 4
    await group.close()


@given(st.lists(st.integers(0, 15), max_size=40), st.integers(1, 7))
def test_every_member_gets_its_own_result(members: list[int], limit: int) -> None:
    """Invariant: whatever the group sizes, a result belongs to its member, and only 13 fails."""

    async def scenario() -> None:
        group = GroupCommit(Store().write, divisible=(BadMemberError,), limit=limit)
        results = await asyncio.gather(*(group.add(member) for member in members), return_exceptions=True)
        for member, result in zip(members, results, strict=True):
            assert isinstance(result, BadMemberError) if member == 13 else result == member * 2

    asyncio.run(scenario())
