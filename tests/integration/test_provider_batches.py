"""One mailing to fifty people at once: each event of each of them is of his own message, or of nobody's."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest_asyncio

from courier.sighting import Reader
from injector.tokens import Keyring
from ledger.ids import key_text, recipient_index
from tests.provider_sides import SIDES, Side
from tests.relaying import IDENTITY, SIGNING, relaying, submission
from tests.rows import Pool
from tests.sink import Sink
from tests.unit.providers.samples import ses
from tests.webhooking import Door, World, all_of, world

FIFTY = tuple(f"reader{number}@example.net" for number in range(1, 51))
SHARED = "0100019b7c1a2b3c-99999999-2222-4333-8444-555555555555-000000"


@pytest_asyncio.fixture
async def endpoint(redis_url: str, database_url: str, pool: Pool, tmp_path: Path) -> AsyncIterator[World]:
    """Return a world in which the courier has the relay's keys."""
    reader = Reader(identity=IDENTITY, keyring=Keyring([SIGNING]))
    async with world(redis_url, database_url, pool, tmp_path, reader) as made:
        yield made


def ses_id(recipient: str) -> str:
    """Return the id that SES gives the message to one of them."""
    number = FIFTY.index(recipient) + 1
    return f"0100019b7c1a2b3c-{number:08d}-2222-4333-8444-555555555555-000000"


async def send(database_url: str, *, profile: str, answer: str) -> None:
    """Submit one mail to all fifty and have it sent; in *answer* `{id}` is each message's own."""
    async with Sink().listening() as sink:
        sink.dot = lambda recipient: answer.format(id=ses_id(recipient))
        async with relaying(database_url, f"smtp://127.0.0.1:{sink.port}{profile}") as relay:
            assert (await relay.pipeline.accept(submission(*FIFTY))).code == 250
        assert sorted(one.recipient for one in sink.kept) == sorted(FIFTY)


def bare(message: str, *destination: str, **changed: object) -> dict[str, object]:
    """Return what SES repeats of a mail where it cut the headers away and knows no tags."""
    absent: dict[str, object] = {"headers": None, "commonHeaders": None, "tags": None, "headersTruncated": True}
    return ses.mail(*destination, **(absent | {"messageId": message} | changed))


def delivery(mail: dict[str, object], *recipients: str) -> dict[str, object]:
    """Return a delivery."""
    return ses.event("Delivery", "delivery", {"recipients": list(recipients)}, mail=mail)


def opened(mail: dict[str, object]) -> dict[str, object]:
    """Return an open; SES does not say whose."""
    seen = {"userAgent": "Mozilla/5.0 (example)", "ipAddress": "192.0.2.7", "timestamp": "2026-01-02T03:05:00.000Z"}
    return ses.event("Open", "open", seen, mail=mail)


def bounced(mail: dict[str, object], *recipients: str) -> dict[str, object]:
    """Return a bounce."""
    people: list[dict[str, object]] = [{"emailAddress": one, "status": "4.4.7"} for one in recipients]
    return ses.event("Bounce", "bounce", ses.bounce("Transient", "General", *people), mail=mail)


async def tell(endpoint: World, door: Door, side: Side, events: Sequence[object]) -> None:
    """Post them all and record them."""
    answers = await all_of(door, "ses", [side.post(one) for one in events])
    assert {answer.status for answer in answers} == {200}
    await endpoint.record()


async def told(endpoint: World) -> dict[str, list[tuple[str, str]]]:
    """Return type and step of each of the fifty's events."""
    names = {recipient_index(IDENTITY, recipient): recipient for recipient in FIFTY}
    rows = await endpoint.pool.fetch(
        "SELECT m.recipient_index, e.type, e.step FROM event e JOIN message m ON m.id = e.message ORDER BY e.type"
    )
    found: dict[str, list[tuple[str, str]]] = {recipient: [] for recipient in FIFTY}
    for row in rows:
        found[names[row["recipient_index"]]].append((row["type"], row["step"]))
    return found


async def parked(endpoint: World) -> list[str]:
    """Return why the parked events are."""
    return sorted(row["reason"] for row in await endpoint.pool.fetch("SELECT reason FROM parked_event"))


def each(*expected: tuple[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Return that every one of the fifty has exactly these events."""
    return {recipient: sorted(expected) for recipient in FIFTY}


async def test_all_fifty_are_found_by_the_answers_to_them(endpoint: World, database_url: str) -> None:
    """SES names nothing but its id, and every message has its own."""
    await send(database_url, profile="?profile=ses", answer="250 Ok {id}")
    side = SIDES["ses"]()
    endpoint.shelf.documents = dict(side.documents)
    mails = {recipient: bare(ses_id(recipient), recipient) for recipient in FIFTY}
    async with endpoint.open({"ses": side.trust}) as door:
        await tell(endpoint, door, side, [opened(mail) for mail in mails.values()])
        await tell(endpoint, door, side, [delivery(mail, recipient) for recipient, mail in mails.items()])
    assert await told(endpoint) == each(("opened", "reply_id"), ("delivered", "reply_id"))
    assert await parked(endpoint) == []


async def test_an_id_that_all_fifty_share_finds_each_by_the_recipient(endpoint: World, database_url: str) -> None:
    """Also when one event tells of all of them; who of them opened is not said, and not guessed."""
    await send(database_url, profile="?profile=ses", answer=f"250 Ok {SHARED}")
    side = SIDES["ses"]()
    endpoint.shelf.documents = dict(side.documents)
    mail = bare(SHARED, *FIFTY)
    async with endpoint.open({"ses": side.trust}) as door:
        await tell(endpoint, door, side, [delivery(mail, recipient) for recipient in FIFTY])
        await tell(endpoint, door, side, [bounced(mail, *FIFTY), opened(mail), delivery(mail, "eve@example.net")])
    assert await told(endpoint) == each(("delivered", "reply_id"), ("bounced", "reply_id"))
    assert await parked(endpoint) == ["ambiguous", "other_recipient"]


async def test_a_batch_is_learnt_from_those_that_named_themselves(endpoint: World, database_url: str) -> None:
    """The upstream's answer held no id: our tag names each once, and from then on the batch and the recipient do."""
    await send(database_url, profile="", answer="250 2.0.0 Thanks")
    side = SIDES["ses"]()
    endpoint.shelf.documents = dict(side.documents)
    rows = await endpoint.pool.fetch("SELECT recipient_index, key FROM message")
    keys = {row["recipient_index"]: key_text(row["key"]) for row in rows}
    mail = bare(SHARED, *FIFTY)

    def tagged(recipient: str) -> dict[str, object]:
        tags = {"outrider": [keys[recipient_index(IDENTITY, recipient)]]}
        return delivery(bare(SHARED, *FIFTY, tags=tags), recipient)

    async with endpoint.open({"ses": side.trust}) as door:
        # One is known: what does not say who is meant may still be anybody's.
        await tell(endpoint, door, side, [tagged(FIFTY[0])])
        await tell(endpoint, door, side, [opened(mail)])
        assert await parked(endpoint) == ["ambiguous"]
        await tell(endpoint, door, side, [tagged(recipient) for recipient in FIFTY[1:-1]])
        await tell(endpoint, door, side, [bounced(mail, *FIFTY)])
        found = await told(endpoint)
        assert found.pop(FIFTY[-1]) == []
        assert found == {one: [("bounced", "batch"), ("delivered", "token")] for one in FIFTY[:-1]}
        assert await parked(endpoint) == ["ambiguous", "other_recipient"]
        await tell(endpoint, door, side, [tagged(FIFTY[-1])])
        await endpoint.recorder.match_parked()
    assert await told(endpoint) == each(("bounced", "batch"), ("delivered", "token"))
    assert await parked(endpoint) == ["ambiguous"]
