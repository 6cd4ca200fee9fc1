"""Whatever is sent to the tracker gets a clear answer: no redirect, no hit, no echo, no 5xx, no word in a log."""

import asyncio
import hashlib
import hmac
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from injector.tokens import Keyring, Purpose
from tests.tracker_support import KEY, LINK, SECRET, Answer, Kept, Tracker, tracking
from tracker.open import GIF

B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture
def kept() -> Kept:
    """Return the buffer that the tracker writes to."""
    return Kept()


@pytest_asyncio.fixture
async def tracker(kept: Kept) -> AsyncIterator[Tracker]:
    """Run a tracker on that buffer."""
    async with tracking(kept) as running:
        yield running


@pytest_asyncio.fixture
async def refusal(tracker: Tracker) -> Answer:
    """Return the answer that every bad click gets."""
    answer = await tracker.ask("/track/c/nothing")
    assert answer.status == 404
    assert "location" not in answer.headers
    return answer


def twin(token: str) -> str:
    """Return another spelling of the same octets: the spare bits of the last character are set."""
    return token[:-1] + B64[B64.index(token[-1]) ^ 1]


BAD_TOKENS: dict[str, Callable[[str], str]] = {
    "cut by one": lambda t: t[:-1],
    "half": lambda t: t[: len(t) // 2],
    "another last character": twin,
    "padding": lambda t: t + "=",
    "much padding": lambda t: t + "====",
    "a tail": lambda t: t + "=xyz",
    "a letter behind": lambda t: t + "%C3%A9",
    "a blank behind": lambda t: t + "%20",
    "a line feed behind": lambda t: t + "%0A",
    "a full stop behind": lambda t: t + ".",
    "a bracket behind": lambda t: t + ")",
    "an encoded equals sign behind": lambda t: t + "%3D",
    "an entity behind": lambda t: t + "&amp;",
    "what SafeLinks puts behind": lambda t: t + "&data=05%7C02%7Cann%40example.net%7C0&sdata=Zm9v%3D&reserved=0",
    "a slash behind": lambda t: t + "/",
    "an encoded slash behind": lambda t: t + "%2F",
    "a segment before": lambda t: "x/" + t,
    "plus and slash": lambda t: t.replace("-", "+").replace("_", "/") + "+",
    "lower case": str.lower,
    "an encoded dot": lambda t: t.replace(".", "%2E"),
    "an encoded letter": lambda t: f"%{ord(t[0]):02X}" + t[1:],
    "a doubly encoded dot": lambda t: t.replace(".", "%252E"),
    "the signature of another": lambda t: t.rpartition(".")[0] + "." + "A" * 43,
    "no payload": lambda t: "." + t.rpartition(".")[2],
    "nothing": lambda _: "",
    "a dot": lambda _: ".",
    "two dots": lambda _: "..",
    "a null octet": lambda _: "%00",
    "encoded dots and slash": lambda _: "%2e%2e%2f",
    "octets that are no text": lambda _: "%FF%FE",
    "a surrogate": lambda _: "%ED%A0%80",
    "an overlong slash": lambda _: "%c0%af",
    "a stray percent": lambda _: "%zz%",
    "a null octet within": lambda t: t[:20] + "%00" + t[20:],
    "dots up to the admin": lambda t: t + ".gif/../../admin",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_no_other_spelling_of_a_token_works(name: str, tracker: Tracker, kept: Kept, refusal: Answer) -> None:
    """A token has one spelling; every other one gets the answer of any bad token and leaves no hit."""
    token = tracker.click.removeprefix("/track/c/")
    answer = await tracker.ask("/track/c/" + BAD_TOKENS[name](token))
    assert answer.shown == refusal.shown
    pixel = await tracker.ask("/track/o/" + BAD_TOKENS[name](tracker.pixel.removeprefix("/track/o/")))
    assert (pixel.status, pixel.body) == (200, GIF)
    leave = tracker.leave.removeprefix("/unsubscribe/")
    page = await tracker.ask("/unsubscribe/" + BAD_TOKENS[name](leave))
    assert page.shown == refusal.shown
    posted = await tracker.ask("/unsubscribe/" + BAD_TOKENS[name](leave), "POST", body=b"List-Unsubscribe=One-Click")
    assert posted.status == 200
    assert kept.hits == []


async def test_a_token_works_on_its_own_route_only(tracker: Tracker, kept: Kept, refusal: Answer) -> None:
    """An open's token redirects nobody, a click's unsubscribes nobody."""
    tokens = {purpose: tracker.keyring.mint(purpose, KEY, 0, LINK) for purpose in Purpose}
    for purpose, token in tokens.items():
        if purpose is not Purpose.CLICK:
            assert (await tracker.ask(f"/track/c/{token}")).shown == refusal.shown
        if purpose is not Purpose.OPEN:
            assert (await tracker.ask(f"/track/o/{token}")).body == GIF
        if purpose is not Purpose.UNSUBSCRIBE:
            assert (await tracker.ask(f"/unsubscribe/{token}")).status == 404
            posted = await tracker.ask(f"/unsubscribe/{token}", "POST", body=b"List-Unsubscribe=One-Click")
            assert posted.status == 200
    assert kept.hits == []


async def test_no_bit_of_a_token_may_change(tracker: Tracker, kept: Kept, refusal: Answer) -> None:
    """A changed character anywhere in a token is a bad token."""
    token = tracker.keyring.mint(Purpose.CLICK, KEY, 0, "https://example.com/")
    for at in range(len(token)):
        for bit in range(0, 7, 3):
            changed = chr(ord(token[at]) ^ (1 << bit))
            if changed in " #?\x7f" or ord(changed) < 0x21:
                continue  # these end the path; what is left is a cut token
            answer = await tracker.ask("/track/c/" + token[:at] + changed + token[at + 1 :])
            assert answer.shown == refusal.shown, (at, bit)
    assert kept.hits == []


async def test_a_token_of_another_key_or_make_is_refused(tracker: Tracker, kept: Kept, refusal: Answer) -> None:
    """Neither somebody else's key nor a weaker signature is believed."""
    foreign = Keyring([b"somebody else's signing key"]).mint(Purpose.CLICK, KEY, 0, LINK)
    body = foreign.rpartition(".")[0]
    weak = [
        urlsafe_b64encode(hmac.digest(key, body.encode(), digest)).rstrip(b"=").decode()
        for key in (SECRET, b"")
        for digest in (hashlib.sha1, hashlib.sha256)
    ]
    for token in (foreign, *(f"{body}.{signature}" for signature in weak)):
        assert (await tracker.ask(f"/track/c/{token}")).shown == refusal.shown
    assert kept.hits == []


@pytest.mark.parametrize(
    "suffix",
    ["?url=https://evil.example.net", "?redirect=//evil.example.net", "?x=1&amp;y=2", "?" + "a=b&" * 5000, "#there"],
)
async def test_nothing_behind_a_token_moves_its_destination(suffix: str, tracker: Tracker, kept: Kept) -> None:
    """A query is ignored."""
    if len(suffix) > 8000:
        suffix = suffix[:5000]
    answer = await tracker.ask(tracker.click + suffix)
    assert (answer.status, answer.headers["location"]) == (302, LINK)
    assert len(kept.hits) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example.net"},
        {"X-Forwarded-Host": "evil.example.net", "X-Forwarded-Proto": "gopher"},
        {"X-Original-URL": "/track/c/x", "X-Rewrite-URL": "/admin"},
        {"Referer": "javascript:alert(1)"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"Cookie": "session=1; " + "a=b; " * 400},
        {"Accept-Language": "ru;q=nan, de;q=1e9, \x00en"[:18]},
        {"X-Forwarded-For": ", ".join(["10.0.0.1"] * 400)},
    ],
)
async def test_no_header_moves_a_destination(headers: dict[str, str], tracker: Tracker) -> None:
    """Headers change neither Location nor cookies, however odd."""
    answer = await tracker.ask(tracker.click, headers=headers)
    assert (answer.status, answer.headers["location"]) == (302, LINK)
    assert "set-cookie" not in answer.headers


async def test_an_absolute_target_is_a_path(tracker: Tracker, refusal: Answer) -> None:
    """The tracker is nobody's proxy."""
    answer = await tracker.ask("http://evil.example.net" + tracker.click)
    assert (answer.status, answer.headers["location"]) == (302, LINK)
    assert (await tracker.ask("http://evil.example.net/")).status == 200
    assert (await tracker.ask("http://evil.example.net/track/c/T")).shown == refusal.shown
    assert (await tracker.ask("evil.example.net:443", "CONNECT")).status in {400, 404, 405}


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "PROPFIND"])
async def test_other_methods_get_405_with_allow(method: str, tracker: Tracker, kept: Kept) -> None:
    """Only GET and HEAD have an answer, and 405 names them."""
    for path in (tracker.click, tracker.pixel):
        answer = await tracker.ask(path, method)
        assert answer.status == 405
        assert set(answer.headers["allow"].split(",")) == {"GET", "HEAD"}
        assert "location" not in answer.headers
    if method != "POST":
        assert (await tracker.ask(tracker.leave, method)).status == 405
    assert kept.hits == []


@pytest.mark.parametrize(
    "path", ["/track", "/track/", "/track/o", "/track/c", "/unsubscribe", "/metrics", "/admin", "/.well-known/x", "//"]
)
async def test_unknown_paths_say_nothing(path: str, tracker: Tracker, refusal: Answer) -> None:
    """What is not there looks like a bad link; metrics and admin are on another port."""
    assert (await tracker.ask(path)).shown == refusal.shown


async def test_an_unconfigured_webhook_is_not_there(tracker: Tracker) -> None:
    """A provider without a secret is closed."""
    assert (await tracker.ask("/webhooks/sendgrid", "POST", body=b"[]")).status == 404


MALFORMED = {
    "two lengths": b"POST /unsubscribe/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "length and chunks": (
        b"POST /unsubscribe/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a negative length": b"POST /unsubscribe/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a null octet in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: x\n\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "a wrong version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "raw octets in the path": b"GET /track/c/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a bad port in the target": b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "brackets in the target": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "300 headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(300)) + b"\r\n",
    "64 kB of headers": b"GET / HTTP/1.1\r\nHost: x\r\nReferer: " + b"r" * 65536 + b"\r\n\r\n",
    "an expectation": b"GET / HTTP/1.1\r\nHost: x\r\nExpect: <script>\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_not_http_is_refused_without_a_word(
    name: str, tracker: Tracker, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """A malformed request gets a 4xx, without an echo, a traceback or a line in a log."""
    with caplog.at_level(logging.DEBUG), capture_logs() as events:
        answer = await tracker.say(MALFORMED[name])
    assert 400 <= answer.status < 500
    assert b"Traceback" not in answer.body
    assert b"script" not in answer.body
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
    assert events == []
    assert kept.hits == []


@pytest.mark.parametrize("octets", [9_000, 100_000])
async def test_a_long_token_is_refused_at_once(
    octets: int, tracker: Tracker, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """100 kB of token cost nothing and appear nowhere."""
    started = time.perf_counter()
    with caplog.at_level(logging.DEBUG), capture_logs() as events:
        answer = await tracker.ask("/track/c/" + "TOKEN" * (octets // 5))
    assert answer.status in {400, 404, 414}
    assert time.perf_counter() - started < 2  # milliseconds; the rest is for a busy machine
    assert b"TOKEN" not in answer.body
    assert "TOKEN" not in caplog.text
    assert events == []
    assert kept.hits == []


async def test_no_token_address_or_query_is_ever_logged(
    tracker: Tracker, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither success nor failure writes a token, an address or a query into a log."""
    with caplog.at_level(logging.DEBUG), capture_logs() as events:
        await tracker.ask(tracker.click + "?secret=query", headers={"X-Forwarded-For": "198.51.100.77"})
        await tracker.ask(tracker.pixel)
        await tracker.ask(tracker.click[:-1])
        kept.broken = True
        await tracker.ask(tracker.click)
        await tracker.ask(tracker.leave, "POST", body=b"List-Unsubscribe=One-Click")
    said = caplog.text + repr(events)
    for secret in (tracker.click[9:40], tracker.leave[13:40], "secret=query", "198.51.100", "shop.example.com"):
        assert secret not in said


async def test_an_error_of_ours_is_a_short_500(tracker: Tracker, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw reaches neither the visitor nor, with its words, the log."""

    async def explode(_: object) -> None:
        raise LookupError("a secret of " + LINK)

    monkeypatch.setattr(kept, "append", explode)
    with capture_logs() as events:
        answer = await tracker.ask(tracker.click)
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    assert [event["error"] for event in events] == ["LookupError"]
    assert "secret" not in repr(events)


async def test_slow_headers_are_cut_and_nobody_else_waits(kept: Kept) -> None:
    """A crowd that sends one octet and then nothing, or an octet at a time, is gone by the deadline."""
    async with tracking(kept, header_seconds=0.5) as tracker:
        crowd = [await asyncio.open_connection("127.0.0.1", tracker.port) for _ in range(200)]

        async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            async def send() -> None:
                for octet in b"GET /track/o/x HTTP/1.1\r\nHost: x\r\nX-Slow: yes\r\n" * 100:
                    writer.write(bytes([octet]))
                    await asyncio.sleep(0.05)

            sending = asyncio.create_task(send())
            try:
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                sending.cancel()
                writer.close()

        waiting = [asyncio.create_task(dribble(*pair)) for pair in crowd]
        assert (await tracker.ask(tracker.pixel)).body == GIF
        async with asyncio.timeout(20):
            assert set(await asyncio.gather(*waiting)) == {b""}


async def test_a_second_header_on_a_kept_connection_has_the_same_deadline(kept: Kept) -> None:
    """A connection that was polite once may not dribble later."""
    async with tracking(kept, header_seconds=0.5) as tracker:
        reader, writer = await asyncio.open_connection("127.0.0.1", tracker.port)
        writer.write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"Disallow: /\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /robots")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_an_idle_connection_outlives_the_header_deadline(kept: Kept) -> None:
    """A proxy may keep its connections: idle is not slow."""
    async with tracking(kept, header_seconds=0.2) as tracker:
        reader, writer = await asyncio.open_connection("127.0.0.1", tracker.port)
        request = b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(2):
            writer.write(request)
            await reader.readuntil(b"Disallow: /\n")
            await asyncio.sleep(0.4)  # longer than the deadline of a header; the connection is idle, not slow
        writer.close()


async def test_a_slow_or_endless_body_is_cut(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has a deadline of its own."""
    monkeypatch.setattr("tracker.unsubscribe.BODY_SECONDS", 0.3)
    async with tracking(kept) as tracker:
        slow = await tracker.say(
            f"POST {tracker.leave} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nList-".encode()
        )
        assert slow.status == 408
    assert kept.hits == []


async def test_a_long_body_is_refused(tracker: Tracker, kept: Kept) -> None:
    """No form is that long."""
    body = b"List-Unsubscribe=One-Click&x=" + b"y" * 100_000
    assert (await tracker.ask(tracker.leave, "POST", body=body)).status == 413
    assert kept.hits == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Transfer-Encoding": "chunked"}, b"zz\r\nnot a chunk\r\n"),
        ({"Content-Encoding": "gzip", "Content-Length": "4"}, b"nope"),
        ({"Content-Type": "multipart/form-data"}, b"--x\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=" + "b" * 500}, b"--b"),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=nope"}, b"%ff=%00&%zz"),
        ({"Content-Type": "text/html; charset=\u00e9"}, b"\xff\xfe"),
    ],
)
async def test_a_broken_body_changes_nothing(
    headers: dict[str, str], body: bytes, tracker: Tracker, kept: Kept
) -> None:
    """A body that cannot be read unsubscribes nobody and is never a 5xx."""
    if "Transfer-Encoding" in headers:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        answer = await tracker.say(f"POST {tracker.leave} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body)
    else:
        answer = await tracker.ask(tracker.leave, "POST", headers, body)
    assert answer.status in {200, 400}
    assert kept.hits == []
