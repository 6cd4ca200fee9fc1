"""Promise 2, from the other end: what a provider tells is billed to the campaign of its message, or to none.

Two campaigns are under way and the older one is touched last. Azure names a message by one id when it is opened and by
another when it is delivered, minutes later: whoever takes the latest campaign, or the provider's id alone, is wrong.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from ledger.ids import key_text
from tests.conftest import next_port
from tests.playing import PATIENCE, accepted, asked, mail, until
from tests.running import Outrider, outrider, short_directory
from tests.sink import Sink

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("right_campaign"),
    pytest.mark.timeout(300),
]

SECRET = "a-webhook-secret-for-tests"
OURS, OLD = "65", "64"
#: How many messages campaign 65 had when it was billed to campaign 64.
MESSAGES = 8_209
#: Of so many opens one names its message by nothing of ours.
NAMELESS = 50
#: Recipients of one transaction, and events of one request: Event Grid sends up to 5,000.
RECIPIENTS, EVENTS = 1_000, 2_500

DELIVERY = "Microsoft.Communication.EmailDeliveryReportReceived"
ENGAGEMENT = "Microsoft.Communication.EmailEngagementTrackingReportReceived"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An Outrider before Azure."""

    target: Outrider

    async def tell(self, *events: dict[str, Any]) -> None:
        """Post events as Event Grid does."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
            session.post(
                f"http://127.0.0.1:{self.target.http}/webhooks/azure?key={SECRET}",
                data=io.BytesIO(msgspec.json.encode(events)),
                headers={"Content-Type": "application/json", "aeg-event-type": "Notification"},
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def campaign(self, campaign_id: str) -> dict[str, Any]:
        """Return what the operator sees of a campaign."""
        return dict(await asked(self.target, f"/api/campaigns/{campaign_id}"))

    async def keys(self, campaign_id: str) -> dict[str, str]:
        """Return the key of each recipient's message."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            rows = await session._connection.fetch(
                "SELECT m.key, m.recipient FROM message m JOIN campaign c ON c.id = m.campaign"
                " WHERE c.campaign_id = $1",
                campaign_id,
            )
        return {row["recipient"].decode(): key_text(row["key"]) for row in rows}

    async def parked(self) -> dict[str, int]:
        """Return how many events are parked for which reason."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            rows = await session._connection.fetch(
                "SELECT reason, count(*) AS events FROM parked_event GROUP BY reason"
            )
        return {row["reason"]: row["events"] for row in rows}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run an Outrider whose mail goes to a server that plays Azure."""
    with short_directory() as data_dir:
        async with (
            Sink().listening() as azure,
            outrider(
                data_dir,
                next_port,
                relay__upstream=f"smtp://127.0.0.1:{azure.port}?starttls=off&profile=azure",
                relay__verdict_wait="60",
                webhooks__azure_secret=SECRET,
            ) as target,
        ):
            yield Scene(target=target)


def _event(number: int, kind: str, recipient: str, provider_id: str, key: str | None, **told: str) -> dict[str, Any]:
    return {
        "id": f"{kind[-20:]}-{number}-{provider_id}",
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Communication/communicationServices/acs",
        "subject": f"sender/news@shop.example.com/message/{provider_id}",
        "eventType": kind,
        "dataVersion": "1.0",
        "metadataVersion": "1",
        "eventTime": "2026-11-22T10:00:00Z",
        "data": {
            "sender": "news@shop.example.com",
            "recipient": recipient,
            "messageId": provider_id,
            **({} if key is None else {"internetMessageId": f"<{key}@shop.example.com>"}),
            **told,
        },
    }


def _viewed(number: int, recipient: str, key: str | None) -> dict[str, Any]:
    at = "2026-11-22T10:00:59Z"
    return _event(number, ENGAGEMENT, recipient, f"E-{number}", key, engagementType="view", userActionTimeStamp=at)


def _delivered(number: int, recipient: str, key: str | None) -> dict[str, Any]:
    at = "2026-11-22T10:07:00Z"
    return _event(number, DELIVERY, recipient, f"D-{number}", key, status="Delivered", deliveryAttemptTimeStamp=at)


async def _post_all(scene: Scene, events: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(events), EVENTS):
        await scene.tell(*events[start : start + EVENTS])


async def test_every_event_lands_on_its_own_campaign(scene: Scene) -> None:
    """8,209 messages: engagement first, delivery later under other ids, the other campaign updated in between."""
    people = [f"reader.{number}@example.net" for number in range(MESSAGES)]
    old = [f"old.{number}@example.net" for number in range(20)]
    await accepted(scene.target.smtp, mail("old.1@mailer.example.com", campaign=OLD), *old[:10])
    for start in range(0, MESSAGES, RECIPIENTS):
        await accepted(
            scene.target.smtp, mail(f"{start}@mailer.example.com", campaign=OURS), *people[start : start + RECIPIENTS]
        )
    # The old campaign is the latest that was touched.
    await accepted(scene.target.smtp, mail("old.2@mailer.example.com", campaign=OLD), *old[10:])
    keys = await scene.keys(OURS)
    assert sorted(keys) == sorted(people)
    nameless = set(people[::NAMELESS])
    await _post_all(
        scene,
        [_viewed(number, who, None if who in nameless else keys[who]) for number, who in enumerate(people)],
    )
    await _post_all(scene, [_delivered(number, who, keys[who]) for number, who in enumerate(people)])

    async def all_recorded() -> bool:
        return bool((await scene.campaign(OURS))["delivered"] == MESSAGES)

    await until(all_recorded, 120)
    ours, theirs = await scene.campaign(OURS), await scene.campaign(OLD)
    assert ours["unique_opens"] == MESSAGES - len(nameless)
    assert ours["accepted"] == MESSAGES
    assert {name: theirs[name] for name in ("delivered", "opens", "unique_opens", "clicks", "machine_opens")} == {
        "delivered": 0,
        "opens": 0,
        "unique_opens": 0,
        "clicks": 0,
        "machine_opens": 0,
    }
    # Nothing of ours was in them: they are not guessed, also not by who they went to.
    assert await scene.parked() == {"unknown_id": len(nameless)}


async def test_an_open_that_comes_first_is_attributed_when_its_message_is_committed(scene: Scene) -> None:
    """The provider is quicker than our commit: within a second of it the event is on its message."""
    content = mail("early.1@mailer.example.com", campaign="66")
    before = await scene.parked()
    early = _event(1, ENGAGEMENT, "early@example.net", "E-early", None, engagementType="view")
    early["data"]["internetMessageId"] = "<early.1@mailer.example.com>"
    early["data"]["userActionTimeStamp"] = "2026-11-22T10:00:59Z"
    await scene.tell(early)

    async def parked() -> bool:
        return sum((await scene.parked()).values()) == sum(before.values()) + 1

    await until(parked)
    await accepted(scene.target.smtp, content, "early@example.net")
    async with asyncio.timeout(PATIENCE):

        async def opened() -> bool:
            return bool((await scene.campaign("66"))["unique_opens"] == 1)

        await until(opened)
    async with scene.target.ledger() as ledger, ledger.session() as session:
        waited = await session._connection.fetchval(
            "SELECT extract(epoch FROM e.recorded_at - m.accepted_at) FROM event e JOIN message m ON m.id = e.message"
            " JOIN campaign c ON c.id = m.campaign WHERE c.campaign_id = '66' AND e.type = 'opened'"
        )
    # It is a second on a machine that has nothing else to do.
    assert waited < 5
    assert await scene.parked() == before
