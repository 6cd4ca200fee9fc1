"""Promise 3: a mailer's retry creates no second row and no second mail; it gets the same Message-ID.

Everything here goes over real SMTP into two relay processes on one port, before a real upstream that counts.
"""

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from ledger.ids import key_bytes
from tests.conftest import Eventually, next_port
from tests.mailer import Mailer
from tests.playing import accepted, mail, sessions, submit
from tests.running import Outrider, is_running, outrider, short_directory
from tests.sink import Sink

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("same_submission_same_message_id"),
    pytest.mark.timeout(180),
]

#: Seconds in which the same submission is a repeat: with an original Message-ID, without one.
WINDOW = 432_000, 3_600
SESSIONS = 20


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """An Outrider and its upstream."""

    target: Outrider
    sink: Sink

    def kept(self, recipient: str) -> list[bytes]:
        """Return what the upstream took for a recipient."""
        return [one.content for one in self.sink.kept if one.recipient == recipient]

    def message_ids(self, recipient: str) -> list[str]:
        """Return the Message-IDs under which mail left for a recipient."""
        return [message_from_bytes(content)["Message-ID"] for content in self.kept(recipient)]

    async def rows(self, recipient: str) -> list[dict[str, Any]]:
        """Return a recipient's rows, oldest first."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            rows = await session._connection.fetch(
                "SELECT m.id, m.message_id, m.generation, d.status::text FROM message m"
                " JOIN delivery d ON d.message = m.id WHERE m.recipient = $1 ORDER BY m.id",
                recipient.encode(),
            )
            return [dict(row) for row in rows]

    async def age(self, key: str, seconds: int) -> None:
        """Let a message have been accepted so much earlier: the window passes without waiting for it."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            done = await session._connection.execute(
                "UPDATE message SET accepted_at = accepted_at - make_interval(secs => $2) WHERE key = $1",
                key_bytes(key),
                seconds,
            )
            assert done == "UPDATE 1"

    async def one_of_all(self, recipient: str, key: str) -> None:
        """Assert that there is one row, one mail and one Message-ID."""
        assert self.message_ids(recipient) == [f"<{key}@shop.example.com>"]
        (row,) = await self.rows(recipient)
        assert (row["message_id"], row["generation"], row["status"]) == (f"{key}@shop.example.com", 0, "sent")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run an Outrider of two relay processes before an upstream, for every test of this file."""
    with short_directory() as data_dir:
        async with (
            Sink().listening() as sink,
            outrider(
                data_dir,
                next_port,
                relay__workers="2",
                relay__upstream=f"smtp://127.0.0.1:{sink.port}?starttls=off",
                relay__repeat_window=",".join(map(str, WINDOW)),
                relay__retry_first="0.2",
            ) as target,
        ):
            yield Scene(target=target, sink=sink)


async def test_repeats_at_once_are_one(scene: Scene) -> None:
    """The same submission three times, each on a connection of its own: the same 250 each time, one mail."""
    content = mail("repeat.1@mailer.example.com")
    keys = {await accepted(scene.target.smtp, content, "repeat@example.net") for _ in range(3)}
    (key,) = keys
    await scene.one_of_all("repeat@example.net", key)


async def test_repeats_on_one_connection_are_one(scene: Scene) -> None:
    """The same submission three times in one session, as a mailer with a confused queue sends it."""
    content = mail("session.1@mailer.example.com")
    keys = set()
    async with sessions(scene.target.smtp, 1) as (client,):
        for _ in range(3):
            _, text = await client.sendmail("bounce@shop.example.com", ["session@example.net"], content)
            keys.add(text.rsplit(maxsplit=1)[-1])
    (key,) = keys
    await scene.one_of_all("session@example.net", key)


async def test_twenty_sessions_at_once_over_two_processes_are_one(scene: Scene, eventually: Eventually) -> None:
    """All twenty are in flight before the upstream answers the first: all hear the same 250, one mail leaves."""
    recipient = "twenty@example.net"
    content = mail("twenty.1@mailer.example.com")
    # The second relay joins when the doors are open.
    await eventually(lambda: scene.target.log.read_text().count('"relay_listening"') >= 2, timeout=30)
    gate = scene.sink.gate = asyncio.Event()
    try:
        async with sessions(scene.target.smtp, SESSIONS) as clients:
            relays = scene.target.processes("relay")
            assert len(relays) == 2
            holding = [len(established(pid, scene.target.smtp)) for pid in relays]
            assert sum(holding) == SESSIONS
            assert min(holding) > 0, "the kernel gave all sessions to one process"
            for client in clients:
                await client.mail("bounce@shop.example.com")
                await client.rcpt(recipient)
            answers = [asyncio.create_task(client.data(content)) for client in clients]
            await eventually(lambda: recipient in scene.sink.dotted, timeout=60)
            gate.set()
            replies = await asyncio.gather(*answers)
    finally:
        gate.set()
        scene.sink.gate = None
    assert {reply.code for reply in replies} == {250}
    (text,) = {reply.message for reply in replies}
    await scene.one_of_all(recipient, text.rsplit(maxsplit=1)[-1])


def established(pid: int, port: int) -> set[str]:
    """Return the established connections to *port* that process *pid* holds, by their inodes."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(link.readlink().name)
        except FileNotFoundError:
            continue
    found = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        # 01 is ESTABLISHED; the local end is the server's.
        if fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port and f"socket:[{fields[9]}]" in held:
            found.add(fields[9])
    return found


async def _connect(port: int) -> Mailer:
    mailer = Mailer(*await asyncio.open_connection("127.0.0.1", port))
    return await mailer.hello()


async def test_a_connection_cut_before_the_final_dot_accepted_nothing(scene: Scene) -> None:
    """The mailer's connection breaks within the content: nothing is entered, and its retry is the first."""
    recipient = "cut.before@example.net"
    content = mail("cut.before.1@mailer.example.com")
    mailer = await _connect(scene.target.smtp)
    assert (await mailer.begin(f"<{recipient}>".encode())).startswith(b"354")
    await mailer.send(content)
    await mailer.close()
    key = await accepted(scene.target.smtp, content, recipient)
    await scene.one_of_all(recipient, key)


async def test_a_connection_cut_after_the_final_dot_changes_nothing(scene: Scene, eventually: Eventually) -> None:
    """The mailer is gone before the reply, and comes again while the first is in flight, and after it: one mail."""
    recipient = "cut.after@example.net"
    content = mail("cut.after.1@mailer.example.com")
    gate = scene.sink.gate = asyncio.Event()
    try:
        mailer = await _connect(scene.target.smtp)
        await mailer.begin(f"<{recipient}>".encode(), sender=b"<bounce@shop.example.com>")
        await mailer.send(content + b".\r\n")
        await mailer.close()
        await eventually(lambda: recipient in scene.sink.dotted, timeout=60)
        again = asyncio.create_task(accepted(scene.target.smtp, content, recipient))
        gate.set()
        key = await again
    finally:
        gate.set()
        scene.sink.gate = None

    async def sent() -> bool:
        return [row["status"] for row in await scene.rows(recipient)] == ["sent"]

    await eventually(sent, timeout=30)
    assert await accepted(scene.target.smtp, content, recipient) == key
    await scene.one_of_all(recipient, key)


async def test_a_restart_in_between_changes_nothing(scene: Scene, eventually: Eventually) -> None:
    """What was sent, and what was queued, before the command was killed: their retries get the same, once."""
    sent, queued = mail("restart.1@mailer.example.com"), mail("restart.2@mailer.example.com")
    first = await accepted(scene.target.smtp, sent, "restart.sent@example.net")
    # It is the recipient who must wait: an upstream that is unwell itself would be left alone for a while.
    scene.sink.rcpt = lambda _: "450 4.2.1 Mailbox busy"
    try:
        second = await accepted(scene.target.smtp, queued, "restart.queued@example.net")
        assert [row["status"] for row in await scene.rows("restart.queued@example.net")] in (["queued"], ["sending"])
        below = await scene.target.kill()
        await eventually(lambda: not any(map(is_running, below)), timeout=30)
        await scene.target.start()
        assert await accepted(scene.target.smtp, sent, "restart.sent@example.net") == first
        assert await accepted(scene.target.smtp, queued, "restart.queued@example.net") == second
    finally:
        scene.sink.rcpt = lambda _: "250 2.1.5 Ok"

    async def both_sent() -> bool:
        rows = await scene.rows("restart.queued@example.net") + await scene.rows("restart.sent@example.net")
        return [row["status"] for row in rows] == ["sent", "sent"]

    # What a killed process had in hand waits for its lease to run out.
    await eventually(both_sent, timeout=90)
    await scene.one_of_all("restart.sent@example.net", first)
    await scene.one_of_all("restart.queued@example.net", second)


async def test_a_failed_message_is_tried_again_under_its_message_id(scene: Scene) -> None:
    """The upstream refused, the refusal was passed on, the mailer comes again: the same row, the same Message-ID."""
    recipient = "failed@example.net"
    content = mail("failed.1@mailer.example.com")
    scene.sink.dot = lambda _: "550 5.7.1 Not today"
    try:
        assert await submit(scene.target.smtp, content, recipient) == (550, "5.7.1 Not today")
    finally:
        scene.sink.dot = lambda _: "250 2.0.0 Ok: queued as AGAIN"
    key = await accepted(scene.target.smtp, content, recipient)
    await scene.one_of_all(recipient, key)


async def test_a_deliberate_resend_is_a_new_message(scene: Scene) -> None:
    """Another body under the same Message-ID, another campaign, another person: each is a message of its own."""
    recipient, other = "resend@example.net", "resend.other@example.net"
    port = scene.target.smtp
    keys = [
        await accepted(port, mail("resend.1@mailer.example.com", text="One"), recipient),
        await accepted(port, mail("resend.1@mailer.example.com", text="Two"), recipient),
        await accepted(port, mail("resend.1@mailer.example.com", text="One", campaign="66"), recipient),
        await accepted(port, mail("resend.1@mailer.example.com", text="One"), other),
    ]
    assert len(set(keys)) == 4
    assert scene.message_ids(recipient) == [f"<{key}@shop.example.com>" for key in keys[:3]]
    assert scene.message_ids(other) == [f"<{keys[3]}@shop.example.com>"]
    # Each of them is repeated by itself.
    assert await accepted(port, mail("resend.1@mailer.example.com", text="Two"), recipient) == keys[1]
    assert await accepted(port, mail("resend.1@mailer.example.com", text="One"), recipient) == keys[0]
    assert len(scene.kept(recipient)) == 3


@pytest.mark.parametrize(("message_id", "window"), [("window.1@mailer.example.com", WINDOW[0]), (None, WINDOW[1])])
async def test_a_repeat_is_one_inside_the_window_alone(scene: Scene, message_id: str | None, window: int) -> None:
    """A minute before the window's end it is the same message; a minute after it, a new one."""
    recipient = f"window.{window}@example.net"
    content = mail(message_id)
    first = await accepted(scene.target.smtp, content, recipient)
    await scene.age(first, window - 60)
    assert await accepted(scene.target.smtp, content, recipient) == first
    await scene.age(first, 120)
    second = await accepted(scene.target.smtp, content, recipient)
    assert second != first
    assert await accepted(scene.target.smtp, content, recipient) == second
    assert scene.message_ids(recipient) == [f"<{key}@shop.example.com>" for key in (first, second)]


async def test_without_a_message_id_the_content_and_its_date_decide(scene: Scene) -> None:
    """The same content is a repeat, whatever way it travelled; another Date or another word is a new message."""
    recipient = "content@example.net"
    port = scene.target.smtp
    first = await accepted(port, mail(None), recipient)
    assert await accepted(port, mail(None), recipient) == first
    travelled = b"Received: from a.example.com by b.example.com; Sun, 22 Nov 2026 10:00:01 +0000\r\n" + mail(None)
    assert await accepted(port, travelled, recipient) == first
    dated = await accepted(port, mail(None, date="Sun, 22 Nov 2026 10:00:01 +0000"), recipient)
    worded = await accepted(port, mail(None, text="Goodbye"), recipient)
    assert len({first, dated, worded}) == 3
    assert scene.message_ids(recipient) == [f"<{key}@shop.example.com>" for key in (first, dated, worded)]


async def test_a_transaction_of_several_is_repeated_recipient_by_recipient(scene: Scene) -> None:
    """Three recipients, then the same with a fourth: the first three get nothing twice, the fourth gets his."""
    people = [f"several.{number}@example.net" for number in range(4)]
    content = mail("several.1@mailer.example.com")
    first = await accepted(scene.target.smtp, content, *people[:3])
    assert await accepted(scene.target.smtp, content, *people[:3]) == first
    await accepted(scene.target.smtp, content, *people)
    assert [len(scene.kept(person)) for person in people] == [1, 1, 1, 1]
    assert len({scene.message_ids(person)[0] for person in people}) == 4
