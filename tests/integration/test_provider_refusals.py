"""What does not prove itself, comes again or is nothing that a provider sends: the documented answer, and no change."""

import random
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from ledger.ids import MessageKey
from providers.webhook import Trust
from tests.provider_sides import SIDES, Side, octets
from tests.rows import Row
from tests.unit.providers.samples import (
    azure,
    brevo,
    mailgun,
    mailjet,
    postal,
    postmark,
    resend,
    sendgrid,
    ses,
    sparkpost,
)
from tests.unit.providers.walk import STRANGE, paths, replaced, strange_bodies
from tests.webhooking import ANN, BOB, Post, World, all_of
from tracker.bodies import MAX_BODY

#: An ordinary event of each, of the message with the key beside it; of SES and Mailgun what stands in the envelope.
GOOD: dict[str, tuple[str, Any]] = {
    "azure": (azure.KEY, dict(azure.EVENTS)["delivered"]),
    "ses": (ses.KEY, dict(ses.INNER)["delivery"]),
    "mailgun": (mailgun.KEY, dict(mailgun.NOTED)["delivered"]),
    "postal": (postal.KEY, dict(postal.EVENTS)["sent"]),
    "sendgrid": (sendgrid.KEY, dict(sendgrid.EVENTS)["delivered"]),
    "postmark": (postmark.KEY, dict(postmark.EVENTS)["delivery"]),
    "brevo": (brevo.KEY, dict(brevo.EVENTS)["delivered"]),
    "mailjet": (mailjet.KEY, dict(mailjet.EVENTS)["sent"]),
    "sparkpost": (sparkpost.KEY, dict(sparkpost.EVENTS)["delivery"]),
    "resend": (resend.KEY, dict(resend.EVENTS)["delivered"]),
}
EVERYBODY = pytest.mark.parametrize("name", GOOD)
SIGNED = ("ses", "mailgun", "postal", "sendgrid", "resend")
#: What parks an event; a bug of ours would park it with another reason.
_HONEST = {"no_id", "unknown_id", "other_recipient", "ambiguous"}
_MINUTE, _HOUR = 60.0, 3600.0


async def seeded(endpoint: World, name: str) -> tuple[Row, Side, Any]:
    """Return the message that the good event is of, a side of the provider, and the event."""
    key, event = GOOD[name]
    side = SIDES[name]()
    endpoint.shelf.documents |= side.documents
    await endpoint.rows.message(BOB)
    return await endpoint.rows.message(ANN, key=MessageKey(key)), side, event


async def refused(endpoint: World, name: str, trust: Trust, *posts: Post) -> int:
    """Return the one status that all of these were answered with, having seen that nothing changed."""
    before = await endpoint.standing()
    async with endpoint.open({name: trust}) as door:
        statuses = {(await door.post(name, post)).status for post in posts}
    assert await endpoint.record() == 0
    assert await endpoint.standing() == before
    (status,) = statuses
    return status


@EVERYBODY
async def test_a_repeat_is_answered_and_counts_once(name: str, endpoint: World) -> None:
    """The same octets again, at once and after they were recorded."""
    _, side, event = await seeded(endpoint, name)
    post = side.post(event)
    async with endpoint.open({name: side.trust}) as door:
        answers = [await door.post(name, post) for _ in range(2)]
        await endpoint.record()
        once = await endpoint.told()
        answers.append(await door.post(name, post))
        await endpoint.record()
    assert {answer.status for answer in answers} == {200}
    assert once.startswith("delivered by ")
    assert await endpoint.told() == once


async def test_a_token_of_mailgun_s_proves_one_body(endpoint: World) -> None:
    """The signature does not cover the body: under a token that was used, another body is answered and forgotten."""
    _, side, event = await seeded(endpoint, "mailgun")
    post = side.post(event)
    forged = post.body.replace(b'"delivered"', b'"complained"').replace(b"G9-", b"G8-")
    assert forged != post.body
    async with endpoint.open({"mailgun": side.trust}) as door:
        assert (await door.post("mailgun", post)).status == 200
        await endpoint.record()
        before = await endpoint.standing()
        assert (await door.post("mailgun", Post(body=forged))).status == 200
    assert await endpoint.record() == 0
    assert await endpoint.standing() == before
    assert await endpoint.told() == "delivered by message_id"


@EVERYBODY
async def test_another_s_key_proves_nothing(name: str, endpoint: World) -> None:
    """Nor does none at all."""
    _, side, event = await seeded(endpoint, name)
    if name == "ses":
        # Its certificate is the secret: the one at Amazon's address is another's.
        stranger = ses.certificate(postal.fresh_key(), time.time())
        endpoint.shelf.documents = {ses.CERTIFICATE_URL: stranger}
        posts = [side.post(event)]
    else:
        posts = [SIDES[name]().post(event)]
    assert await refused(endpoint, name, side.trust, *posts, Post(body=octets(event))) == 401


async def test_a_closed_webhook_does_not_exist(endpoint: World) -> None:
    """Without a secret there is no address, for the right secret neither."""
    for name, (_, event) in GOOD.items():
        assert await refused(endpoint, name, Trust(), SIDES[name]().post(event)) == 404, name


@EVERYBODY
async def test_each_secret_of_a_rotation_opens_it(name: str, endpoint: World) -> None:
    """The new one and the old one, and no third."""
    _, old, event = await seeded(endpoint, name)
    new = SIDES[name]()
    both = Trust(
        secrets=(*new.trust.secrets, *old.trust.secrets), topics=("arn:aws:sns:eu-west-1:1:new", *old.trust.topics)
    )
    async with endpoint.open({name: both}) as door:
        assert [(await door.post(name, side.post(event))).status for side in (new, old)] == [200, 200]
    assert await endpoint.record() > 0
    assert (await endpoint.told()).startswith("delivered by ")


#: Seconds by which the clock of a proof is off, where it has one. What a provider may still send again is believed.
STALE: Mapping[str, tuple[float, ...]] = {
    "mailgun": (-10 * _HOUR, 6 * _MINUTE),
    "sendgrid": (-26 * _HOUR, 6 * _MINUTE),
    "resend": (-6 * _MINUTE, 6 * _MINUTE),
}


@pytest.mark.parametrize("name", STALE)
async def test_a_stale_proof_is_none(name: str, endpoint: World) -> None:
    """Too old, or of a time to come."""
    _, side, event = await seeded(endpoint, name)
    posts = [side.seal(event, time.time() + off) for off in STALE[name]]
    assert await refused(endpoint, name, side.trust, *posts) == 401


@pytest.mark.parametrize("ends", [timedelta(hours=-1), timedelta(days=365)])
async def test_a_certificate_out_of_its_dates_proves_nothing(ends: timedelta, endpoint: World) -> None:
    """Expired, or of a time to come; SNS signs no other time."""
    _, side, event = await seeded(endpoint, "ses")
    starts = timedelta(days=-2) if ends < timedelta() else timedelta(days=1)
    certificate = ses.certificate(ses.signing_key(), time.time(), starts=starts, ends=ends)
    endpoint.shelf.documents = {ses.CERTIFICATE_URL: certificate}
    assert await refused(endpoint, "ses", side.trust, side.post(event)) == 401


@EVERYBODY
async def test_a_body_that_was_cut_off_changes_nothing(name: str, endpoint: World) -> None:
    """Where a signature covers it, or stands in it, nothing is proved; else it is no event."""
    _, side, event = await seeded(endpoint, name)
    post = side.post(event)
    cut = [msgspec.structs.replace(post, body=post.body[:length]) for length in (0, 1, len(post.body) // 2, -1)]
    assert await refused(endpoint, name, side.trust, *cut) == (401 if name in SIGNED else 400)


async def test_an_enormous_body_is_not_read(endpoint: World) -> None:
    """However well it is proved."""
    for name, (_, event) in GOOD.items():
        side = SIDES[name]()
        post = side.post(octets(event).ljust(MAX_BODY + 1))
        assert len(post.body) > MAX_BODY
        assert await refused(endpoint, name, side.trust, post) == 413, name


_NOBODYS = (200, "parked: no_id")
_NOTHING = (200, "")
_NO_EVENT = (400, "")
_DEEP = (b"[" * 50_000 + b"]" * 50_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
_LISTS = {b"[]": _NOTHING, b"[[]]": _NOBODYS, b"{}": _NOBODYS}
_OBJECTS = {b"[]": _NO_EVENT, b"[[]]": _NO_EVENT, b"{}": _NOBODYS}
_SCALARS = dict.fromkeys((b'"x"', b"7", b"null", b"true", *_DEEP), _NO_EVENT)
#: What each makes of a proved body of another shape.
SHAPES: dict[str, dict[bytes, tuple[int, str]]] = {
    **dict.fromkeys(("azure", "brevo", "mailjet", "sparkpost"), _LISTS | _SCALARS),
    **dict.fromkeys(("postal", "postmark", "resend"), _OBJECTS | _SCALARS),
    "sendgrid": _LISTS | _SCALARS | {b"{}": _NO_EVENT},
    # An event without fields is none; and the proof cannot be read where the event around it cannot.
    "mailgun": dict.fromkeys(_OBJECTS | _SCALARS, _NO_EVENT) | dict.fromkeys(_DEEP, (401, "")),
    # The envelope is as it should be, and what Amazon signed is kept.
    "ses": dict.fromkeys(_OBJECTS | _SCALARS, _NOBODYS),
}


@EVERYBODY
async def test_a_body_of_another_shape_is_nobody_s(name: str, endpoint: World) -> None:
    """Arrays for objects, objects for arrays, texts, numbers, and what is nested beyond reading."""
    _, side, _ = await seeded(endpoint, name)
    found = {}
    async with endpoint.open({name: side.trust}) as door:
        for body in SHAPES[name]:
            status = (await door.post(name, side.post(body))).status
            await endpoint.record()
            found[body] = (status, await endpoint.told())
            await endpoint.forget()
    assert found == SHAPES[name]


def strange_posts(side: Side, event: Any) -> list[Post]:
    """Return the event with each of its fields missing or of another type, and so with each field of its envelope."""
    inside = [side.post(body) for _, body in strange_bodies(event)]
    if side.name not in {"ses", "mailgun"}:
        return inside
    whole = msgspec.json.decode(side.post(event).body)
    within = "Message" if side.name == "ses" else "event-data"
    outside = [path for path in paths(whole) if path[:1] != (within,)]
    return inside + [Post(body=octets(replaced(whole, path, value))) for path in outside for value in STRANGE]


async def owners(endpoint: World) -> set[int]:
    """Return whose events there are."""
    return {row["message"] for row in await endpoint.pool.fetch("SELECT DISTINCT message FROM event")}


async def reasons(endpoint: World) -> set[str]:
    """Return why events were parked."""
    return {row["reason"] for row in await endpoint.pool.fetch("SELECT DISTINCT reason FROM parked_event")}


@EVERYBODY
async def test_a_strange_field_costs_itself_alone(name: str, endpoint: World) -> None:
    """Never a fault of ours, never anybody else's message, and nothing that could not be stored."""
    ann, side, event = await seeded(endpoint, name)
    async with endpoint.open({name: side.trust}) as door:
        answers = await all_of(door, name, strange_posts(side, event))
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 400, 401}
    assert statuses.count(200) > len(statuses) / 2
    assert await endpoint.record() > 0
    assert await owners(endpoint) == {ann.id}
    assert await reasons(endpoint) <= _HONEST


def mutated(chance: random.Random, event: Any) -> object:
    """Return the event with some fields strange, or its octets with some of them changed."""
    if chance.random() < 0.5:
        for _ in range(chance.randint(2, 5)):
            event = replaced(event, chance.choice(list(paths(event))), chance.choice(STRANGE))
        return event
    body = bytearray(octets(event))
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(body))
        body[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    return bytes(body)


@EVERYBODY
async def test_no_body_is_a_fault_of_ours(name: str, endpoint: World) -> None:
    """Whatever came, somebody answers for it, and the courier can store what was kept."""
    ann, side, event = await seeded(endpoint, name)
    chance = random.Random(f"fuzz of {name}")  # noqa: S311 - the same bodies in each run
    posts = [side.post(mutated(chance, event)) for _ in range(200)]
    async with endpoint.open({name: side.trust}) as door:
        answers = await all_of(door, name, posts)
    assert {answer.status for answer in answers} <= {200, 400, 401}
    await endpoint.record()
    assert await owners(endpoint) <= {ann.id}
    assert await reasons(endpoint) <= _HONEST
