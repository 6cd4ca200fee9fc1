"""`probe` sends one real message, and says by which ids the provider's events find it."""

import asyncio
import io
from collections.abc import AsyncIterator
from email import message_from_bytes

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from tests.commands import command
from tests.conftest import Eventually, next_port
from tests.playing import PATIENCE
from tests.running import Outrider, outrider, short_directory
from tests.sink import Sink

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SECRET = "a-webhook-secret-for-tests"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An Outrider that takes Azure's events, and a server that plays Azure."""

    target: Outrider
    sink: Sink

    @property
    def words(self) -> list[str]:
        """What the command needs to find them."""
        url = f"smtp://127.0.0.1:{self.sink.port}?starttls=off&profile=azure"
        return ["--data-dir", str(self.target.data_dir), "--to", "ann@example.net", "--upstream", url]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run both."""
    with short_directory() as data_dir:
        async with Sink().listening() as sink, outrider(data_dir, next_port, webhooks__azure_secret=SECRET) as target:
            yield Scene(target=target, sink=sink)


def delivered(message_id: str) -> bytes:
    """Return Azure's word that a message was delivered."""
    event = {
        "id": f"event of {message_id}",
        "topic": "/subscriptions/s",
        "subject": "sender/news@example.com/message/M1",
        "eventType": "Microsoft.Communication.EmailDeliveryReportReceived",
        "dataVersion": "1.0",
        "metadataVersion": "1",
        "eventTime": "2026-11-22T10:00:00Z",
        "data": {
            "sender": "news@example.com",
            "recipient": "ann@example.net",
            "messageId": "M1",
            "internetMessageId": message_id,
            "status": "Delivered",
            "deliveryAttemptTimeStamp": "2026-11-22T10:00:00Z",
        },
    }
    return msgspec.json.encode([event])


async def test_it_says_by_which_id_an_event_found_it(scene: Scene, eventually: Eventually) -> None:
    """The Message-ID, the upstream's answer, the profile, and each event with its step; it belongs to no campaign."""
    running = asyncio.create_task(command("probe", *scene.words, "--wait", "12"))
    await eventually(lambda: scene.sink.kept, timeout=30)
    message_id = str(message_from_bytes(scene.sink.kept[-1].content)["Message-ID"])
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
        session.post(
            f"http://127.0.0.1:{scene.target.http}/webhooks/azure?key={SECRET}", data=io.BytesIO(delivered(message_id))
        ) as answer,
    ):
        assert answer.status == 200
    ended = await running
    assert ended.code == 0, ended.err
    assert f"Message-ID that we wrote: {message_id}" in ended.out
    assert "profile:                  azure; our Message-ID reaches its events" in ended.out
    assert "delivered from azure, found by message_id" in ended.out
    assert ended.out.endswith("azure: 1 found by message_id\n")


async def test_a_refusal_is_told_with_its_words(scene: Scene) -> None:
    """Also trouble: nobody wants a probe to be queued."""
    for words in ("550 5.1.1 No such user", "451 4.7.1 Later"):
        scene.sink.rcpt = lambda _, words=words: words  # type: ignore[misc] # bound for this round
        ended = await command("probe", *scene.words, "--wait", "0")
        assert ended.code == 1
        assert ended.out.startswith(f"refused: {words[:3]}")
    scene.sink.rcpt = lambda _: "250 2.1.5 Ok"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--to", "nobody"], "'nobody' is no address"),
        (["--upstream", "http://127.0.0.1"], "--upstream: expected smtp://host:port"),
        (["--wait", "soon"], "expected a number"),
    ],
)
async def test_what_cannot_be_meant_is_named(scene: Scene, more: list[str], said: str) -> None:
    """A word that is wrong is named, and nothing is sent."""
    before = len(scene.sink.commands)
    ended = await command("probe", *scene.words, "--wait", "0", *more)
    assert ended.code == 2
    assert said in ended.err
    assert len(scene.sink.commands) == before
