"""A provider's events over a real listener into a real stream: 2xx is given for what is durable and nothing else."""

import asyncio
import gzip
import json
import logging
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from providers import credentials
from providers.fields import decoded
from providers.notice import Name, Notice, Step, What, decode_notice
from providers.webhook import (
    Answer,
    DeniedError,
    Fetch,
    MalformedError,
    Parsed,
    Proven,
    Provider,
    Request,
    Trust,
)
from tests.conftest import Eventually
from tests.tracker_support import Answer as Told
from tests.tracker_support import Door, Tracker, door, make_hits, noticed, tracking
from tracker.bodies import MAX_BODY, Bodies
from tracker.buffer import SafeBuffer, open_buffer
from tracker.documents import Documents
from tracker.fetch import DocumentError
from tracker.once import WORD_SECONDS, Once
from tracker.segment import MAX_PAYLOAD, records
from tracker.settings import TrackerSettings
from tracker.shared_words import RedisWords
from tracker.webhook import make_webhooks

SECRET, OLDER = "a secret of the webhook's URL", "an/older+one=="
WAY = "/webhooks/acme?key=a%20secret%20of%20the%20webhook's%20URL"
KEY_SET = "https://keys.example.com/set.json"
TICK = 0.05
NOW = 1_767_323_045.0


def read(request: Request) -> Parsed:
    """Read what the provider of these tests sends: `{"events": […]}`, and what else a test wants of it."""
    body = decoded(request.body)
    if not isinstance(body, dict):
        raise MalformedError("no object")
    if body.get("bug"):
        raise LookupError("a bug that knows ann@example.net")
    notices = tuple(
        Notice(
            provider="acme",
            what=What(event["type"]),
            dedupe=event["id"],
            recipient="ann@example.net",
            names=(Name(Step.PROVIDER_ID, event["id"]),),
            raw=b"x" * body.get("raw", 10),
        )
        for event in body.get("events", [])
    )
    answer = Answer(status=202, body=b"hello", headers={"X-Acme": "1"}) if body.get("hello") else None
    return Parsed(notices=notices, answer=answer, visit=body.get("visit", ""))


def believe(request: Request, trust: Trust, now: float, documents: Mapping[str, bytes]) -> Proven:
    """Believe a secret; `X-Once` is the word that is used once."""
    credentials.by_secret(request, trust, now, documents)
    return Proven(once=request.headers.get("x-once", ""))


def probed(request: Request, trust: Trust) -> Answer | None:  # noqa: ARG001 - the shape of `Provider.probe`
    """Answer OPTIONS as Event Grid wants it, and no GET."""
    origin = request.headers.get("webhook-request-origin", "")
    return Answer(headers={"WebHook-Allowed-Origin": origin}) if request.method == "OPTIONS" and origin else None


def believe_signed(request: Request, trust: Trust, now: float, documents: Mapping[str, bytes]) -> Proven | Fetch:
    """Believe who knows what the operator's document says."""
    assert now == NOW
    if request.headers.get("x-endless"):
        return Fetch(url=f"https://keys.example.com/{len(documents)}")
    if trust.key_set not in documents:
        return Fetch(url=trust.key_set)
    if request.headers.get("x-signature", "").encode() != documents[trust.key_set]:
        raise DeniedError("a wrong signature")
    return Proven()


def no_reply_id(text: str) -> str | None:  # noqa: ARG001 - the shape of `Provider.reply_id`
    """Know no id."""
    return None


ACME = Provider(
    name="acme",
    configured=credentials.has_secret,
    authenticate=believe,
    parse=read,
    probe=probed,
    reply_id=no_reply_id,
)
SIGNED = Provider(
    name="signed",
    configured=lambda trust: bool(trust.key_set),
    authenticate=believe_signed,
    parse=read,
    reply_id=no_reply_id,
)
CLOSED = Provider(
    name="closed", configured=credentials.has_secret, authenticate=believe, parse=read, reply_id=no_reply_id
)
PROVIDERS = {one.name: one for one in (ACME, SIGNED, CLOSED)}
TRUST = {"acme": Trust(secrets=(SECRET, OLDER)), "signed": Trust(key_set=KEY_SET)}


class Shelf:
    """The documents of the world, and who asked for which."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {KEY_SET: b"first key"}
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        """Give a document that is there."""
        self.asked.append(url)
        if url not in self.documents:
            raise DocumentError("it answered 404")
        return self.documents[url]


class Site(msgspec.Struct, frozen=True):
    """A tracker with webhooks, and what stands behind it."""

    tracker: Tracker
    buffer: SafeBuffer
    shelf: Shelf
    clock: list[float]

    async def post(self, body: object, way: str = WAY, headers: dict[str, str] | None = None) -> Told:
        """Post JSON, or octets as they are."""
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.tracker.ask(way, "POST", {"Content-Type": "application/json", **(headers or {})}, octets)


Start = Callable[..., Any]


@asynccontextmanager
async def site(
    redis_url: str,
    directory: Path,
    *,
    bodies: Bodies | None = None,
    tick: float = TICK,
    public_url: str = "https://track.example.com",
) -> AsyncIterator[Site]:
    """Run a tracker with webhooks: all of it as the process puts it together, but for the fetcher and the clocks."""
    shelf, clock = Shelf(), [1000.0]
    async with AsyncExitStack() as stack:
        settings = TrackerSettings(append_wait=5.0)
        buffer = await stack.enter_async_context(open_buffer(redis_url, directory, settings, tick=tick))
        words = RedisWords(redis_url)
        stack.push_async_callback(words.close)
        documents = Documents(shelf, clock=lambda: clock[0], visit_pauses=(0.0, 0.0))
        stack.push_async_callback(documents.close)
        webhooks = make_webhooks(
            providers=PROVIDERS,
            trust=lambda name: TRUST.get(name, Trust()),
            buffer=buffer,
            once=Once(words, answers=buffer.answers),
            documents=documents,
            bodies=bodies,
            clock=lambda: NOW,
            public_url=public_url,
        )
        stack.push_async_callback(webhooks.close)
        tracker = await stack.enter_async_context(tracking(buffer, public_url=public_url, routes=webhooks.routes))
        yield Site(tracker, buffer, shelf, clock)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the journal is."""
    return tmp_path / "journal"


@pytest_asyncio.fixture
async def running(redis_url: str, directory: Path) -> AsyncIterator[Site]:
    """Run a tracker with webhooks on a healthy Redis."""
    async with site(redis_url, directory) as made:
        yield made


@pytest_asyncio.fixture
async def way(redis_url: str) -> AsyncIterator[Door]:
    """Put a door in front of Redis."""
    async with door(redis_url) as made:
        yield made


def events(count: int, kind: str = "delivered", first: int = 0) -> dict[str, object]:
    """Return a body with so many events, each with an id of its own."""
    return {"events": [{"id": f"e-{number}", "type": kind} for number in range(first, first + count)]}


def counted(provider: str, answer: str) -> float:
    """Return how many requests had this outcome so far."""
    return REGISTRY.get_sample_value("outrider_webhook_requests_total", {"provider": provider, "answer": answer}) or 0.0


def journaled(directory: Path) -> list[Notice]:
    """Return the notices in the journal's files."""
    contents = [path.read_bytes() for path in sorted(directory.glob("*.hits"))]
    return [decode_notice(payload) for content in contents for payload in records(content)[0]]


class TestRecorded:
    """What is proved and understood is in the stream before the provider hears 200."""

    async def test_an_event_is_durable_before_the_answer(self, running: Site, redis_url: str) -> None:
        before = counted("acme", "recorded")
        answer = await running.post(events(2, "opened"))
        assert (answer.status, answer.body) == (200, b"")
        assert "no-store" in answer.headers["cache-control"]
        found = await noticed(redis_url)
        assert [(one.provider, one.what, one.dedupe) for one in found] == [
            ("acme", What.OPENED, "e-0"),
            ("acme", What.OPENED, "e-1"),
        ]
        assert counted("acme", "recorded") == before + 1

    async def test_what_the_provider_does_not_date_happened_when_it_came(self, running: Site, redis_url: str) -> None:
        await running.post(events(1))
        (found,) = await noticed(redis_url)
        assert found.at_ms == NOW * 1000

    async def test_events_are_counted_by_their_type(self, running: Site) -> None:
        def bounced() -> float:
            labels = {"provider": "acme", "type": "bounced"}
            return REGISTRY.get_sample_value("outrider_webhook_events_total", labels) or 0.0

        before = bounced()
        await running.post(events(3, "bounced"))
        assert bounced() == before + 3

    async def test_a_batch_of_five_thousand_is_one_answer_and_pixels_do_not_wait(
        self, running: Site, redis_url: str
    ) -> None:
        body = {**events(5000), "raw": 1200}
        posted = asyncio.create_task(running.post(json.dumps(body).ljust(4_000_000).encode()))
        waits: list[float] = []
        while not posted.done():
            started = time.perf_counter()
            assert (await running.tracker.ask(running.tracker.pixel)).status == 200
            waits.append(time.perf_counter() - started)
        assert (await posted).status == 200
        client_entries = await count(redis_url)
        assert client_entries == 5000 + len(waits)
        # Milliseconds on an idle machine; without a thread and a connection of its own one of them would be the batch.
        assert sorted(waits)[len(waits) // 2] < 0.25

    async def test_many_at_once_are_all_there(self, running: Site, redis_url: str) -> None:
        answers = await asyncio.gather(*(running.post(events(5, first=5 * number)) for number in range(40)))
        assert {answer.status for answer in answers} == {200}
        assert {one.dedupe for one in await noticed(redis_url)} == {f"e-{number}" for number in range(200)}

    async def test_the_provider_hears_what_it_wants(self, running: Site) -> None:
        answer = await running.post({"hello": True})
        assert (answer.status, answer.body, answer.headers["x-acme"]) == (202, b"hello", "1")

    async def test_an_event_that_is_too_long_loses_its_raw_text_only(self, running: Site, redis_url: str) -> None:
        assert (await running.post({**events(1), "raw": MAX_PAYLOAD + 1})).status == 200
        (found,) = await noticed(redis_url)
        assert (found.dedupe, found.raw) == ("e-0", b"")

    async def test_a_subscription_is_confirmed_after_the_answer(self, running: Site, eventually: Eventually) -> None:
        with capture_logs() as logged:
            assert (await running.post({"visit": "https://confirm.example.com/?Token=abc"})).status == 200
            await eventually(lambda: len(running.shelf.asked) == 2)
            await eventually(lambda: logged)
        assert running.shelf.asked == ["https://confirm.example.com/?Token=abc"] * 2
        assert [one["event"] for one in logged] == ["subscription_not_confirmed"]
        assert "Token" not in repr(logged)


async def count(redis_url: str) -> int:
    """Return how many entries the stream has, hits too."""
    from ledger.stream import STREAM, connect

    client = connect(redis_url)
    try:
        return int(await client.xlen(STREAM))
    finally:
        await client.aclose()


class TestRefused:
    """What is not proved or not understood changes nothing."""

    @pytest.mark.parametrize(
        "path",
        ["/webhooks/closed", "/webhooks/nobody", "/webhooks/ACME", "/webhooks/acme/", "/webhooks/", "/webhooks/ac%6De"],
    )
    @pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "OPTIONS", "DELETE"])
    async def test_what_is_not_there_looks_like_any_bad_link(self, running: Site, path: str, method: str) -> None:
        bad = await running.tracker.ask("/nothing", "HEAD" if method == "HEAD" else "GET")
        assert (await running.tracker.ask(f"{path}?key={OLDER}", method)).shown == bad.shown

    @pytest.mark.parametrize("key", ["", "?key=", "?key=wrong", "?key=a%20secret", "?KEY=" + OLDER])
    async def test_without_the_secret_it_is_401(self, running: Site, redis_url: str, key: str) -> None:
        before = counted("acme", "unauthentic")
        answer = await running.post(events(1), "/webhooks/acme" + key)
        assert (answer.status, answer.body) == (401, b"401 Unauthorized\n")
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert counted("acme", "unauthentic") == before + 1
        assert await noticed(redis_url) == []

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            (f"/webhooks/acme?key={OLDER}", {}),
            ("/webhooks/acme?key=an%2Folder%2Bone%3D%3D", {}),
            ("/webhooks/acme?x&a=b&key=" + OLDER + "&key=wrong", {}),
            ("/webhooks/acme", {"Authorization": "Basic " + b64encode(f"me:{SECRET}".encode()).decode()}),
            ("/webhooks/acme", {"Authorization": f"Bearer {OLDER}"}),
        ],
    )
    async def test_any_secret_in_any_place_proves_it(self, running: Site, path: str, headers: dict[str, str]) -> None:
        assert (await running.post(events(1), path, headers)).status == 200

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10_000])
    async def test_what_is_no_body_of_the_provider_is_400(self, running: Site, body: bytes) -> None:
        answer = await running.post(body)
        assert (answer.status, answer.body) == (400, b"400 Bad Request\n")

    async def test_other_methods_are_405_and_say_which_are_not(self, running: Site) -> None:
        for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE"):
            answer = await running.tracker.ask(WAY, method)
            assert (answer.status, answer.headers["allow"]) == (405, "HEAD, POST")

    async def test_probes_are_answered(self, running: Site) -> None:
        assert (await running.tracker.ask(WAY, "HEAD")).status == 200
        answer = await running.tracker.ask(WAY, "OPTIONS", {"WebHook-Request-Origin": "eventgrid.example.net"})
        assert (answer.status, answer.headers["webhook-allowed-origin"]) == (200, "eventgrid.example.net")
        assert (await running.tracker.ask(WAY, "OPTIONS")).status == 405

    async def test_a_bug_is_a_500_without_its_words(self, running: Site) -> None:
        before = counted("acme", "failed")
        with capture_logs() as logged:
            answer = await running.post({"bug": True})
        assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
        assert logged == [{"event": "webhook_failed", "log_level": "error", "provider": "acme", "error": "LookupError"}]
        assert counted("acme", "failed") == before + 1

    async def test_no_query_and_no_body_is_ever_logged(self, running: Site, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG), capture_logs() as logged:
            await running.post(events(1))
            await running.post(b"{ann@example.net")
            await running.post({"bug": True})
            await running.post(events(1), "/webhooks/acme?key=guessed")
            await running.post(events(1), "/webhooks/signed?key=guessed")
        said = caplog.text + repr(logged)
        for word in ("key=", "guessed", "secret", "ann@"):
            assert word not in said

    async def test_readiness_is_the_visitors(self, running: Site) -> None:
        await running.post(b"{")
        await running.post({"bug": True})
        assert (await running.tracker.ask("/readyz")).body == b'{"ready":true,"degraded":[]}\n'


class TestBodies:
    """A body is bounded in size, in time, and in what all of them take together."""

    async def test_eight_mebibytes_are_read_and_not_one_octet_more(self, running: Site, redis_url: str) -> None:
        body = json.dumps(events(1)).encode()
        assert (await running.post(body.ljust(MAX_BODY))).status == 200
        assert (await running.post(body.ljust(MAX_BODY + 1))).status == 413
        assert len(await noticed(redis_url)) == 1

    async def test_a_length_that_is_too_much_is_refused_unread(self, running: Site) -> None:
        request = f"POST {WAY} HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode()
        assert (await running.tracker.say(request)).status == 413

    async def test_chunks_without_end_are_cut(self, running: Site) -> None:
        head = f"POST {WAY} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        assert (await running.tracker.say(head + chunk * 9)).status == 413

    async def test_other_routes_keep_their_own_limit(self, running: Site) -> None:
        answer = await running.tracker.ask(running.tracker.leave, "POST", body=b"x" * 20_000)
        assert answer.status == 413

    async def test_a_bomb_is_not_unpacked(self, running: Site, redis_url: str) -> None:
        bomb = gzip.compress(b" " * 200_000_000, 9)
        started = time.perf_counter()
        answer = await running.post(bomb, headers={"Content-Encoding": "gzip"})
        assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")
        assert time.perf_counter() - started < 5  # it is thrown away for two seconds, then the connection is cut
        for encoding in ("gzip, gzip", "br", "x"):
            assert (await running.post(b"{}", headers={"Content-Encoding": encoding})).status in {400, 415}
        assert await noticed(redis_url) == []

    async def test_a_body_that_does_not_come_is_not_waited_for(self, redis_url: str, directory: Path) -> None:
        async with site(redis_url, directory, bodies=Bodies(seconds=0.2)) as running:
            head = f"POST {WAY} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n".encode()
            assert (await running.tracker.say(head + b"{")).status == 408

    async def test_large_bodies_share_a_room_and_small_ones_need_none(self, redis_url: str, directory: Path) -> None:
        async with site(redis_url, directory, bodies=Bodies(room=300_000)) as running:
            large = json.dumps(events(1)).encode().ljust(200_000)
            holding = [await asyncio.open_connection("127.0.0.1", running.tracker.port) for _ in range(2)]
            for _, writer in holding[:1]:
                writer.write(f"POST {WAY} HTTP/1.1\r\nHost: x\r\nContent-Length: 200001\r\n\r\n".encode() + large)
                await writer.drain()
            answer = await _until(503, lambda: running.post(large))
            assert answer.headers["retry-after"] == "30"
            assert (await running.post(events(1))).status == 200
            for _, writer in holding:
                writer.close()
                await writer.wait_closed()
            assert (await _until(200, lambda: running.post(large))).status == 200


async def _until(status: int, ask: Callable[[], Any]) -> Told:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer: Told = await ask()
        if answer.status == status:
            return answer
    pytest.fail(f"no {status} came")


class TestOnce:
    """A word is good for one request, in all workers, and only when that request was recorded."""

    async def test_a_repeat_is_answered_and_not_recorded(self, running: Site, redis_url: str) -> None:
        before = counted("acme", "repeated")
        for _ in range(3):
            assert (await running.post(events(1), headers={"X-Once": "word"})).status == 200
        assert (await running.post(events(1, first=1), headers={"X-Once": "another"})).status == 200
        assert [one.dedupe for one in await noticed(redis_url)] == ["e-0", "e-1"]
        assert counted("acme", "repeated") == before + 2

    async def test_another_worker_knows_it(self, running: Site, redis_url: str, tmp_path: Path) -> None:
        assert (await running.post(events(1), headers={"X-Once": "word"})).status == 200
        async with site(redis_url, tmp_path / "another") as another:
            assert (await another.post(events(1), headers={"X-Once": "word"})).status == 200
        assert len(await noticed(redis_url)) == 1

    async def test_it_goes_from_redis_by_itself(self, running: Site, redis_url: str) -> None:
        from ledger.stream import connect

        await running.post(events(1), headers={"X-Once": "word"})
        client = connect(redis_url)
        try:
            (name,) = [key async for key in client.scan_iter("outrider:once:*")]
            assert b"word" not in name
            assert 9 * 3600 < await client.ttl(name) <= WORD_SECONDS
        finally:
            await client.aclose()

    async def test_copies_that_come_together_are_recorded_once(
        self, running: Site, redis_url: str, tmp_path: Path
    ) -> None:
        async with site(redis_url, tmp_path / "another") as another:
            copies = [one.post(events(1), headers={"X-Once": "word"}) for one in (running, another) * 10]
            answers = await asyncio.gather(*copies)
        # Who comes while another is in hand hears that it may come again: nothing is known to be durable yet.
        assert {answer.status for answer in answers} <= {200, 503}
        assert len(await noticed(redis_url)) == 1

    async def test_a_redis_that_may_forget_still_tells_workers_apart(
        self, redis_url: str, directory: Path, tmp_path: Path
    ) -> None:
        from ledger.stream import connect

        client = connect(redis_url)
        try:
            await client.config_set("appendonly", "no")
        finally:
            await client.aclose()
        async with site(redis_url, directory) as one, site(redis_url, tmp_path / "another") as another:
            for running in (one, another):
                assert (await running.post(events(1), headers={"X-Once": "word"})).status == 200
            assert len(journaled(directory)) == 1
            assert journaled(tmp_path / "another") == []

    async def test_what_was_refused_may_come_again(self, running: Site, redis_url: str) -> None:
        assert (await running.post({"bug": True}, headers={"X-Once": "word"})).status == 500
        assert (await running.post(b"{", headers={"X-Once": "word"})).status == 400
        assert (await running.post(events(1), headers={"X-Once": "word"})).status == 200
        assert len(await noticed(redis_url)) == 1

    async def test_without_redis_the_worker_knows_its_own(self, way: Door, directory: Path) -> None:
        await way.shut()
        async with site(way.url, directory) as running:
            for _ in range(2):
                assert (await running.post(events(1), headers={"X-Once": "word"})).status == 200
            assert len(journaled(directory)) == 1


class TestKept:
    """2xx is given for what is durable; else the provider is asked to come again, and visitors notice nothing."""

    async def test_with_redis_down_the_journal_keeps_and_then_drains(
        self, way: Door, redis_url: str, directory: Path, eventually: Eventually
    ) -> None:
        await way.shut()
        async with site(way.url, directory) as running:
            assert (await running.post({**events(1200), "raw": 1000})).status == 200
            wanted = {f"e-{number}" for number in range(1200)}
            assert {one.dedupe for one in journaled(directory)} == wanted
            await way.open()
            await eventually(lambda: not journaled(directory))
        assert {one.dedupe for one in await noticed(redis_url)} == wanted

    async def test_a_long_notice_survives_the_journal(self, way: Door, redis_url: str, directory: Path) -> None:
        await way.shut()
        async with site(way.url, directory) as running:
            assert (await running.post({**events(2), "raw": MAX_PAYLOAD - 1000})).status == 200
            await way.open()
        assert [len(one.raw) for one in await noticed(redis_url)] == [MAX_PAYLOAD - 1000] * 2

    async def test_a_redis_that_stalls_is_not_waited_for_long(self, way: Door, directory: Path) -> None:
        async with site(way.url, directory, tick=60) as running:
            await running.post(events(1))
            way.stall()
            started = time.monotonic()
            assert (await running.post(events(1, first=1))).status == 200
            assert time.monotonic() - started < 5  # Postal waits no longer
            assert [one.dedupe for one in journaled(directory)] == ["e-1"]
            way.resume()

    async def test_what_can_be_kept_nowhere_is_503_and_readiness_is_unaffected(
        self, way: Door, redis_url: str, directory: Path, eventually: Eventually
    ) -> None:
        directory.write_bytes(b"not a directory")  # noqa: ASYNC240 - the fault itself
        await way.shut()
        before = counted("acme", "not_kept")
        async with site(way.url, directory) as running:
            with capture_logs() as logged:
                for _ in range(3):
                    answer = await running.post(events(1), headers={"X-Once": "word"})
                    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
            assert [one["event"] for one in logged].count("notices_kept_nowhere") == 1
            assert (await running.tracker.ask("/readyz")).status == 200
            assert counted("acme", "not_kept") == before + 3
            await way.open()
            await eventually(running.buffer.answers)
            assert (await running.post(events(1), headers={"X-Once": "word"})).status == 200
        assert len(await noticed(redis_url)) == 1

    async def test_notices_leave_the_journals_rest_to_hits(self, way: Door, tmp_path: Path) -> None:
        await way.shut()
        settings = TrackerSettings(append_wait=0.5, journal_max_bytes=1_048_576)
        async with open_buffer(way.url, tmp_path / "small", settings, tick=60) as buffer:
            from tracker.keep import BufferUnavailableError

            await buffer.append_notices([b"n" * 1000] * 400)
            with pytest.raises(BufferUnavailableError):
                await buffer.append_notices([b"n" * 1000] * 200)
            await asyncio.gather(*(buffer.append(hit) for hit in make_hits(500)))
            assert buffer.health().ready


class TestDocuments:
    """Where a proof needs a document, it is had once, renewed when it proves nothing, and its absence is no refusal."""

    async def test_a_document_is_asked_for_once(self, running: Site, redis_url: str) -> None:
        for number in range(3):
            answer = await running.post(events(1, first=number), "/webhooks/signed", {"X-Signature": "first key"})
            assert answer.status == 200
        assert running.shelf.asked == [KEY_SET]
        assert len(await noticed(redis_url)) == 3

    async def test_a_new_key_is_learnt_when_the_old_one_proves_nothing(self, running: Site) -> None:
        sign = {"X-Signature": "first key"}
        assert (await running.post(events(1), "/webhooks/signed", sign)).status == 200
        running.shelf.documents[KEY_SET] = b"second key"
        running.clock[0] += 61
        assert (await running.post(events(1), "/webhooks/signed", {"X-Signature": "second key"})).status == 200
        assert (await running.post(events(1), "/webhooks/signed", sign)).status == 401
        assert len(running.shelf.asked) == 2

    async def test_forgeries_do_not_make_us_ask(self, running: Site) -> None:
        for _ in range(20):
            assert (await running.post(events(1), "/webhooks/signed", {"X-Signature": "forged"})).status == 401
        assert len(running.shelf.asked) == 1

    async def test_a_document_that_cannot_be_had_is_503(self, running: Site, redis_url: str) -> None:
        running.shelf.documents.clear()
        for _ in range(3):
            answer = await running.post(events(1), "/webhooks/signed", {"X-Signature": "first key"})
            assert (answer.status, answer.headers["retry-after"]) == (503, "30")
        assert len(running.shelf.asked) == 1
        assert await noticed(redis_url) == []

    async def test_a_proof_without_end_is_a_fault_of_ours(self, running: Site) -> None:
        running.shelf.documents |= {f"https://keys.example.com/{number}": b"" for number in range(50)}
        assert (await running.post(events(1), "/webhooks/signed", {"X-Endless": "1"})).status == 500
        assert len(running.shelf.asked) < 10


async def test_it_answers_under_the_public_urls_path_too(redis_url: str, directory: Path) -> None:
    """A proxy may put everything under a path."""
    async with site(redis_url, directory, public_url="https://example.com/mail/") as running:
        assert (await running.post(events(1))).status == 200
        assert (await running.post(events(1, first=1), "/mail" + WAY)).status == 200
        assert (await running.post(events(1), "/other" + WAY)).status == 404
    assert len(await noticed(redis_url)) == 2
