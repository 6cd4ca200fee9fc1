"""Every event that a provider documents, over the real endpoint with a real signature, becomes what it must become."""

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from ledger.ids import MessageKey
from providers.registry import PROVIDERS
from providers.webhook import Trust
from sidecar import reports_cli
from sidecar.cli_parser import parser
from sidecar.settings import Settings
from tests.provider_outcomes import OUTCOMES, UNKNOWN_ID
from tests.provider_sides import SIDES, octets
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
from tests.webhooking import ANN, BOB, Post, World

SAMPLES: dict[str, ModuleType] = {
    "azure": azure,
    "ses": ses,
    "mailgun": mailgun,
    "postal": postal,
    "sendgrid": sendgrid,
    "postmark": postmark,
    "brevo": brevo,
    "mailjet": mailjet,
    "sparkpost": sparkpost,
    "resend": resend,
}
EVERYBODY = pytest.mark.parametrize("name", SAMPLES)

#: What Event Grid wants to hear when it introduces itself; everybody else reads the status alone.
HANDSHAKES = {"handshake": b'{"validationResponse":"code-1"}'}


def sample(name: str, label: str) -> Any:
    """Return one sample as it is told: of SES what stands in the envelope, of Mailgun the event without its proof."""
    match name:
        case "ses":
            return dict(ses.INNER)[label]
        case "mailgun":
            return dict(mailgun.NOTED)[label]
        case _:
            return dict(SAMPLES[name].EVENTS)[label]


def without_key(name: str, value: object, *changes: tuple[bytes, bytes]) -> bytes:
    """Return the sample as of a mail that never knew our key; and with other *changes*."""
    body = octets(value)
    for before, after in ((SAMPLES[name].KEY.encode(), b"somebody-else-s"), *changes):
        assert before in body
        body = body.replace(before, after)
    return body


def test_the_table_is_whole() -> None:
    """Each sample of each registered provider has one outcome."""
    assert set(SAMPLES) == set(OUTCOMES) == set(PROVIDERS) == set(SIDES)
    for name, samples in SAMPLES.items():
        listed = [label for labels in OUTCOMES[name].values() for label in labels]
        assert sorted(listed) == sorted(label for label, _ in samples.EVENTS), name


@EVERYBODY
async def test_every_event_becomes_what_it_must(name: str, endpoint: World) -> None:
    """Answered, recorded, of the right message among others to the same person and to others; or parked, and why."""
    samples = SAMPLES[name]
    await endpoint.rows.message(ANN, campaign=await endpoint.rows.campaign("65"), key=samples.KEY)
    old = await endpoint.rows.message(ANN, campaign=await endpoint.rows.campaign("64"))
    bob = await endpoint.rows.message(BOB)
    outcomes = {label: outcome for outcome, labels in OUTCOMES[name].items() for label in labels}
    found = {}
    for label, body in samples.EVENTS:
        encoded = octets(body)
        proof = samples.proof(encoded, time.time())
        endpoint.shelf.documents = dict(proof.documents)
        async with endpoint.open({name: proof.trust}) as door:
            answer = await door.post(name, Post(body=encoded, headers=proof.headers, query=proof.query))
        assert (answer.status, answer.body) == (200, HANDSHAKES.get(label, b"") if name == "azure" else b""), label
        kept = await endpoint.record()
        found[label] = await endpoint.told({old.id: "old", bob.id: "bob"})
        assert kept == len(found[label].split("; ") if found[label] else []), label
        await endpoint.forget()
    assert found == outcomes


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"event": "delivered", "Message-Id": f"<{mailgun.MESSAGE_ID}>"}, "delivered by message_id"),
        ({"event": "bounced", "code": "550", "error": "5.1.1 no such user"}, "bounced hard by token"),
        ({"event": "dropped", "code": "605", "reason": "hardfail"}, "bounced suppressed by token"),
        ({"event": "complained", "message-id": mailgun.MESSAGE_ID}, "complained by message_id"),
        ({"event": "unsubscribed", "outrider": "none"}, "parked: no_id"),
        ({"event": "opened", "ip": "192.0.2.1", "user-agent": "UA"}, "opened by token"),
        ({"event": "clicked", "url": "https://example.org/"}, "clicked by token"),
    ],
)
async def test_mailgun_s_older_forms_become_the_same(fields: dict[str, str], outcome: str, endpoint: World) -> None:
    """In either encoding, each with a token of its own; a repeat of one is answered and not recorded."""
    await endpoint.rows.message(ANN, key=MessageKey(mailgun.KEY))
    form = ({"recipient": ANN, "domain": "example.org", "outrider": mailgun.KEY} | fields).items()
    kind, parts = mailgun.multipart(form, time.time())
    posts = (
        Post(body=mailgun.form(form, time.time()), headers={"content-type": "application/x-www-form-urlencoded"}),
        Post(body=parts, headers={"content-type": kind}),
    )
    async with endpoint.open({"mailgun": Trust(secrets=(mailgun.SECRET,))}) as door:
        for post in (*posts, *posts):
            assert (await door.post("mailgun", post)).status == 200
    assert await endpoint.record() == 2
    assert await endpoint.told() == f"{outcome}; {outcome}"


#: What the upstream answered to the final dot, and a sample of a mail that has no key of ours.
REPLIES = {
    "ses": (f"Ok {ses.SES_ID}", "delivery", "delivered"),
    "sendgrid": (f"Ok: queued as {sendgrid.REPLY_ID}", "opened", "opened"),
    "postmark": (f"2.0.0 Ok: queued as {postmark.MESSAGE}", "click", "clicked"),
    "brevo": (f"2.0.0 OK: queued as <{brevo.MESSAGE}>", "hard_bounce", "bounced hard"),
    "mailjet": (f"OK queued as {mailjet.GUID}", "spam", "complained"),
    "resend": (f"Ok {resend.EMAIL_ID}", "delivered", "delivered"),
}


@pytest.mark.parametrize("name", REPLIES)
async def test_the_upstream_s_answer_finds_its_message(name: str, endpoint: World) -> None:
    """Where nothing of ours came back, the id in the 250 does; of another provider it says nothing."""
    reply, label, outcome = REPLIES[name]
    identity = PROVIDERS[name].reply_id(reply)
    assert identity is not None
    ann = await endpoint.rows.message(ANN)
    await endpoint.reach(await endpoint.rows.message(BOB), "upstream", "another", identity)
    side = SIDES[name]()
    endpoint.shelf.documents = dict(side.documents)
    async with endpoint.open({name: side.trust}) as door:
        value = msgspec.json.decode(without_key(name, sample(name, label)))
        assert (await door.post(name, side.post(value))).status == 200
        await endpoint.record()
        assert await endpoint.told() == UNKNOWN_ID
        await endpoint.reach(ann, "upstream", name, identity)
        assert await endpoint.recorder.match_parked() == 1
    assert await endpoint.told() == f"{outcome} by reply_id"


#: An event with our key, then one of the same message without it: what in it is another event's, and its outcome.
LEARNT: dict[str, tuple[str, bytes, str]] = {
    "azure": ("delivered", without_key("azure", sample("azure", "bounced"), (b'"e-1"', b'"e-9"')), "bounced hard"),
    "ses": ("delivery", octets(sample("ses", "bounce of an identity")), "bounced hard"),
    "mailgun": (
        "accepted",
        without_key("mailgun", mailgun.event("delivered", storage={"key": "BAABAgE-key"})),
        "delivered",
    ),
    "postal": ("sent", without_key("postal", sample("postal", "loaded")), "opened"),
    "sendgrid": ("delivered", octets(sample("sendgrid", "late bounce without our fields")), "bounced hard"),
    "postmark": ("delivery", octets(sample("postmark", "another record")), "unknown"),
    "brevo": ("delivered", octets(sample("brevo", "a text for the header")), "opened"),
    "mailjet": ("sent", octets(sample("mailjet", "a text for a payload")), "opened"),
    "sparkpost": (
        "delivery",
        octets(sample("sparkpost", "the metadata cut off")).replace(b'"92356927693813856"', b'"9"'),
        "opened",
    ),
    "resend": ("sent", octets(sample("resend", "nothing of ours")), "opened"),
}


@EVERYBODY
async def test_an_event_teaches_whose_the_provider_s_id_is(name: str, endpoint: World) -> None:
    """What came too early finds its message when another event has named it."""
    label, early, outcome = LEARNT[name]
    await endpoint.rows.message(BOB)
    ann = await endpoint.rows.message(ANN, key=SAMPLES[name].KEY)
    side = SIDES[name]()
    endpoint.shelf.documents = dict(side.documents)
    async with endpoint.open({name: side.trust}) as door:
        assert (await door.post(name, side.post(msgspec.json.decode(early)))).status == 200
        await endpoint.record()
        assert await endpoint.told() == UNKNOWN_ID
        assert (await door.post(name, side.post(sample(name, label)))).status == 200
        await endpoint.record()
        assert await endpoint.recorder.match_parked() == 1
    assert (await endpoint.told()).split("; ")[1] == f"{outcome} by provider_id"
    assert {row["message"] for row in await endpoint.pool.fetch("SELECT message FROM event")} == {ann.id}


async def test_what_matches_nothing_is_answered_and_listed(
    endpoint: World, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 2xx for each provider, and `outrider unmatched` says what was parked and why."""
    sides = {name: SIDES[name]() for name in SAMPLES}
    for side in sides.values():
        endpoint.shelf.documents |= side.documents
    async with endpoint.open({name: side.trust for name, side in sides.items()}) as door:
        for name, (_, strangers, _) in LEARNT.items():
            assert (await door.post(name, sides[name].post(msgspec.json.decode(strangers)))).status == 200
        nobodys = sides["postmark"].post(sample("postmark", "suppressed by hand, no message"))
        assert (await door.post("postmark", nobodys)).status == 200
    assert await endpoint.record() == len(SAMPLES) + 1
    settings = Settings(data_dir=tmp_path, database_url=database_url)
    capsys.readouterr()
    assert await reports_cli.unmatched(settings, parser().parse_args(["unmatched", "--json"])) == 0
    listed = msgspec.json.decode(capsys.readouterr().out)
    expected = [*((name, "unknown_id") for name in SAMPLES), ("postmark", "no_id")]
    assert sorted((one["source"], one["reason"]) for one in listed["unmatched"]) == sorted(expected)
    assert sorted((one["source"], one["reason"], one["events"]) for one in listed["counts"]) == sorted(
        (name, reason, 1) for name, reason in expected
    )
