"""One submission of an identity at a time, and no two wait for each other."""

import asyncio

from ledger.ids import MessageKey
from relay.hands import Hands

A, B = MessageKey("a"), MessageKey("b")


async def test_the_next_one_waits() -> None:
    """A repeat gets its turn when the first is done."""
    hands = Hands()
    first = await hands.take([A], patience=1)
    assert first is not None
    waiting = asyncio.create_task(hands.take([A], patience=5))
    await asyncio.sleep(0)
    assert not waiting.done()
    hands.release(first)
    assert await waiting == [A]


async def test_patience_ends_and_takes_nothing() -> None:
    """Whoever gives up holds nothing."""
    hands = Hands()
    await hands.take([B], patience=1)
    assert await hands.take([A, B], patience=0.01) is None
    assert await hands.take([A], patience=0.01) == [A]


async def test_opposite_orders_do_not_deadlock() -> None:
    """Two submissions to the same two people, in opposite order, both finish."""
    hands = Hands()

    async def work(*keys: MessageKey) -> None:
        taken = await hands.take(keys, patience=5)
        assert taken is not None
        await asyncio.sleep(0)
        hands.release(taken)

    async with asyncio.timeout(4):
        await asyncio.gather(*(work(*pair) for _ in range(50) for pair in ((A, B), (B, A))))


async def test_an_identity_twice_in_one_submission_is_one() -> None:
    """The same key does not wait for itself."""
    assert await Hands().take([A, A], patience=0.1) == [A]
