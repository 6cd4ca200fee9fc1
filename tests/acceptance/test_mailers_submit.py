"""Promise: real mailers submit as they are, and each message arrives once and intact.

The clients are those of Debian and Python, conversations as nodemailer and Postfix hold them, Postfix's load generator
with Postfix's own sink as the upstream, and a mailer that switches a relay off after five errors, as AMS does.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from relay.passwords import hash_password, with_user
from tests.clients import CLIENTS, Door, Letter, installed, program, stuffed
from tests.conftest import Eventually, next_port
from tests.mailer import Mailer
from tests.running import Outrider, outrider, short_directory
from tests.sink import Sink

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("mailers_submit"),
    pytest.mark.timeout(240),
]

USER, PASSWORD = "ann", "correct horse battery"

BODY = (
    "Привет, мир\r\n"
    ".\r\n..\r\n.one dot, and at the end of a line some spaces   \r\n"
    "\r\n\r\nMAIL FROM:<evil@example.net>\r\n" + "x" * 900 + "\r\nFrom here\r\n.\r\nto there\r\n"
).encode()


class Scene:
    """An Outrider that demands nothing and offers all, and its upstream."""

    def __init__(self, target: Outrider, sink: Sink, authority: Path) -> None:
        self.target = target
        self.sink = sink
        self._authority = authority
        self._way = AsyncExitStack()

    def door(self, mechanism: str) -> Door:
        """Return where to submit."""
        return Door(port=self.target.smtp, authority=self._authority, user=USER, password=PASSWORD, mechanism=mechanism)

    async def open_upstream(self) -> None:
        """Let the upstream listen, on the same port every time."""
        await self._way.enter_async_context(self.sink.listening(self.sink.port))

    async def close_upstream(self) -> None:
        """Let the upstream refuse connections, and end those that are open."""
        await self._way.aclose()

    def kept(self, name: str) -> list[tuple[str, bytes]]:
        """Return the recipients of a test's domain, with what the upstream took for them."""
        return [
            (one.recipient, one.content) for one in self.sink.kept if one.recipient.endswith(f"@{name}.example.net")
        ]

    async def sources(self, name: str) -> set[str]:
        """Return who submitted the messages of a test's domain, by the ledger."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            rows = await session._connection.fetch(
                "SELECT DISTINCT source FROM message WHERE convert_from(recipient, 'utf8') LIKE $1",
                f"%@{name}.example.net",
            )
            return {row["source"] for row in rows}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run everything once for this file."""
    with short_directory() as data_dir:
        authority, users = trustme.CA(), data_dir / "users"
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(data_dir / "key.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(data_dir / "cert.pem", append=True)
        authority.cert_pem.write_to_path(data_dir / "authority.pem")
        users.write_text(with_user("", USER, hash_password(PASSWORD, salt=b"0123456789abcdef")), encoding="utf-8")
        sink = Sink()
        sink.port = next_port()
        async with outrider(
            data_dir,
            next_port,
            relay__upstream=f"smtp://relay:secret@127.0.0.1:{sink.port}?starttls=off",
            relay__users=str(users),
            relay__tls_cert=str(data_dir / "cert.pem"),
            relay__tls_key=str(data_dir / "key.pem"),
            relay__verdict_wait="2",
            relay__retry_first="0.2",
        ) as target:
            made = Scene(target, sink, data_dir / "authority.pem")
            await made.open_upstream()
            yield made
            await made.close_upstream()


def mail(name: str, *, body: bytes = BODY) -> bytes:
    """Return a message of plain text, into which nothing is injected."""
    return (
        f"From: Shop <news@shop.example.com>\r\nTo: everybody@{name}.example.net\r\nSubject: {name}\r\n"
        f"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{name}@mailer.example.com>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    ).encode() + body


@pytest.mark.parametrize("mechanism", ["", "PLAIN", "LOGIN"], ids=["in the clear", "TLS and PLAIN", "TLS and LOGIN"])
@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_submits(scene: Scene, tmp_path: Path, name: str, mechanism: str) -> None:
    """To three recipients: one copy each, header and body as they were, in the name of who logged in."""
    domain = f"{name.replace(' ', '-')}-{mechanism.lower() or 'clear'}"
    content = mail(domain)
    recipients = tuple(f"{who}@{domain}.example.net" for who in ("ann", "Bob+tag", "cyd"))
    letter = Letter(sender="bounce@shop.example.com", recipients=recipients, content=content)
    await CLIENTS[name](scene.door(mechanism), letter, tmp_path)
    kept = scene.kept(domain)
    assert sorted(recipient for recipient, _ in kept) == sorted(recipients)
    head = content.partition(b"\r\n\r\n")[0].split(b"\r\n")
    for _, left in kept:
        header, _, body = left.partition(b"\r\n\r\n")
        assert body == BODY
        assert [line for line in header.split(b"\r\n") if line in head] == [
            line for line in head if not line.startswith(b"Message-ID:")
        ]
        assert header.count(b"\r\nMessage-ID: ") == 1
        assert f"X-Original-Message-ID: <{domain}@mailer.example.com>".encode() in header
    assert len({message_from_bytes(left, policy=compat32)["Message-ID"] for _, left in kept}) == 3
    assert await scene.sources(domain) == {USER if mechanism else "default"}


class ExcludedError(Exception):
    """The relay has answered so many errors in a row that the mailer uses it no more."""


class Ams:
    """A mailer that keeps one session, says RSET between messages, and excludes a relay after five errors in a row."""

    PATIENCE = 5

    def __init__(self, port: int) -> None:
        self._port = port
        self._mailer: Mailer | None = None
        self._in_a_row = 0
        #: Every reply that was an error.
        self.errors: list[bytes] = []

    async def send(self, sender: bytes, recipients: list[str], content: bytes) -> None:
        """Submit one body to many, the RCPTs in one go."""
        if self._mailer is None:
            self._mailer = Mailer(*await asyncio.open_connection("127.0.0.1", self._port))
            self._judged(await self._mailer.reply())
            self._judged(await self._mailer.say(b"EHLO ams.example.com"))
        mailer = self._mailer
        self._judged(await mailer.say(b"RSET"))
        self._judged(await mailer.say(b"MAIL FROM:" + sender))
        await mailer.send(b"".join(b"RCPT TO:<%b>\r\n" % recipient.encode() for recipient in recipients))
        for _ in recipients:
            self._judged(await mailer.reply())
        self._judged(await mailer.say(b"DATA"))
        await mailer.send(stuffed(content))
        self._judged(await mailer.say(b"."))

    async def leave(self) -> None:
        """End the session."""
        if self._mailer is not None:
            await self._mailer.close()

    def _judged(self, reply: bytes) -> None:
        if reply[:1] in {b"2", b"3"}:
            self._in_a_row = 0
            return
        self.errors.append(reply)
        self._in_a_row += 1
        if self._in_a_row == self.PATIENCE:
            raise ExcludedError(self.errors)


#: As AMS writes them: what it is told as the sender's name stands before the address.
SENDERS = [
    b'"Shop" <a@b.example>',
    b"Shop <a@b.example>",
    b"<>",
    '"Магазин" <a@b.example>'.encode("cp1251"),
    '"Магазин, \\"лучший\\"" <a@b.example>'.encode(),
    b" <a@b.example>",
    b"a@b.example",
]


@asynccontextmanager
async def in_trouble(scene: Scene, what: str) -> AsyncIterator[None]:
    """Let the upstream be in trouble for the time of the block."""
    sink = scene.sink
    before = sink.mail, sink.rcpt, sink.dot, sink.auth
    match what:
        case "is down":
            await scene.close_upstream()
        case "is slow":
            sink.gate = asyncio.Event()
        case "says 421":
            sink.mail = lambda _: "421 4.7.0 Too busy"
        case "says 451 to everybody":
            sink.rcpt = lambda _: "451 4.7.1 Greylisted"
        case "refuses the password":
            # A connection that is logged in would go on.
            await scene.close_upstream()
            sink.auth = "535 5.7.8 Bad credentials"
            await scene.open_upstream()
        case "hangs up at the dot":
            sink.dot = lambda _: ""
    try:
        yield
    finally:
        sink.mail, sink.rcpt, sink.dot, sink.auth = before
        if sink.gate is not None:
            sink.gate.set()
            sink.gate = None
        if what == "is down":
            await scene.open_upstream()


@pytest.mark.parametrize(
    "trouble",
    [
        "is down",
        "is slow",
        "says 421",
        "says 451 to everybody",
        "refuses the password",
        "hangs up at the dot",
    ],
)
async def test_a_mailer_that_excludes_relays_sees_no_trouble_of_the_upstream(
    scene: Scene, eventually: Eventually, trouble: str
) -> None:
    """Not one error, whatever the upstream does; all of it arrives once it is well, from who sent it, once."""
    domain = trouble.replace(" ", "-")
    ams = Ams(scene.target.smtp)
    expected: list[str] = []
    try:
        async with in_trouble(scene, trouble):
            for number, sender in enumerate(SENDERS):
                recipients = [f"r{number}.{one}@{domain}.example.net" for one in range(1 if number else 100)]
                await ams.send(sender, recipients, mail(f"{domain}-{number}"))
                expected += recipients
    finally:
        await ams.leave()
    assert ams.errors == []
    await eventually(lambda: len(scene.kept(domain)) >= len(expected), timeout=120)
    kept = scene.kept(domain)
    assert sorted(recipient for recipient, _ in kept) == sorted(expected)
    assert all(left.endswith(b"\r\n\r\n" + BODY) for _, left in kept)
    senders = Counter(one.sender for one in scene.sink.kept if one.recipient.endswith(f"@{domain}.example.net"))
    assert senders == {"a@b.example": len(expected) - 1, "": 1}


async def test_a_mailer_that_excludes_relays_hears_verdicts(scene: Scene) -> None:
    """The control: a verdict of the upstream's passes, and five of them end this mailer's use of us."""
    before = scene.sink.rcpt
    scene.sink.rcpt = lambda _: "550 5.1.1 No such user"
    ams = Ams(scene.target.smtp)
    try:
        await ams.send(b"<a@b.example>", ["one@verdicts.example.net"], mail("verdicts-0"))
        assert ams.errors == [b"550 5.1.1 No such user\r\n"]
    finally:
        scene.sink.rcpt = before
        await ams.leave()
    assert scene.kept("verdicts") == []


@asynccontextmanager
async def smtp_sink(port: int, folder: Path) -> AsyncIterator[None]:
    """Run Postfix's sink, which writes each message that it accepts into a file of its own in *folder*."""
    # As root it wants to be somebody else.
    words = ["-u", "nobody"] if os.geteuid() == 0 else []
    await asyncio.to_thread(folder.chmod, 0o777)
    process = await asyncio.create_subprocess_exec(
        installed("smtp-sink"), *words, "-d", f"{folder}/kept.", f"127.0.0.1:{port}", "200"
    )
    try:
        async with asyncio.timeout(20):
            while not await _listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def dumped(folder: Path) -> Counter[str]:
    """Return how many files each recipient has: the sink writes its envelope before each content."""
    found: Counter[str] = Counter()
    for path in folder.iterdir():
        envelope = path.read_bytes().partition(b"\nReceived:")[0].decode()
        found.update(line.removeprefix("X-Rcpt-Args: ") for line in envelope.splitlines() if "X-Rcpt-Args" in line)
    return found


@pytest.mark.parametrize("messages", [500, pytest.param(5000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_fifty_sessions_of_postfix_at_once_lose_nothing(messages: int) -> None:
    """From smtp-source through a real Outrider into smtp-sink: all answered 250, all sent, one file for each."""
    installed("smtp-source")
    port = next_port()
    with short_directory() as data_dir, short_directory() as folder:
        async with (
            smtp_sink(port, folder),
            outrider(
                data_dir, next_port, relay__upstream=f"smtp://127.0.0.1:{port}?starttls=off", relay__workers="2"
            ) as target,
        ):
            # -d: many messages on one connection; -N: a recipient of its own for each message.
            words = ["-d", "-N", "-s", "50", "-m", str(messages), "-l", "4096"]
            words += ["-f", "shop@example.com", "-t", "r@example.net", f"127.0.0.1:{target.smtp}"]
            await program("smtp-source", *words, patience=600)
            async with target.ledger() as ledger, ledger.session() as session:
                rows = await session._connection.fetch(
                    "SELECT convert_from(m.recipient, 'utf8') AS recipient, d.status::text AS status, d.doubts"
                    " FROM message m JOIN delivery d ON d.message = m.id"
                )
        assert Counter((row["status"], row["doubts"]) for row in rows) == {("sent", 0): messages}
        assert len({row["recipient"] for row in rows}) == messages
        assert dumped(folder) == {f"<{row['recipient']}>": 1 for row in rows}
