"""Large contents wait on disk, wait their turn, and who guesses passwords waits too."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import replies
from relay.auth import Lockout
from relay.budget import Budget, Turns
from relay.reader import DataReader
from relay.spool import Spool


@given(pieces=st.lists(st.binary(max_size=20)), threshold=st.integers(0, 60), skip=st.integers(0, 5))
def test_what_is_held_comes_back(pieces: list[bytes], threshold: int, skip: int) -> None:
    """From memory or from a file, in order, and once."""
    spool = Spool(threshold=threshold)
    for piece in pieces:
        spool.add(piece)
    assert len(spool) == sum(map(len, pieces))
    assert spool.take(skip=skip) == b"".join(pieces)[skip:]
    assert (len(spool), spool.take(skip=0)) == (0, b"")


def test_a_large_content_leaves_no_name_behind(tmp_path: Path) -> None:
    """Whoever kills the process leaves nothing of the mail on the disk."""
    spool = Spool(tmp_path, threshold=10)
    spool.add(b"x" * 100)
    assert list(tmp_path.iterdir()) == []
    assert spool.take(skip=0) == b"x" * 100


def test_no_room_refuses_the_message_and_reads_it_to_its_end(tmp_path: Path) -> None:
    """What follows must not be taken for commands."""
    reader = DataReader(Spool(tmp_path / "gone", threshold=10), max_bytes=10_000)
    assert reader.feed(b"Subject: x\r\n\r\n" + b"x" * 100) is None
    assert reader.feed(b"MAIL FROM:<a@example.com>\r\n.\r\nQUIT\r\n") == len(b"MAIL FROM:<a@example.com>\r\n.\r\n")
    assert reader.result() == replies.NO_ROOM


async def test_a_budget_is_kept_and_nobody_overtakes() -> None:
    """Two fit, the third waits for room, and one that is larger than all waits for everybody."""
    budget = Budget(100)
    order: list[str] = []
    leave = {name: asyncio.Event() for name in "abcde"}

    async def work(name: str, octets: int) -> None:
        async with budget.of(octets):
            order.append(name)
            await leave[name].wait()

    async def settled() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    tasks = []
    for name, octets in (("a", 50), ("b", 50), ("c", 200), ("d", 10)):
        tasks.append(asyncio.create_task(work(name, octets)))
        await settled()
    assert order == ["a", "b"]
    leave["a"].set()
    await settled()
    assert order == ["a", "b"], "what is larger than the budget goes alone, and first comes first"
    leave["b"].set()
    await settled()
    assert order == ["a", "b", "c"]
    leave["c"].set()
    await settled()
    assert order == ["a", "b", "c", "d"]
    leave["d"].set()
    await asyncio.gather(*tasks)


async def test_who_stops_waiting_takes_nothing() -> None:
    """A cancelled waiter leaves the budget as it was."""
    budget = Budget(100)
    async with budget.of(100):
        waiting = asyncio.create_task(_hold(budget))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(5), budget.of(100):
        pass


async def _hold(budget: Budget) -> None:
    async with budget.of(1):
        pass


class TestLockout:
    """An address that guesses is not listened to for a while."""

    def test_it_begins_with_the_last_failure_and_ends_with_the_window(self) -> None:
        """Counted from the first failure."""
        lockout = Lockout(failures=3, seconds=60)
        for now in (0.0, 1.0):
            lockout.count("192.0.2.7", now)
        assert not lockout.holds("192.0.2.7", 1.0)
        lockout.count("192.0.2.7", 2.0)
        assert lockout.holds("192.0.2.7", 59.9)
        assert not lockout.holds("192.0.2.7", 60.0)
        assert not lockout.holds("192.0.2.8", 2.0)

    @pytest.mark.parametrize("client", ["127.0.0.1", "::1", ""])
    def test_this_machine_is_exempt(self, client: str) -> None:
        """A mailer here with an old password must not keep its neighbours out."""
        lockout = Lockout(failures=1, seconds=60)
        lockout.count(client, 0.0)
        assert not lockout.holds(client, 0.0)

    def test_its_memory_is_bounded(self) -> None:
        """A swarm pushes out the oldest."""
        lockout = Lockout(failures=1, seconds=60)
        for number in range(10_001):
            lockout.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
        assert not lockout.holds("10.0.0.0", 0.0)
        assert lockout.holds("10.0.0.1", 0.0)


async def test_between_two_turns_of_large_contents_the_others_are_looked_at() -> None:
    """However many contents come in: for each of their blocks, everybody else gets a look."""
    turns = Turns()
    blocks = looks = 0

    async def content() -> None:
        nonlocal blocks
        for _ in range(10):
            blocks += 1
            await turns.end()

    contents = [asyncio.create_task(content()) for _ in range(50)]
    await asyncio.sleep(0)
    assert blocks == 50
    while not all(task.done() for task in contents):
        before = blocks
        await asyncio.sleep(0)
        assert blocks - before <= 1
        looks += 1
    assert blocks == 500
    assert looks >= 450
