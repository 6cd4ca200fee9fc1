"""Documents are asked for once, whoever wants them; failures are remembered too; visits end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tests.conftest import Eventually
from tracker.documents import AGAIN_SECONDS, FRESH_SECONDS, STALE_SECONDS, Documents
from tracker.fetch import DocumentError

URL = "https://keys.example.com/a.pem"


class World:
    """What stands at every address, and who asked; it can be told to hold its answers back."""

    def __init__(self) -> None:
        self.now = 0.0
        self.content: bytes | None = b"first"
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.documents = Documents(self, clock=lambda: self.now, visit_pauses=(0.0, 0.0, 0.0))

    async def fetch(self, url: str) -> bytes:
        """Answer when it is time."""
        self.asked.append(url)
        await self.go.wait()
        if self.content is None:
            raise DocumentError("it answered 404")
        return self.content


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Return a world with documents."""
    made = World()
    yield made
    await made.documents.close()


async def test_a_fresh_document_is_not_asked_for_again(world: World) -> None:
    """One question in ten minutes."""
    for world.now in (0.0, 1.0, FRESH_SECONDS - 1):
        assert await world.documents.get(URL) == b"first"
    assert len(world.asked) == 1
    world.now, world.content = FRESH_SECONDS, b"second"
    assert await world.documents.get(URL) == b"second"


async def test_whoever_doubts_it_gets_a_newer_one(world: World) -> None:
    """A key may have been changed; but nobody asks more than once a minute."""
    await world.documents.get(URL)
    world.now, world.content = AGAIN_SECONDS - 1, b"second"
    assert await world.documents.get(URL, older_than=AGAIN_SECONDS) == b"first"
    world.now = AGAIN_SECONDS
    assert await world.documents.get(URL, older_than=AGAIN_SECONDS) == b"second"


async def test_a_crowd_asks_once(world: World) -> None:
    """One question for all; who hangs up takes nothing from the others."""
    world.go.clear()
    crowd = [asyncio.create_task(world.documents.get(URL)) for _ in range(50)]
    await asyncio.sleep(0)
    crowd[0].cancel()
    await asyncio.sleep(0)
    world.go.set()
    answers = await asyncio.gather(*crowd, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [b"first"] * 49
    assert len(world.asked) == 1


async def test_a_failure_is_remembered_for_a_minute(world: World) -> None:
    """Nor is what failed asked for again at once, and it is told once."""
    world.content = None
    with capture_logs() as logged:
        for world.now in (0.0, 1.0, AGAIN_SECONDS - 1):
            with pytest.raises(DocumentError, match="404"):
                await world.documents.get(URL)
    assert len(world.asked) == 1
    assert [(one["event"], one["host"]) for one in logged] == [("document_not_had", "keys.example.com")]
    world.now, world.content = AGAIN_SECONDS, b"there"
    assert await world.documents.get(URL) == b"there"


async def test_an_old_document_serves_while_there_is_no_new_one(world: World) -> None:
    """For a day, and no longer."""
    await world.documents.get(URL)
    world.content = None
    world.now = STALE_SECONDS
    assert await world.documents.get(URL) == b"first"
    world.now = STALE_SECONDS + AGAIN_SECONDS
    with pytest.raises(DocumentError):
        await world.documents.get(URL)


async def test_only_so_many_are_asked_for_at_once(world: World, eventually: Eventually) -> None:
    """The next one is told to come back."""
    world.go.clear()
    asking = [asyncio.create_task(world.documents.get(f"https://keys.example.com/{n}")) for n in range(4)]
    await eventually(lambda: len(world.asked) == 4)
    with pytest.raises(DocumentError, match="too many"):
        await world.documents.get("https://keys.example.com/one-more")
    world.go.set()
    assert await asyncio.gather(*asking) == [b"first"] * 4
    assert await world.documents.get("https://keys.example.com/one-more") == b"first"


async def test_the_memory_for_documents_is_bounded(world: World) -> None:
    """The one that was not used longest goes."""
    for number in range(40):
        await world.documents.get(f"https://keys.example.com/{number}")
    await world.documents.get("https://keys.example.com/39")
    assert len(world.asked) == 40
    await world.documents.get("https://keys.example.com/0")
    assert len(world.asked) == 41


async def test_a_visit_is_made_once(world: World, eventually: Eventually) -> None:
    """However often the same confirmation comes."""
    with capture_logs() as logged:
        world.go.clear()
        for _ in range(3):
            world.documents.visit(URL, "acme")
        await eventually(lambda: world.asked)
        world.go.set()
        await eventually(lambda: logged)
    assert world.asked == [URL]
    assert [(one["event"], one["provider"]) for one in logged] == [("subscription_confirmed", "acme")]


async def test_a_visit_that_fails_is_tried_a_few_times_and_told(world: World, eventually: Eventually) -> None:
    """An operator must know, and the log must not hold the token."""
    world.content = None
    with capture_logs() as logged:
        world.documents.visit(URL + "?Token=abc", "acme")
        await eventually(lambda: logged)
    assert len(world.asked) == 3
    assert [(one["event"], one["reason"]) for one in logged] == [("subscription_not_confirmed", "it answered 404")]
    assert "Token" not in repr(logged)


async def test_visits_are_bounded_and_end_with_the_process(world: World) -> None:
    """Nothing runs on when the process stops."""
    world.go.clear()
    with capture_logs() as logged:
        for number in range(20):
            world.documents.visit(f"https://confirm.example.com/{number}", "acme")
    assert [one["reason"] for one in logged] == ["too many at once"] * 4
    await world.documents.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
