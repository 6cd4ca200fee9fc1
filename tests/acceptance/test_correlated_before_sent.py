"""Promise 2: no message leaves without a committed row, and an event is attributed by an id of ours or not at all.

The upstream is the witness: on every recipient and every content it looks into the ledger, over a connection of its
own, which sees what is committed and nothing else.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from email import message_from_bytes
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from injector.tokens import Keyring, Purpose
from ledger import ids
from ledger.ids import MessageKey, key_bytes
from sidecar.embedded import running as running_servers
from tests.conftest import Eventually, next_port
from tests.playing import accepted, asked, mail, submit, tracked, visit
from tests.running import ENVIRONMENT, Outrider, outrider, short_directory
from tests.sink import Sink

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("correlated_before_sent"),
    pytest.mark.timeout(180),
]

#: How long the relay waits for PostgreSQL, and what it may take beyond to say so, in seconds.
LEDGER_WAIT = 2.0
SLACK = 8.0

COMMITTED = """
SELECT convert_from(m.recipient, 'UTF8') AS recipient, c.campaign_id, m.message_id, d.status::text, d.dot_at
FROM message m JOIN delivery d ON d.message = m.id LEFT JOIN campaign c ON c.id = m.campaign
"""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the upstream was given, and what was committed at that moment."""

    recipient: str
    message_id: str | None
    row: dict[str, Any] | None


class Witness:
    """Looks into the ledger whenever the upstream is given something for one of *recipients*."""

    def __init__(self, database_url: str, recipients: Collection[str]) -> None:
        self._database_url = database_url
        self._recipients = recipients
        self.recipients: list[Seen] = []
        self.contents: list[Seen] = []

    async def look(self, recipient: str, content: bytes | None) -> None:
        """Note what of the message is committed now."""
        if recipient not in self._recipients:
            return
        connection = await asyncpg.connect(self._database_url)
        try:
            if content is None:
                row = await connection.fetchrow(f"{COMMITTED} WHERE m.recipient = $1", recipient.encode())
                self.recipients.append(Seen(recipient=recipient, message_id=None, row=dict(row) if row else None))
                return
            message_id = message_from_bytes(content)["Message-ID"].strip("<>")
            row = await connection.fetchrow(f"{COMMITTED} WHERE m.message_id = $1", message_id)
            self.contents.append(Seen(recipient=recipient, message_id=message_id, row=dict(row) if row else None))
        finally:
            await connection.close()


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An Outrider and its upstream."""

    target: Outrider
    sink: Sink
    identity: bytes
    keyring: Keyring

    def key(self, recipient: str, message_id: str, *, campaign: str = "65") -> MessageKey:
        """Return the key of a message, whether it was submitted yet or not."""
        return ids.message_key(
            self.identity,
            source="default",
            campaign=campaign,
            recipient=recipient,
            origin=ids.origin_of_id(ids.normalise_message_id(message_id)),
            generation=0,
        )

    def pixel(self, key: MessageKey) -> str:
        """Return the address of a message's pixel."""
        return f"http://127.0.0.1:{self.target.http}/track/o/{self.keyring.mint(Purpose.OPEN, key_bytes(key))}"

    def kept(self, recipient: str) -> list[bytes]:
        """Return what the upstream took for a recipient."""
        return [one.content for one in self.sink.kept if one.recipient == recipient]

    async def rows(self, recipient: str) -> list[dict[str, Any]]:
        """Return a recipient's rows."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            rows = await session._connection.fetch(f"{COMMITTED} WHERE m.recipient = $1", recipient.encode())
            return [dict(row) for row in rows]

    async def parked(self, key: MessageKey) -> list[str]:
        """Return the reasons for which hits on a message are parked."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            rows = await session._connection.fetch("SELECT reason FROM parked_event WHERE named = $1", key_bytes(key))
            return [row["reason"] for row in rows]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run an Outrider before an upstream, for every test of this file."""
    with short_directory() as data_dir:
        async with (
            Sink().listening() as sink,
            outrider(
                data_dir,
                next_port,
                relay__upstream=f"smtp://127.0.0.1:{sink.port}?starttls=off",
                relay__ledger_wait=str(LEDGER_WAIT),
                relay__retry_first="0.2",
            ) as target,
        ):
            yield Scene(
                target=target,
                sink=sink,
                identity=(data_dir / "identity.key").read_bytes().strip(),
                keyring=Keyring([(data_dir / "signing.key").read_bytes().strip()]),
            )


@asynccontextmanager
async def witnessed(scene: Scene, recipients: Collection[str]) -> AsyncIterator[Witness]:
    """Let the upstream look into the ledger for the time of the block."""
    servers = running_servers(scene.target.data_dir)
    assert servers is not None
    witness = Witness(servers.database_url, recipients)
    scene.sink.witness = witness.look
    try:
        yield witness
    finally:
        scene.sink.witness = None


async def test_every_message_is_committed_before_the_upstream_hears_of_it(scene: Scene, eventually: Eventually) -> None:
    """No RCPT and no content without its row: the Message-ID, the real recipient, the campaign, the intent mark."""
    campaigns = ["301", "302", None]
    recipients = {f"w{number}@example.net": campaigns[number % 3] for number in range(18)}
    refusals = {"w3@example.net", "w7@example.net"}

    def stumble(recipient: str) -> str:
        # The first try fails, so that these two go through the queue.
        if recipient in refusals:
            refusals.discard(recipient)
            return "451 4.7.1 Come again"
        return "250 2.1.5 Ok"

    scene.sink.rcpt = stumble
    async with witnessed(scene, recipients) as witness:
        await asyncio.gather(
            *(
                accepted(
                    scene.target.smtp,
                    mail(f"witness.{number}@mailer.example.com", campaign=campaign),
                    *[
                        name
                        for position, name in enumerate(recipients)
                        if position // 3 == number and recipients[name] == campaign
                    ],
                )
                for number in range(6)
                for campaign in campaigns
            )
        )
        await eventually(lambda: len(witness.contents) == len(recipients), timeout=60)
    scene.sink.rcpt = lambda _: "250 2.1.5 Ok"
    assert {seen.recipient for seen in witness.recipients} == set(recipients)
    assert len(witness.recipients) == len(recipients) + 2
    for seen in witness.recipients:
        assert seen.row is not None, "a recipient was named to the upstream before its row was committed"
    for seen in witness.contents:
        assert seen.row is not None, "a message left before its row was committed"
        assert seen.row["recipient"] == seen.recipient
        assert seen.row["campaign_id"] == recipients[seen.recipient]
        assert seen.row["dot_at"] is not None, "the final dot left before the intent to send it was committed"
        assert seen.row["status"] in {"accepted", "sending"}
    assert len({seen.message_id for seen in witness.contents}) == len(recipients)


async def test_with_postgresql_gone_nothing_leaves_and_the_same_submission_goes_out_once_later(
    scene: Scene, eventually: Eventually
) -> None:
    """PostgreSQL refuses connections: 451 within LEDGER_WAIT, no word to the upstream; back again, one mail."""
    recipient = "gone@example.net"
    content = mail("gone.1@mailer.example.com")
    async with scene.target.without("postgresql"):
        said = len(scene.sink.commands)
        begun = time.monotonic()
        answers = await asyncio.gather(*(submit(scene.target.smtp, content, recipient) for _ in range(3)))
        waited = time.monotonic() - begun
        assert [code for code, _ in answers] == [451] * 3, answers
        assert waited < LEDGER_WAIT + SLACK
        assert [line for line in scene.sink.commands[said:] if line.startswith(("MAIL", "RCPT", "DATA"))] == []
    await _goes_out_once(scene, eventually, recipient, content, "gone.1@mailer.example.com")


async def test_with_postgresql_hanging_nothing_leaves_and_the_same_submission_goes_out_once_later(
    scene: Scene, eventually: Eventually
) -> None:
    """PostgreSQL takes connections and says nothing: 451 within LEDGER_WAIT all the same; back again, one mail."""
    recipient = "hanging@example.net"
    content = mail("hanging.1@mailer.example.com")
    # A first message, so that the campaign is known and connections are open.
    await accepted(scene.target.smtp, mail("hanging.0@mailer.example.com"), "before@example.net")
    with scene.target.frozen("postgresql"):
        said = len(scene.sink.commands)
        code, _ = await submit(scene.target.smtp, content, recipient, patience=LEDGER_WAIT + SLACK)
        assert [line for line in scene.sink.commands[said:] if line.startswith(("MAIL", "RCPT", "DATA"))] == []
    assert code == 451
    await _goes_out_once(scene, eventually, recipient, content, "hanging.1@mailer.example.com")


async def _goes_out_once(scene: Scene, eventually: Eventually, recipient: str, content: bytes, message_id: str) -> None:
    expected = scene.key(recipient, message_id)

    async def taken() -> bool:
        code, text = await submit(scene.target.smtp, content, recipient)
        assert code in {250, 451}
        return code == 250 and text.endswith(expected)

    await eventually(taken, timeout=60)
    assert await taken()
    (left,) = scene.kept(recipient)
    assert message_from_bytes(left)["Message-ID"] == f"<{expected}@shop.example.com>"
    (row,) = await scene.rows(recipient)
    assert (row["message_id"], row["status"]) == (f"{expected}@shop.example.com", "sent")


async def test_what_the_upstream_took_while_postgresql_went_away_is_recorded_and_never_sent_twice(
    scene: Scene, eventually: Eventually
) -> None:
    """The intent was committed, the dot is out, PostgreSQL is gone: 250, the result is recorded later, one mail."""
    recipient = "late@example.net"
    content = mail("late.1@mailer.example.com")
    gate = scene.sink.gate = asyncio.Event()
    try:
        submission = asyncio.create_task(submit(scene.target.smtp, content, recipient))
        await eventually(lambda: recipient in scene.sink.dotted, timeout=30)
        async with scene.target.without("postgresql"):
            gate.set()
            code, text = await submission
    finally:
        gate.set()
        scene.sink.gate = None
    assert code == 250, text

    async def recorded() -> bool:
        return [row["status"] for row in await scene.rows(recipient)] == ["sent"]

    # The relay's pool, like ours, has to find PostgreSQL again.
    await eventually(lambda: running_servers(scene.target.data_dir) is not None, timeout=30)
    await _until_postgresql_answers(scene, eventually)
    await eventually(recorded, timeout=60)
    assert (await submit(scene.target.smtp, content, recipient))[0] == 250
    assert len(scene.kept(recipient)) == 1


async def _until_postgresql_answers(scene: Scene, eventually: Eventually) -> None:
    async def answers() -> bool:
        try:
            await scene.rows("nobody@example.net")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    await eventually(answers, timeout=60)


async def test_a_hit_on_an_unknown_message_is_parked_and_matched_when_the_message_appears(
    scene: Scene, eventually: Eventually
) -> None:
    """An open whose key nobody knows is nobody's: not the latest message's, not the recipient's last one's."""
    recipient = "early@example.net"
    await accepted(scene.target.smtp, mail("early.0@mailer.example.com", campaign="401"), recipient)
    coming = scene.key(recipient, "early.1@mailer.example.com", campaign="401")
    never = scene.key(recipient, "early.never@mailer.example.com", campaign="401")
    for key in (coming, never):
        assert (await visit(scene.pixel(key))).status == 200

    async def both_parked() -> bool:
        return await scene.parked(coming) == await scene.parked(never) == ["unknown_key"]

    await eventually(both_parked, timeout=30)
    # A later mail of the same campaign to the same person: now the latest of all.
    await accepted(scene.target.smtp, mail("early.2@mailer.example.com", campaign="401"), recipient)
    await accepted(scene.target.smtp, mail("early.1@mailer.example.com", campaign="401"), recipient)

    async def matched() -> bool:
        return await scene.parked(coming) == []

    await eventually(matched, timeout=60)
    listed = (await asked(scene.target, "/api/messages?campaign=401"))["messages"]
    opens = {message["original_message_id"].partition("@")[0]: message["engagement"]["opens"] for message in listed}
    assert opens == {"early.0": 0, "early.1": 1, "early.2": 0}
    assert (await asked(scene.target, f"/api/messages/{coming}"))["engagement"]["opened"] is True
    assert await scene.parked(never) == ["unknown_key"]
    assert (await asked(scene.target, "/api/campaigns/401"))["opens"] == 1


async def test_what_is_parked_is_listed_with_its_reason(scene: Scene, eventually: Eventually) -> None:
    """`outrider unmatched` shows the operator what matched nothing, and why."""
    never = scene.key("nobody@example.net", "never.submitted@mailer.example.com")
    await visit(scene.pixel(never))

    async def parked() -> bool:
        return await scene.parked(never) == ["unknown_key"]

    await eventually(parked, timeout=30)
    command = [sys.executable, "-m", "sidecar", "unmatched", "--json", "--data-dir", str(scene.target.data_dir)]
    done = await asyncio.to_thread(
        subprocess.run, command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    listed = msgspec.json.decode(done.stdout)
    assert "unknown_key" in {event["reason"] for event in listed["unmatched"]}
    assert sum(count["events"] for count in listed["counts"] if count["reason"] == "unknown_key") >= 1


async def test_a_hit_is_its_own_messages_alone(scene: Scene, eventually: Eventually) -> None:
    """Three messages to one person in one campaign: the open and the click of the oldest stay the oldest's."""
    recipient = "three@example.net"
    for number in range(3):
        await accepted(scene.target.smtp, mail(f"three.{number}@mailer.example.com", campaign="402"), recipient)
    oldest = tracked(scene.kept(recipient)[0])
    await visit(oldest.pixel)
    assert (await visit(oldest.links[0])).location == "https://example.com/?a=1&b=2"

    async def counted() -> bool:
        return bool((await asked(scene.target, "/api/campaigns/402"))["clicks"])

    await eventually(counted, timeout=30)
    listed = (await asked(scene.target, "/api/messages?campaign=402"))["messages"]
    assert {
        message["original_message_id"].partition("@")[0]: (
            message["engagement"]["opens"],
            message["engagement"]["clicks"],
        )
        for message in listed
    } == {"three.0": (1, 1), "three.1": (0, 0), "three.2": (0, 0)}
