"""Whatever a mailer or a visitor gets wrong, or a second Outrider, is named clearly, changes nothing, loses nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from injector.tokens import Keyring, Purpose
from ledger.ids import key_bytes
from sidecar.embedded import running as running_servers
from tests.commands import Ended, command
from tests.conftest import Eventually, next_port
from tests.mailer import Mailer
from tests.playing import accepted, asked, mail, submit, tracked, unsubscribe, visit
from tests.running import Outrider, outrider, short_directory

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("bad_input_is_named"),
    pytest.mark.timeout(180),
]

MAX_BYTES = 50_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target() -> AsyncIterator[Outrider]:
    """Run an Outrider for every test of this file; it takes mail from 127.0.0.1 alone."""
    with short_directory() as data_dir:
        async with outrider(
            data_dir, next_port, relay__max_bytes=str(MAX_BYTES), relay__max_recipients="3", relay__allow="127.0.0.1/32"
        ) as running:
            yield running


async def test_a_port_that_is_taken_is_named(target: Outrider) -> None:
    """Somebody else listens there: the start fails, says where, and ends."""
    settings = ("relay.listen", "tracker.listen", "console.listen")
    servers = await _servers(target)

    async def start(setting: str) -> tuple[int, Ended]:
        with socket.socket() as taken, short_directory() as data_dir:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            listens = _listens() | {setting: f"127.0.0.1:{port}"}
            words = [word for name, value in listens.items() for word in ("--set", f"{name}={value}")]
            more = ["--set", "relay.upstream=capture", "--set", "relay.workers=1", "--data-dir", str(data_dir)]
            return port, await command("run", *words, *more, environment=servers)

    for setting, (port, ended) in zip(settings, await asyncio.gather(*map(start, settings)), strict=True):
        assert ended.code == 1, (setting, ended.err)
        assert str(port) in ended.err, setting
        assert "Traceback" not in ended.err


def _listens() -> dict[str, str]:
    return {name: f"127.0.0.1:{next_port()}" for name in ("relay.listen", "tracker.listen", "console.listen")}


async def _servers(target: Outrider) -> dict[str, str]:
    """Return the addresses of the running Outrider's servers: a start on them takes no servers of its own."""
    servers = running_servers(target.data_dir)
    assert servers is not None
    secrets = {
        "OUTRIDER_KEYS__IDENTITY": (target.data_dir / "identity.key").read_text().strip(),
        "OUTRIDER_KEYS__SIGNING": (target.data_dir / "signing.key").read_text().strip(),
    }
    return {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url, **secrets}


async def test_a_data_directory_in_use_is_named_and_its_user_goes_on(target: Outrider) -> None:
    """A second Outrider on the same directory is refused with the first one's pid; the first one notices nothing."""
    words = [word for name, value in _listens().items() for word in ("--set", f"{name}={value}")]
    before = await _metric_names(target)
    assert "outrider_relay_connections_total" in before
    ended = await command("run", "--data-dir", str(target.data_dir), "--set", "relay.upstream=capture", *words)
    assert ended.code == 1
    assert f"another Outrider (pid {target.pid}) runs on this data directory: {target.data_dir}" in ended.err
    assert "Traceback" not in ended.err
    await accepted(target.smtp, mail("in.use@mailer.example.com"), "in.use@example.net")
    assert await _metric_names(target) >= before, "the metrics of the running Outrider are gone"


async def _metric_names(target: Outrider) -> set[str]:
    url = f"http://127.0.0.1:{target.console}/metrics"
    answer = await visit(url, headers={"Authorization": f"Bearer {target.token}"})
    assert answer.status == 200
    return {line.partition(" ")[0].partition("{")[0] for line in answer.body.decode().splitlines() if line[:1] != "#"}


async def test_a_forged_token_changes_nothing(target: Outrider, eventually: Eventually) -> None:
    """Altered, cut, for another purpose, of another key, or none at all: 404 and a page, and no hit."""
    key = await accepted(target.smtp, mail("forged@mailer.example.com", campaign="501"), "forged@example.net")
    ours = tracked((target.data_dir / "capture" / f"{key}.eml").read_bytes())
    foreign = Keyring([b"a key of somebody else's"])
    base, _, token = ours.links[0].rpartition("/")
    forged = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token[:-1],
        token + "A",
        token + "=",
        token.upper(),
        ("A" if token[0] != "A" else "B") + token[1:],
        ours.pixel.rpartition("/")[2],
        ours.unsubscribe.rpartition("/")[2],
        foreign.mint(Purpose.CLICK, key_bytes(key), 0, "https://evil.example.com/"),
        "https://evil.example.com/",
        "",
    ]
    for wrong in forged:
        answer = await visit(f"{base}/{wrong}")
        assert (answer.status, answer.location) == (404, None), wrong
        assert answer.content_type == "text/html"
        assert b"evil" not in answer.body
        # A broken image would betray the pixel: it is shown for any token.
        assert (await visit(f"{base.replace('/track/c', '/track/o')}/{wrong}")).content_type == "image/gif"
    for wrong in forged[:7]:
        address = f"http://127.0.0.1:{target.http}/unsubscribe/{wrong}"
        assert (await visit(address)).status == 404
        assert (await unsubscribe(address)).status == 200
    await visit(ours.links[0])

    async def recorded() -> bool:
        return bool((await asked(target, "/api/campaigns/501"))["clicks"])

    await eventually(recorded, timeout=30)
    message = await asked(target, f"/api/messages/{key}")
    # The one true click, and the open whose token stood, rightly, behind its own path.
    assert sorted(event["type"] for event in message["events"]) == ["clicked", "opened"]
    assert message["engagement"]["unsubscribed"] is False


async def test_a_mail_that_is_too_large_is_refused_with_its_limit(target: Outrider) -> None:
    """552 at MAIL when its size is declared, and after the final dot when it is not; the session goes on."""
    large = mail("large@mailer.example.com", text="x" * MAX_BYTES)
    assert await submit(target.smtp, large, "large@example.net") == (552, "5.3.4 Message size exceeds fixed limit")
    mailer = await _greeted(target)
    assert f"SIZE {MAX_BYTES}".encode() in await mailer.say(b"EHLO mailer.example.com")
    declared = await mailer.say(b"MAIL FROM:<a@shop.example.com> SIZE=%d" % (MAX_BYTES + 1))
    assert declared == b"552 5.3.4 Message size exceeds fixed limit\r\n"
    await _takes_a_good_one(target, mailer, "after.large")


async def _greeted(target: Outrider, source: str | None = None) -> Mailer:
    local = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", target.smtp, local_addr=local)
    return await Mailer(reader, writer).hello()


async def _takes_a_good_one(target: Outrider, mailer: Mailer, name: str) -> None:
    """The same session, after all refusals, is good for a mail."""
    content = mail(f"{name}@mailer.example.com")
    assert (await mailer.begin(f"<{name}@example.net>".encode(), sender=b"<a@shop.example.com>")).startswith(b"354")
    await mailer.send(content)
    reply = await mailer.say(b".")
    assert reply.startswith(b"250 2.0.0 Ok: queued as ")
    key = reply.split()[-1].decode()
    assert (target.data_dir / "capture" / f"{key}.eml").is_file()
    assert (await mailer.say(b"QUIT")).startswith(b"221")
    await mailer.close()


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"RCPT TO:<ann>", b"501 5.1.3 "),
        (b"RCPT TO:<ann@@example.net>", b"501 5.1.3 "),
        (b"RCPT TO:<ann example@example.net>", b"501 5.1.3 "),
        (b"RCPT TO:<=?utf-8?q?ann?=@example.net>", b"501 5.1.3 "),
        (b"RCPT TO:<ann@-example.net>", b"501 5.1.3 "),
        (b"RCPT TO:<%b@example.net>" % (b"a" * 65), b"501 5.1.3 "),
        ("RCPT TO:<анна@example.net>".encode(), b"553 5.6.7 "),
        ("RCPT TO:<ann\u202e@example.net>".encode(), b"553 5.6.7 "),
        (b"RCPT TO:<ann@example.net> NOTIFIED=yes", b"555 5.5.4 "),
        (b"RCPT <ann@example.net>", b"501 5.1.3 "),
        (b"MAIL FROM:<b@example.net>", b"503 5.5.1 "),
        (b"SEND FROM:<b@example.net>", b"500 5.5.1 "),
        (b"DATA", b"503 5.5.1 "),
    ],
)
async def test_a_wrong_command_is_refused_by_its_kind(target: Outrider, line: bytes, reply: bytes) -> None:
    """One reply with the code of the mistake; the transaction and the session stand, and nothing of it is entered."""
    mailer = await _greeted(target)
    assert (await mailer.say(b"MAIL FROM:<a@shop.example.com>")).startswith(b"250")
    assert (await mailer.say(line)).startswith(reply)
    assert (await mailer.say(b"RSET")).startswith(b"250")
    await _takes_a_good_one(target, mailer, "after.wrong")


async def test_too_many_recipients_are_452_and_the_first_are_served(target: Outrider) -> None:
    """More than MAX_RECIPIENTS: the mailer is told to send the rest in another transaction."""
    mailer = await _greeted(target)
    await mailer.say(b"MAIL FROM:<a@shop.example.com>")
    replies = [await mailer.say(b"RCPT TO:<many.%d@example.net>" % number) for number in range(4)]
    assert [reply[:9] for reply in replies] == [b"250 2.1.5"] * 3 + [b"452 4.5.3"]
    await mailer.say(b"DATA")
    await mailer.send(mail("many@mailer.example.com"))
    reply = await mailer.say(b".")
    listed = (await asked(target, f"/api/messages?submission={reply.split()[-1].decode()}"))["messages"]
    assert sorted(message["recipient"] for message in listed) == [f"many.{number}@example.net" for number in range(3)]
    await mailer.close()


async def test_a_network_that_is_not_allowed_may_not_submit(target: Outrider) -> None:
    """550 at MAIL for everybody outside relay.allow: never an open relay."""
    mailer = await _greeted(target, source="127.0.0.2")
    assert await mailer.say(b"MAIL FROM:<a@shop.example.com>") == b"550 5.7.1 Relaying denied\r\n"
    assert (await mailer.say(b"RCPT TO:<ann@example.net>")).startswith(b"503")
    await mailer.close()
    code, _ = await submit(target.smtp, mail("denied@mailer.example.com"), "denied@example.net", source="127.0.0.2")
    assert code == 550
    assert (await asked(target, "/api/messages?recipient=denied@example.net"))["messages"] == []


async def test_the_console_names_what_is_wrong_with_a_question(target: Outrider) -> None:
    """Without the token 401; a misspelt or impossible parameter 400 with its name; what is not there 404."""
    bearer = {"Authorization": f"Bearer {target.token}"}
    for path, headers, status, code in [
        ("/api/campaigns", {}, 401, "unauthorized"),
        ("/api/campaigns", {"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        ("/api/messages?campain=1", bearer, 400, "unknown_parameter"),
        ("/api/messages?limit=0", bearer, 400, "bad_parameter"),
        ("/api/messages?status=lost", bearer, 400, "bad_parameter"),
        ("/api/events?since=yesterday", bearer, 400, "bad_parameter"),
        ("/api/messages?cursor=x", bearer, 400, "bad_parameter"),
        ("/api/campaigns/nothing", bearer, 404, "not_found"),
        ("/api/messages/nothing", bearer, 404, "not_found"),
        ("/api/nothing", bearer, 404, "not_found"),
    ]:
        answer = await visit(f"http://127.0.0.1:{target.console}{path}", headers=headers)
        assert (answer.status, answer.content_type) == (status, "application/json"), path
        said = msgspec.json.decode(answer.body)["error"]
        assert said["code"] == code, path
        assert said["message"]
