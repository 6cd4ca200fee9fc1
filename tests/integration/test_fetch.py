"""A document is had from public https addresses only, without a detour, and bounded; over real TLS on loopback."""

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from tracker.fetch import MAX_DOCUMENT, DocumentError, HttpsFetcher, is_public

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "127.1",
        "localhost",
        "",
    ],
)
def test_what_is_not_public(address: str) -> None:
    """No address of a private network is asked, however it is written."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_what_is_public(address: str) -> None:
    """Everything else is."""
    assert is_public(address)


class Server:
    """An https server on loopback."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self.tls = tls
        self.seen: list[web.Request] = []

    def url(self, path: str = "/a.pem", host: str = "localhost") -> str:
        """Return an address of it."""
        return f"https://{host}:{self.port}{path}"


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(MAX_DOCUMENT // 1024 + 100):
        await response.write(b"x" * 1024)
    return response


async def _slow(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """Run it, with a certificate for localhost."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)

    async def answer(request: web.Request) -> web.StreamResponse:
        made.seen.append(request)
        match request.path:
            case "/moved":
                return web.Response(status=302, headers={"Location": "/a.pem"})
            case "/gone":
                return web.Response(status=404, text="a.pem")
            case "/endless":
                return await _endless(request)
            case "/slow":
                return await _slow(request)
            case "/bomb":
                return web.Response(body=gzip.compress(bytes(10_000_000)), headers={"Content-Encoding": "gzip"})
            case "/most":
                return web.Response(body=bytes(MAX_DOCUMENT))
            case _:
                return web.Response(body=b"a document")

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=theirs).start()
    made = Server(runner.addresses[0][1], ours)
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture
async def fetcher(server: Server) -> AsyncIterator[HttpsFetcher]:
    """Return a fetcher that may ask loopback."""
    made = HttpsFetcher(seconds=0.7, tls=server.tls, reachable=lambda _: True)
    yield made
    await made.close()


async def refused(fetcher: HttpsFetcher, url: str) -> str:
    """Return why *url* could not be had."""
    with pytest.raises(DocumentError) as error:
        await fetcher.fetch(url)
    return str(error.value)


async def test_a_document_comes_as_it_is(server: Server, fetcher: HttpsFetcher) -> None:
    """The address is asked for octet by octet, and what it answers is not changed."""
    assert await fetcher.fetch(server.url("/a.pem?X=%7E+%2f&y")) == b"a document"
    assert await fetcher.fetch(server.url("/most")) == bytes(MAX_DOCUMENT)
    (first, _) = server.seen
    assert first.rel_url.raw_query_string == "X=%7E+%2f&y"
    assert first.headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in first.headers


async def test_no_redirect_is_followed(server: Server, fetcher: HttpsFetcher) -> None:
    """Only 200 is an answer; a redirect would lead past every check."""
    assert await refused(fetcher, server.url("/moved")) == "it answered 302"
    assert await refused(fetcher, server.url("/gone")) == "it answered 404"
    assert len(server.seen) == 2


async def test_size_and_time_are_bounded(server: Server, fetcher: HttpsFetcher) -> None:
    """Whoever answers without end, by drops, or with a bomb costs little."""
    assert await refused(fetcher, server.url("/endless")) == "it is too long"
    started = time.monotonic()
    assert await refused(fetcher, server.url("/slow")) == "it was too slow"
    assert time.monotonic() - started < 3
    assert len(await fetcher.fetch(server.url("/bomb"))) < 20_000  # as it came


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.1", "2130706433", "0x7f000001", "0", "[::]"])
async def test_no_private_address_is_asked(server: Server, host: str) -> None:
    """Neither by name nor by any spelling of its number."""
    fetcher = HttpsFetcher(tls=server.tls)
    try:
        assert await refused(fetcher, server.url(host=host)) in {
            "its address is not public",
            "it could not be reached",
        }
    finally:
        await fetcher.close()
    assert server.seen == []


async def test_a_certificate_of_nobody_is_not_believed(server: Server) -> None:
    """TLS is verified."""
    fetcher = HttpsFetcher(reachable=lambda _: True)
    try:
        assert await refused(fetcher, server.url()) == "it could not be reached"
    finally:
        await fetcher.close()
    assert server.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://me@localhost/",
        "https://me:pass@localhost/",
        "https://keys.example.com\\@localhost/",
        "https://localhost:0x1/",
        "https://localhost:99999/",
        "https://local host/",
        "https://localhost/\r\nX: y",
        "https://localhost/ a",
        "https://localhost/\u00e9",
        "https://b\u00fccher.example.com/",
        "//localhost/",
        "localhost",
        "",
        "https://localhost/" + "a" * 10_000,
    ],
)
async def test_an_address_has_one_reading_or_none(fetcher: HttpsFetcher, url: str) -> None:
    """What two parsers may read in two ways is not asked for."""
    assert await refused(fetcher, url) == "its address is not asked for"
