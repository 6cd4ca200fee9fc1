"""Promise 9: no personal data in a URL, a log line or a metric label; no token and no key either.

One Outrider is treated roughly: refused recipients, forged tokens, dead servers, an AMS and an upstream that repeat
addresses in their errors. Then everything that others may read is searched for every spelling of what nobody may read.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from email import message_from_bytes
from typing import Any
from urllib.parse import quote

import aiosmtplib
import msgspec
import pytest
import pytest_asyncio

from ledger.stream import STREAM, connect
from sidecar.embedded import running as running_servers
from sidecar.standin_ams import StandinAms
from tests.conftest import next_port
from tests.mailer import Mailer
from tests.playing import accepted, asked, mail, ready, submit, tracked, unsubscribe, until, visit
from tests.running import Outrider, outrider, short_directory
from tests.sink import Sink
from tests.spellings import found, spellings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("no_personal_data"),
    pytest.mark.timeout(240),
]

PEOPLE = ("zebulon.quagmire@example.net", "Ottilie.Brandywine@Example.org", "fitzgerald-42@example.com")
NAMES = ("Zebulon", "Quagmire", "Ottilie", "Brandywine", "fitzgerald-42")
VERP = "bounce+zebulon.quagmire=example.net@shop.example.com"
CAMPAIGN = "918273645"
API_KEY = "ams-api-key-7f3b9c1d5e"
PASSWORD = "upstream-passw0rd-2b8e4a"
PLAIN = "https://shop.example.com/sale?day=1"

#: What the mailer's own links hold: ours must not show it.
PERSONAL = (
    PLAIN,
    f"https://shop.example.com/?email={PEOPLE[0]}&name=Zebulon+Quagmire",
    f"https://shop.example.com/{quote(PEOPLE[0], safe='')}/{CAMPAIGN}",
    f"https://shop.example.com/who/{base64.urlsafe_b64encode(PEOPLE[0].encode()).decode()}",
)
_TOKEN = re.compile(rb"/(?:track/[oc]|unsubscribe)/([^\s\"'<>]+)")


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """What a rough day leaves behind, by where it can be read."""

    #: Every URL of ours in mail that left.
    urls: tuple[bytes, ...]
    logs: Mapping[str, bytes]
    metrics: bytes
    stream: bytes
    journal: bytes
    #: What opens doors: keys, passwords, the console's token.
    secrets: Mapping[str, str]

    @property
    def tokens(self) -> set[bytes]:
        """Every token that stands in a URL."""
        return {match[1] for url in self.urls for match in _TOKEN.finditer(url)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traces() -> AsyncIterator[Traces]:
    """Let a rough day pass, and collect its traces."""
    with short_directory() as data_dir:
        async with (
            Sink().listening() as sink,
            StandinAms(api_key=API_KEY) as ams,
            outrider(
                data_dir,
                next_port,
                relay__upstream=f"smtp://mailer:{PASSWORD}@127.0.0.1:{sink.port}?starttls=off",
                relay__ledger_wait="1",
                relay__retry_first="0.2",
                ams__url=ams.url,
                ams__api_key=API_KEY,
                ams__interval="0.2",
            ) as target,
        ):
            yield await _rough_day(target, sink, ams)


async def _rough_day(target: Outrider, sink: Sink, ams: StandinAms) -> Traces:
    keys = [await accepted(target.smtp, _personal(number), *PEOPLE, sender=VERP) for number in range(3)]
    assert len(keys) == 3
    stream = await _seen_in_stream(target, sink)
    journal = await _seen_in_journal(target, sink)
    await _visits(target, sink)
    await _refusals(target, sink)
    await _deaths(target, sink)
    await _ams_that_repeats_addresses(target, ams, sink)
    metrics = await _metrics(target)
    servers = running_servers(target.data_dir)
    assert servers is not None
    secrets = {name: (target.data_dir / name).read_text().strip() for name in ("signing.key", "identity.key")}
    for name, url in (("PostgreSQL", servers.database_url), ("Redis", servers.redis_url)):
        password = re.search(r":([0-9a-f]{48})@", url)
        assert password is not None
        secrets[name] = password[1]
    secrets |= {"console token": target.token, "AMS": API_KEY, "upstream": PASSWORD}
    logs = {path.name: path.read_bytes() for path in (target.data_dir / "log").iterdir()}
    return Traces(
        urls=tuple(url for kept in sink.kept for url in _urls(kept.content, target.http)),
        logs=logs | {target.log.name: target.log.read_bytes()},
        metrics=metrics,
        stream=stream,
        journal=journal,
        secrets=secrets,
    )


def _personal(number: int) -> bytes:
    extra = (
        f"Cc: Ottilie Brandywine <{PEOPLE[1]}>\r\nList-Id: <{CAMPAIGN}.example.com>\r\n"
        f"X-Recipient: Zebulon Quagmire <{PEOPLE[0]}>\r\n"
    )
    text = f"Dear Zebulon Quagmire ({PEOPLE[0]}),"
    identity = f"{CAMPAIGN}.zebulon.quagmire.{number}@mailer.example.com"
    return mail(identity, campaign=CAMPAIGN, links=PERSONAL, text=text, extra=extra)


def _urls(content: bytes, port: int) -> list[bytes]:
    message = message_from_bytes(content)
    header = "".join(f"{value}\n" for value in message.values()).encode()
    bodies = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
    whole = header + b"".join(body for body in bodies if isinstance(body, bytes))
    return re.findall(rb"http://127\.0\.0\.1:%d/[^\s\"'<>]+" % port, whole)


async def _seen_in_stream(target: Outrider, sink: Sink) -> bytes:
    """Return what Redis holds of hits while nobody takes them out."""
    servers = running_servers(target.data_dir)
    assert servers is not None
    with target.frozen("courier"):
        for kept in sink.kept[:3]:
            ours = tracked(kept.content)
            for url in (ours.pixel, ours.links[0]):
                await visit(url)
            await unsubscribe(ours.unsubscribe)
        client = connect(servers.redis_url)
        try:
            entries: Any = await client.xrange(STREAM)
        finally:
            await client.aclose()
    assert len(entries) >= 9
    return repr(entries).encode() + b"".join(field for _, fields in entries for field in fields.values())


async def _seen_in_journal(target: Outrider, sink: Sink) -> bytes:
    """Return what the tracker's disk holds of hits while Redis is away."""
    async with target.without("redis"):
        for kept in sink.kept[:3]:
            ours = tracked(kept.content)
            for url in (ours.pixel, ours.links[0]):
                await visit(url)
            await unsubscribe(ours.unsubscribe)
        journal = b"".join(path.read_bytes() for path in (target.data_dir / "journal").rglob("*") if path.is_file())
    assert len(journal) > 500

    async def drained() -> bool:
        return bool((await ready(target.http))[1]["degraded"] == [])

    await until(drained)
    return journal


async def _visits(target: Outrider, sink: Sink) -> None:
    """Follow personal links, and send everything a stranger could send to the public listener."""
    base = f"http://127.0.0.1:{target.http}"
    for kept in sink.kept[:2]:
        for link in tracked(kept.content).links:
            assert (await visit(link)).status == 302
    token = tracked(sink.kept[0].content).links[1].rpartition("/")[2]
    for path in (
        f"/track/c/{token[:-3]}AAA",
        f"/track/c/{token}?email={PEOPLE[0]}",
        f"/track/o/{quote(PEOPLE[0])}",
        f"/unsubscribe/{token}",
        f"/{quote(PEOPLE[0])}",
        f"/webhooks/ses?who={PEOPLE[0]}",
        f"/%zz{PEOPLE[0]}",
    ):
        for method in ("GET", "POST", "HEAD"):
            await visit(base + path, method, headers={"Referer": f"https://webmail.example.com/?u={PEOPLE[0]}"})
    # The operator looks somebody up, rightly and wrongly.
    await asked(target, f"/api/messages?recipient={quote(PEOPLE[0])}")
    await visit(f"http://127.0.0.1:{target.console}/api/messages?token={target.token}&recipient={PEOPLE[0]}")
    await visit(f"http://127.0.0.1:{target.console}/api/messages/{quote(PEOPLE[0])}/{token}")


async def _refusals(target: Outrider, sink: Sink) -> None:
    """Let the upstream refuse and defer people by name, and mailers send what no mailer should."""
    # Without a campaign: everybody has unsubscribed by now.
    sink.rcpt = lambda who: f"550 5.1.1 <{who}>: Zebulon Quagmire is unknown here"
    assert (await submit(target.smtp, mail("refused@mailer.example.com", campaign=None), PEOPLE[2]))[0] == 550
    await submit(target.smtp, mail("refused.2@mailer.example.com", campaign=None), PEOPLE[2], "bob@example.net")
    sink.rcpt = lambda who: f"451 4.7.1 <{who}> greylisted, {PEOPLE[0]}"
    key = await accepted(target.smtp, mail("deferred@mailer.example.com", campaign=None), PEOPLE[2])
    sink.rcpt = lambda _: "250 2.1.5 Ok"
    sink.mail = lambda who: f"535 5.7.8 {who} {PASSWORD} is not welcome"
    await accepted(target.smtp, mail("rejected@mailer.example.com", campaign=None), PEOPLE[2])
    sink.mail = lambda _: "250 2.1.0 Ok"

    async def sent() -> bool:
        return bool((await asked(target, f"/api/messages/{key}"))["status"] == "sent")

    await until(sent)
    await _babble(target.smtp)


async def _babble(port: int) -> None:
    mailer = Mailer(*await _connection(port))
    await mailer.hello()
    for line in (
        f"VRFY {PEOPLE[0]}",
        f"ZEBULON {PEOPLE[0]}",
        f"AUTH PLAIN {base64.b64encode(PEOPLE[0].encode()).decode()}",
        f"MAIL FROM:<{PEOPLE[0]}> BOGUS={PEOPLE[1]}",
        f"MAIL FROM:<{PEOPLE[0]}",
        f"MAIL FROM:<{PEOPLE[0]}>",
        f"RCPT TO:<=?utf-8?q?{PEOPLE[0]}?=@example.net>",
        f"RCPT TO:<{PEOPLE[0]}@{PEOPLE[1]}>",
        f"RCPT TO:<{PEOPLE[1]}>",
    ):
        await mailer.say(line.encode())
    await mailer.say(b"DATA")
    await mailer.send(f"Subject: {PEOPLE[0]}\r\n\r\nbare\rCR\r\n".encode())
    assert (await mailer.say(b".")).startswith(b"550")
    await mailer.close()


async def _connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def _deaths(target: Outrider, sink: Sink) -> None:
    """Let PostgreSQL die under a submission and a hit, then the courier and the relay by themselves."""
    ours = tracked(sink.kept[0].content)
    async with target.without("postgresql"):
        assert (await submit(target.smtp, mail("lost@mailer.example.com", campaign=None), PEOPLE[0]))[0] == 451
        await visit(ours.links[1])
        await visit(f"http://127.0.0.1:{target.console}/api/messages/{quote(PEOPLE[0])}", headers=_bearer(target))
    for role in ("courier", "relay"):
        async with target.without(role):
            await visit(ours.links[1])

    async def back() -> bool:
        with contextlib.suppress(OSError, aiosmtplib.SMTPException):
            content = mail("back@mailer.example.com", campaign=None)
            return (await submit(target.smtp, content, PEOPLE[1]))[0] == 250
        return False

    await until(back)


def _bearer(target: Outrider) -> dict[str, str]:
    return {"Authorization": f"Bearer {target.token}"}


async def _ams_that_repeats_addresses(target: Outrider, ams: StandinAms, sink: Sink) -> None:
    """Let AMS refuse one person by name until his item stands parked."""
    ams.refused_addresses = {PEOPLE[0]}
    name = PEOPLE[0]
    mine = next(kept for kept in sink.kept if kept.recipient == name)
    async with target.ledger() as ledger, ledger.session() as session:
        # A killed courier's lease runs out by itself; nothing here is about waiting for it.
        await session._connection.execute("UPDATE lease SET lease_until = now()")
    await visit(tracked(mine.content).pixel)

    async def refused() -> bool:
        said = (await asked(target, f"/api/campaigns/{CAMPAIGN}"))["ams"]
        return said["last_error"] is not None or said["parked"] > 0

    await until(refused)


async def _metrics(target: Outrider) -> bytes:
    answer = await visit(f"http://127.0.0.1:{target.console}/metrics", headers=_bearer(target))
    assert answer.status == 200
    return answer.body


async def test_the_search_would_find_what_it_looks_for() -> None:
    """The control: an address is found plain, escaped, hashed, and inside base64 at any place."""
    address = PEOPLE[1]
    for before in ("", "a", "ab", "abc", "https://x.example/?e="):
        hidden = base64.urlsafe_b64encode(f"{before}{address.lower()}&more".encode())
        assert found(address, b"/track/c/" + hidden)
    assert found(address, b"GET /?e=ottilie.brandywine%40example.org HTTP/1.1")
    assert len(spellings(address)) > 60
    assert not found(address, b"nothing of the kind: ottilie dot brandywine at example dot org")


async def test_no_url_of_ours_holds_a_person_or_a_campaign(traces: Traces) -> None:
    """Nor where the mailer's own link held one: not plain, not encoded, not hashed, and not inside the token."""
    assert len(traces.urls) >= 3 * 3 * (len(PERSONAL) + 2)
    assert len(traces.tokens) == len(set(traces.urls))
    for url in traces.urls:
        inside = b"".join(_decoded(part) for token in _TOKEN.findall(url) for part in token.split(b"."))
        for secret in (*PEOPLE, *NAMES, VERP, CAMPAIGN, *traces.secrets.values()):
            assert found(secret, url) == []
            assert found(secret, inside) == []
        assert b"shop.example.com" not in url + inside


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


async def test_no_log_line_holds_a_person_a_token_or_a_key(traces: Traces) -> None:
    """What all processes said of a rough day, PostgreSQL's and Valkey's own logs included."""
    said = traces.logs["stderr.log"]
    # The day left its marks: what is searched is not empty.
    for event in (b"ledger_unavailable", b"redis_distrusted", b"role_died", b"messages_stored"):
        assert event in said, event
    assert set(traces.logs) >= {"postgres.log", "valkey.log", "stderr.log"}
    for log in traces.logs.values():
        for secret in (*PEOPLE, *NAMES, VERP, *traces.secrets.values()):
            assert found(secret, log) == []
        for token in traces.tokens:
            assert token not in log
            assert token[:40] not in log


async def test_no_metric_holds_a_person_a_campaign_a_message_or_a_key(traces: Traces) -> None:
    """Labels are words of ours: reasons, roles, outcomes."""
    assert b"outrider_hits_total" in traces.metrics
    assert b"outrider_upstream_attempts_total" in traces.metrics
    for secret in (*PEOPLE, *NAMES, VERP, CAMPAIGN, "shop.example.com", *traces.secrets.values()):
        assert found(secret, traces.metrics) == []
    assert not any(token[:40] in traces.metrics for token in traces.tokens)
    # Neither a message key nor anything else that grows with the mail: 26 characters of base32.
    labels = re.findall(rb'="([^"]*)"', traces.metrics)
    assert not [label for label in labels if re.fullmatch(rb"[a-z2-7]{26}", label) or b"@" in label]


@pytest.mark.parametrize("place", ["stream", "journal"])
async def test_a_hit_that_waits_holds_a_key_and_no_address(traces: Traces, place: str) -> None:
    """Who reads Redis or the tracker's disk learns what was clicked, and not by whom."""
    waiting = traces.stream if place == "stream" else traces.journal
    assert PLAIN.encode() in waiting
    for secret in (*PEOPLE, *NAMES, VERP, CAMPAIGN, *traces.secrets.values()):
        assert found(secret, waiting) == []
    assert not any(token in waiting for token in traces.tokens)
    # A visitor is a network.
    assert b"127.0.0.0/24" in waiting
    assert b"127.0.0.1" not in waiting
