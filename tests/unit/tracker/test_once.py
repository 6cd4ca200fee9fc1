"""A word is held while its request is in hand, burnt when it succeeded, and known until its time is over."""

import pytest

from tracker.once import WORD_SECONDS, Once, Word


class Shared:
    """What all workers know."""

    def __init__(self) -> None:
        self.words: dict[bytes, Word] = {}

    async def hold(self, word: bytes, seconds: int) -> Word:
        """Hold."""
        assert seconds < WORD_SECONDS
        known = self.words.get(word, Word.FREE)
        if known is Word.FREE:
            self.words[word] = Word.HELD
        return known

    async def burn(self, word: bytes, seconds: int) -> None:
        """Burn."""
        assert seconds == WORD_SECONDS
        self.words[word] = Word.BURNT

    async def free(self, word: bytes) -> None:
        """Let go."""
        self.words.pop(word, None)


class Worker:
    """One worker, its clock, and whether Redis answers it."""

    def __init__(self, shared: Shared, *, answers: bool = True, most: int = 1000) -> None:
        self.now = 0.0
        self.once = Once(shared, answers=lambda: answers, clock=lambda: self.now, most=most)

    async def spend(self, word: str, provider: str = "acme") -> Word:
        """Spend a word on a request that is recorded."""
        async with self.once.spend(provider, word) as known:
            return known


async def test_a_word_is_good_for_one_request() -> None:
    """And each provider has its own words."""
    worker = Worker(Shared())
    assert [await worker.spend("word") for _ in range(3)] == [Word.FREE, Word.BURNT, Word.BURNT]
    assert await worker.spend("word", "other") is Word.FREE
    assert await worker.spend("Word") is Word.FREE


@pytest.mark.parametrize("answers", [True, False])
async def test_a_word_is_held_while_its_request_is_in_hand(*, answers: bool) -> None:
    """Two copies that come together are not both recorded."""
    worker = Worker(Shared(), answers=answers)
    async with worker.once.spend("acme", "word") as known:
        assert known is Word.FREE
        assert await worker.spend("word") is Word.HELD
        assert await worker.spend("word") is Word.HELD
    assert await worker.spend("word") is Word.BURNT


@pytest.mark.parametrize("answers", [True, False])
async def test_a_word_whose_request_failed_is_free_again(*, answers: bool) -> None:
    """The provider sends it again, and then it must be good."""
    worker = Worker(Shared(), answers=answers)
    for _ in range(3):
        with pytest.raises(LookupError):
            async with worker.once.spend("acme", "word"):
                raise LookupError
    assert await worker.spend("word") is Word.FREE


async def test_all_workers_know_it_while_redis_answers() -> None:
    """Without Redis each knows its own."""
    shared = Shared()
    one, two, alone = Worker(shared), Worker(shared), Worker(shared, answers=False)
    assert await one.spend("word") is Word.FREE
    assert await two.spend("word") is Word.BURNT
    assert [await alone.spend("word") for _ in range(2)] == [Word.FREE, Word.BURNT]


async def test_what_redis_holds_is_short_and_not_the_word() -> None:
    """However long it is, and whatever is in it."""
    shared = Shared()
    await Worker(shared).spend("word \udcff" * 10_000)
    (name,) = shared.words
    assert len(name) == 16


async def test_a_word_is_forgotten_when_its_time_is_over() -> None:
    """The memory does not grow for ever."""
    worker = Worker(Shared(), answers=False)
    await worker.spend("word")
    worker.now = WORD_SECONDS - 1
    assert await worker.spend("word") is Word.BURNT
    worker.now = WORD_SECONDS
    assert await worker.spend("word") is Word.FREE


async def test_the_memory_is_bounded() -> None:
    """The oldest words go first."""
    worker = Worker(Shared(), answers=False, most=10)
    for number in range(25):
        await worker.spend(str(number))
    assert [await worker.spend(str(number)) for number in range(15, 25)] == [Word.BURNT] * 10
    assert await worker.spend("14") is Word.FREE
