"""The tracker's answers, as a browser, a mail program and a load balancer see them: CONTRACT 5 to the letter."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from injector.tokens import Keyring, Purpose
from ledger.events import EventType, Hit
from tests.tracker_support import KEY, LINK, SECRET, Answer, Kept, Tracker, tracking
from tracker.app import drain
from tracker.health import Health
from tracker.open import GIF
from tracker.settings import TrackerSettings

ONE_CLICK, BUTTON = b"List-Unsubscribe=One-Click", b"unsubscribe=yes"
FACTS = ("type", "key", "link", "url", "method", "network", "user_agent", "purpose")


@pytest.fixture
def kept() -> Kept:
    """Return the tracker's buffer."""
    return Kept()


@pytest_asyncio.fixture
async def tracker(kept: Kept) -> AsyncIterator[Tracker]:
    """Run a tracker on that buffer."""
    async with tracking(kept) as running:
        yield running


def facts(hit: Hit) -> dict[str, object]:
    """Return what a request put into a hit: not what differs each time, nor what numbers it."""
    return {name: getattr(hit, name) for name in FACTS}


def common(answer: Answer) -> None:
    """Assert what every answer must carry, and must not."""
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-robots-tag"] == "noindex, nofollow"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "no-store" in answer.headers["cache-control"]
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert answer.headers["server"] == "outrider"
    assert "set-cookie" not in answer.headers


class TestOpen:
    """The pixel is the same whole image for any token; a valid one is recorded."""

    async def test_a_valid_token_is_recorded(self, tracker: Tracker, kept: Kept) -> None:
        answer = await tracker.ask(tracker.pixel, headers={"User-Agent": "Mozilla/5.0"})
        common(answer)
        assert (answer.status, answer.body, len(GIF)) == (200, GIF, 43)
        assert answer.headers["content-type"] == "image/gif"
        assert answer.headers["content-length"] == "43"
        assert [facts(hit) for hit in kept.hits] == [
            {
                "type": EventType.OPENED,
                "key": KEY,
                "link": -1,
                "url": "",
                "method": "GET",
                "network": "127.0.0.0/24",
                "user_agent": "Mozilla/5.0",
                "purpose": "",
            }
        ]

    async def test_any_other_token_looks_the_same(self, tracker: Tracker, kept: Kept) -> None:
        good = await tracker.ask(tracker.pixel)
        kept.hits.clear()
        for path in ("/track/o/", "/track/o/x", "/track/o/a/b", tracker.pixel + ".gif", tracker.click):
            bad = await tracker.ask("/track/o/" + path.removeprefix("/track/o/").removeprefix("/track/c/"))
            assert bad.shown == good.shown
        assert kept.hits == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"Range": "bytes=0-3"},
            {"If-None-Match": "*"},
            {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
            {"Accept-Encoding": "gzip, br"},
        ],
    )
    async def test_it_is_always_whole(self, headers: dict[str, str], tracker: Tracker) -> None:
        answer = await tracker.ask(tracker.pixel, headers=headers)
        assert (answer.status, answer.body) == (200, GIF)

    async def test_it_is_answered_when_nothing_can_be_kept(self, tracker: Tracker, kept: Kept) -> None:
        kept.broken = True
        assert (await tracker.ask(tracker.pixel)).body == GIF


class TestClick:
    """A click goes exactly where the mailer's link went."""

    @pytest.mark.parametrize(
        ("url", "location"),
        [
            (LINK, LINK),
            ("https://x.example.com/a%2Fb?q=%7E%2F&u=|&a[]=1", "https://x.example.com/a%2Fb?q=%7E%2F&u=|&a[]=1"),
            ("https://x.example.com:443/a/../b/./c", "https://x.example.com:443/a/../b/./c"),
            ("https://X.EXAMPLE.com?a=1", "https://X.EXAMPLE.com?a=1"),
            ("https://x.example.com/%zz%0d%0aSet-Cookie:x#", "https://x.example.com/%zz%0d%0aSet-Cookie:x#"),
            ("https://x.example.com/a b", "https://x.example.com/a b"),
            ("https://b\u00fccher.example.com/\u65e5?q=\u00e9", "https://xn--bcher-kva.example.com/%E6%97%A5?q=%C3%A9"),
        ],
    )
    async def test_location_is_what_the_link_meant(self, url: str, location: str, tracker: Tracker, kept: Kept) -> None:
        answer = await tracker.ask(tracker.path(Purpose.CLICK, url, 7))
        common(answer)
        assert (answer.status, answer.headers["location"]) == (302, location)
        assert [(hit.type, hit.key, hit.link, hit.url) for hit in kept.hits] == [(EventType.CLICKED, KEY, 7, location)]

    @pytest.mark.parametrize("url", ["", "https://x.example.com/\r\nSet-Cookie: a=b", "https://x.example.com/\ta\0"])
    async def test_a_destination_that_no_header_can_hold_is_a_bad_link(
        self, url: str, tracker: Tracker, kept: Kept
    ) -> None:
        bad = await tracker.ask("/track/c/x")
        assert (await tracker.ask(tracker.path(Purpose.CLICK, url, 0))).shown == bad.shown
        assert kept.hits == []

    async def test_it_works_when_nothing_can_be_kept(self, tracker: Tracker, kept: Kept) -> None:
        kept.broken = True
        answer = await tracker.ask(tracker.click)
        assert (answer.status, answer.headers["location"]) == (302, LINK)

    async def test_every_click_is_a_hit_of_its_own(self, tracker: Tracker, kept: Kept) -> None:
        answers = await asyncio.gather(*(tracker.ask(tracker.click) for _ in range(50)))
        assert {answer.headers["location"] for answer in answers} == {LINK}
        assert len({hit.id for hit in kept.hits}) == 50
        assert {len(hit.id) for hit in kept.hits} == {16}

    async def test_old_keys_verify_and_retired_ones_do_not(self, kept: Kept) -> None:
        old = Keyring([b"the key of last year"])
        token = old.mint(Purpose.CLICK, KEY, 0, LINK)
        async with tracking(kept, secrets=[SECRET, b"the key of last year"]) as rotated:
            assert (await rotated.ask(f"/track/c/{token}")).headers["location"] == LINK
        async with tracking(kept) as retired:
            assert (await retired.ask(f"/track/c/{token}")).status == 404


@pytest.mark.parametrize("kind", ["pixel", "click"])
async def test_head_has_the_same_headers_and_is_kept_as_head(kind: str, tracker: Tracker, kept: Kept) -> None:
    """HEAD shows what GET shows, without a body, and stays as evidence of a machine."""
    path = getattr(tracker, kind)
    got = await tracker.ask(path)
    answer = await tracker.ask(path, "HEAD")
    assert answer.body == b""
    assert answer.shown[:2] == got.shown[:2]
    assert [hit.method for hit in kept.hits] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    ("headers", "purpose"),
    [
        ({"Sec-Purpose": "prefetch;prerender"}, "prefetch;prerender"),
        ({"Purpose": "prefetch"}, "prefetch"),
        ({"X-Purpose": "preview"}, "preview"),
        ({"X-Moz": "prefetch"}, "prefetch"),
        ({"Purpose": "p" * 500}, "p" * 64),
    ],
)
async def test_what_a_request_says_of_its_purpose_is_kept(
    headers: dict[str, str], purpose: str, tracker: Tracker, kept: Kept
) -> None:
    """Prefetchers are served like anybody, and labelled later by what they said."""
    assert (await tracker.ask(tracker.click, headers=headers)).status == 302
    assert kept.hits[0].purpose == purpose


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ('=HYPERLINK("https://evil.example.net")', '=HYPERLINK("https://evil.example.net")'),
        ("a\x1b[2Jb", None),
        ("a\tb", "ab"),
        ("caf\udcff\udcfe \u202eevil", "caf evil"),
        ("x" * 7000, "x" * 512),
    ],
)
async def test_a_user_agent_is_cut_and_cleaned(sent: str, stored: str | None, tracker: Tracker, kept: Kept) -> None:
    """Whatever a client calls itself is one printable line of at most 512 characters."""
    answer = await tracker.ask(tracker.click, headers={"User-Agent": sent})
    if stored is None:
        assert answer.status == 400
    else:
        assert [hit.user_agent for hit in kept.hits] == [stored]


class TestUnsubscribe:
    """GET asks, a POST that means it acts, and nothing else does."""

    async def test_get_shows_a_page_with_one_button(self, tracker: Tracker, kept: Kept) -> None:
        for method in ("GET", "HEAD"):
            answer = await tracker.ask(tracker.leave, method)
            common(answer)
            assert answer.status == 200
        page = (await tracker.ask(tracker.leave)).body.decode()
        assert page.count("<form ") == page.count("<button ") == 1
        assert '<form method="post">' in page
        assert "<script" not in page
        assert kept.hits == []

    async def test_pages_are_locked_down(self, tracker: Tracker) -> None:
        answer = await tracker.ask(tracker.leave)
        policy = answer.headers["content-security-policy"]
        style = re.search(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
        for part in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", f"'sha256-{digest}'"):
            assert part in policy
        assert answer.headers["x-frame-options"] == "DENY"

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/x-www-form-urlencoded", ONE_CLICK),
            ("application/x-www-form-urlencoded; charset=UTF-8", ONE_CLICK),
            ("application/x-www-form-urlencoded", ONE_CLICK + b"\r\n"),
            ("application/x-www-form-urlencoded", b"List%2DUnsubscribe=One%2DClick"),
            ("application/x-www-form-urlencoded", b"a=b&" + ONE_CLICK),
            (
                "multipart/form-data; boundary=7d1",
                b'--7d1\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--7d1--\r\n',
            ),
            (
                'multipart/form-data; charset=utf-8; boundary="a b"',
                b"--a b\r\nContent-Disposition: form-data; name=List-Unsubscribe\r\n\r\nOne-Click\r\n--a b--",
            ),
            ("application/x-www-form-urlencoded", BUTTON),
        ],
    )
    async def test_a_post_that_means_it_unsubscribes(
        self, content_type: str, body: bytes, tracker: Tracker, kept: Kept
    ) -> None:
        answer = await tracker.ask(tracker.leave, "POST", {"Content-Type": content_type}, body)
        common(answer)
        assert answer.status == 200
        assert b"You are unsubscribed" in answer.body
        assert [(hit.type, hit.key, hit.method, hit.link, hit.url) for hit in kept.hits] == [
            (EventType.UNSUBSCRIBED, KEY, "POST", -1, "")
        ]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"List-Unsubscribe",
            b"List-Unsubscribe=",
            b"List-Unsubscribe=one-click",
            b"list-unsubscribe=One-Click",
            b"One-Click",
            b"unsubscribe=no",
            b"=&=&=",
            b'{"List-Unsubscribe":"One-Click"}',
            b"a=b&" * 30 + ONE_CLICK,
        ],
    )
    async def test_any_other_post_shows_the_page_and_changes_nothing(
        self, body: bytes, tracker: Tracker, kept: Kept
    ) -> None:
        asked = await tracker.ask(tracker.leave)
        assert (await tracker.ask(tracker.leave, "POST", body=body)).shown == asked.shown
        assert kept.hits == []

    async def test_it_may_come_again(self, tracker: Tracker) -> None:
        answers = await asyncio.gather(*(tracker.ask(tracker.leave, "POST", body=ONE_CLICK) for _ in range(20)))
        assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}

    async def test_the_token_of_the_path_is_the_one_that_counts(self, tracker: Tracker, kept: Kept) -> None:
        other = tracker.path(Purpose.UNSUBSCRIBE, key=b"o" * 16)
        await tracker.ask(f"{tracker.leave}?token={other}", "POST", body=ONE_CLICK + b"&token=" + other.encode())
        assert [hit.key for hit in kept.hits] == [KEY]

    async def test_a_bad_token_changes_nothing_and_is_told_gently(self, tracker: Tracker, kept: Kept) -> None:
        posted = await tracker.ask("/unsubscribe/x", "POST", body=ONE_CLICK)
        assert posted.status == 200
        assert b"This link does not work" in posted.body
        assert (await tracker.ask("/unsubscribe/x")).status == 404
        assert kept.hits == []

    @pytest.mark.parametrize("body", [ONE_CLICK, BUTTON])
    async def test_what_could_not_be_stored_is_an_error(self, body: bytes, tracker: Tracker, kept: Kept) -> None:
        kept.broken = True
        answer = await tracker.ask(tracker.leave, "POST", body=body)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert b"could not be stored" in answer.body

    @pytest.mark.parametrize(
        ("accept", "language", "word"),
        [
            ("", "en", "Unsubscribe"),
            ("ru-RU,ru;q=0.9,en;q=0.8", "ru", "Отписаться"),
            ("de;q=0.5, fr", "de", "Abmelden"),
            ("en;q=0.1, de;q=0.9", "de", "Abmelden"),
            ("xx, *", "en", "Unsubscribe"),
        ],
    )
    async def test_it_speaks_the_readers_language(
        self, accept: str, language: str, word: str, tracker: Tracker
    ) -> None:
        answer = await tracker.ask(tracker.leave, headers={"Accept-Language": accept})
        assert answer.headers["content-language"] == language
        assert f'<html lang="{language}">' in answer.body.decode()
        assert f">{word}</button>" in answer.body.decode()


class TestTheRest:
    """Plain, sensible answers to what crawlers and load balancers ask."""

    async def test_front_and_robots(self, tracker: Tracker) -> None:
        assert (await tracker.ask("/")).status == 200
        robots = await tracker.ask("/robots.txt")
        assert robots.body == b"User-agent: *\nDisallow: /\n"
        for path in ("/", "/robots.txt"):
            assert (await tracker.ask(path, "HEAD")).body == b""
            common(await tracker.ask(path))

    async def test_health_says_what_the_buffer_says(self, kept: Kept) -> None:
        health = Health(ready=True, degraded=("redis: away",))

        class Degraded(Kept):
            def health(self) -> Health:
                return health

        async with tracking(Degraded()) as tracker:
            assert (await tracker.ask("/healthz")).status == 200
            ready = await tracker.ask("/readyz")
            assert (ready.status, msgspec.json.decode(ready.body)) == (
                200,
                {"ready": True, "degraded": ["redis: away"]},
            )
            assert ready.headers["content-type"].startswith("application/json")
            health = Health(ready=False, degraded=("journal: full",))
            assert (await tracker.ask("/readyz")).status == 503
            assert (await tracker.ask("/healthz")).status == 200
        assert kept.hits == []

    async def test_a_draining_tracker_steps_aside_but_answers(self, tracker: Tracker, kept: Kept) -> None:
        assert (await tracker.ask("/readyz")).status == 200
        drain(tracker.app)
        assert (await tracker.ask("/readyz")).status == 503
        assert (await tracker.ask(tracker.click)).status == 302
        assert len(kept.hits) == 1

    async def test_a_public_url_with_a_path_is_served_under_it_too(self, kept: Kept) -> None:
        async with tracking(kept, public_url="http://www.example.com/mail/") as tracker:
            for base in ("", "/mail"):
                answer = await tracker.ask(base + tracker.click)
                assert (answer.status, answer.headers["location"]) == (302, LINK)
            assert "strict-transport-security" not in (await tracker.ask("/")).headers


async def test_a_request_in_flight_is_answered_when_the_tracker_stops(kept: Kept) -> None:
    """SIGTERM finishes what came in: the hit is kept and its answer sent, and the door is shut."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Kept):
        async def append(self, hit: Hit) -> None:
            inside.set()
            await go_on.wait()
            await kept.append(hit)

    async with tracking(Slow()) as tracker:
        asking = asyncio.create_task(tracker.ask(tracker.click))
        await inside.wait()
        stopping = asyncio.create_task(tracker.runner.cleanup())
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", tracker.port)
            except ConnectionError:
                break
            writer.close()
            await asyncio.sleep(0.01)
        go_on.set()
        assert (await asking).headers["location"] == LINK
        await stopping
    assert len(kept.hits) == 1


async def test_only_a_trusted_proxy_is_believed(kept: Kept) -> None:
    """X-Forwarded-For counts from a configured proxy alone, and from the right."""
    headers = {"X-Forwarded-For": "203.0.113.9, 198.51.100.77"}
    async with tracking(kept) as tracker:
        await tracker.ask(tracker.pixel, headers=headers)
    async with tracking(kept, settings=TrackerSettings(trusted_proxies=("127.0.0.0/8",))) as tracker:
        await tracker.ask(tracker.pixel, headers=headers)
        await tracker.ask(tracker.pixel, headers={"X-Forwarded-For": "garbage, " * 400})
    assert [hit.network for hit in kept.hits] == ["127.0.0.0/24", "198.51.100.0/24", ""]
