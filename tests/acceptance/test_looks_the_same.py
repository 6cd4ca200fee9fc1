"""A message looks to a person as it did before, and each of its links leads where it led: seen in a real browser.

Every message of the corpus whose page is tracked is opened in Chromium as it came and as it leaves. What the pixel and
the links reach is a tracker of ours on loopback; no other address can be reached.
"""

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from selectolax.lexbor import LexborHTMLParser

import injector
from injector import HeaderEdits, Options
from ledger.events import EventType
from relay.inject import UrlMinter
from tests.browser import Look, Page, browser_page, differing, find_browser
from tests.leaves import Leaf, text_of
from tests.readers import changed_leaves
from tests.tracker_support import KEY, Kept, Tracker, tracking

PROGRAM = find_browser()

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.soak,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium or Chrome on PATH"),
    pytest.mark.timeout(600),
]

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "mail"
#: So many of the corpus have a page that a person looks at.
FEWEST = 20
NOWHERE = "https://track.example.com"
#: How a sender excepts a link; it leaves without the mark.
_NOTRACK = re.compile(r"\A(https?)\+notrack(?=:)")
_PLAINEST = "<!doctype html><title></title>"


def rewritten(content: bytes, tracker: Tracker, public_url: str) -> list[tuple[Leaf, Leaf]]:
    """Return the pages of a message that are tracked, as they came and as they leave."""
    plan = injector.plan(injector.parse(content), Options(public_url=public_url), campaign=True)
    left = plan.render(UrlMinter(tracker.keyring, public_url, KEY), HeaderEdits())
    return [(came, gone) for came, gone in changed_leaves(content, left.content) if came.kind == "text/html"]


@cache
def submitted(name: str) -> bytes:
    """Return a message of the corpus with the line ends that it has on the wire."""
    content = (CORPUS / f"{name}.eml").read_bytes()
    return content if b"\r\n" in content else content.replace(b"\n", b"\r\n")


@cache
def displayed() -> list[str]:
    """Return the names of the messages that have a page which is tracked."""
    options = Options(public_url=NOWHERE)
    plans = {
        path.stem: injector.plan(injector.parse(submitted(path.stem)), options, campaign=True)
        for path in sorted(CORPUS.glob("*.eml"))
    }
    return [name for name, plan in plans.items() if plan.pixel_part is not None]


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A browser, a tracker, and a site that shows one page at a time."""

    page: Page
    tracker: Tracker
    kept: Kept
    site: str
    shown: dict[str, tuple[bytes, str]]

    @property
    def public_url(self) -> str:
        """What the URLs begin with that the browser can reach."""
        return f"http://127.0.0.1:{self.tracker.port}"

    async def open(self, leaf: Leaf) -> None:
        """Show *leaf* in the charset that its label says."""
        charset = f"; charset={leaf.charset}" if leaf.charset else ""
        self.shown["page"] = leaf.decoded, f"text/html{charset}"
        await self.page.open(self.site)

    async def look(self, leaf: Leaf) -> Look:
        """Return what *leaf* looks like."""
        await self.open(leaf)
        return await self.page.look()

    async def links(self, leaf: Leaf) -> list[str]:
        """Return where the links of *leaf* lead in this browser."""
        await self.open(leaf)
        return await self.page.links()

    async def follow(self, urls: list[str]) -> list[str]:
        """Return where a person arrives who follows *urls*: through the tracker if they are ours."""
        return [await self._arrival(url) if url.startswith(self.public_url) else url for url in urls]

    async def _arrival(self, url: str) -> str:
        answer = await self.tracker.ask(urlsplit(url).path)
        assert answer.status == 302
        return await self.page.resolves(answer.headers["location"])


@asynccontextmanager
async def site(shown: dict[str, tuple[bytes, str]]) -> AsyncIterator[str]:
    """Serve what *shown* holds under `page`; yield its address."""

    async def answer(_: web.Request) -> web.Response:
        body, kind = shown["page"]
        return web.Response(body=body, headers={"Content-Type": kind, "Cache-Control": "no-store"})

    app = web.Application()
    app.router.add_get("/page", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/page"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Run the browser, the tracker and the site for every test of this file."""
    assert PROGRAM is not None
    kept = Kept()
    shown: dict[str, tuple[bytes, str]] = {}
    async with AsyncExitStack() as stack:
        yield Scene(
            page=await stack.enter_async_context(browser_page(PROGRAM, tmp_path_factory.mktemp("browser"))),
            tracker=await stack.enter_async_context(tracking(kept)),
            kept=kept,
            site=await stack.enter_async_context(site(shown)),
            shown=shown,
        )


async def test_enough_of_the_corpus_is_looked_at() -> None:
    """Twenty messages at least, or the tests below say little."""
    assert len(displayed()) >= FEWEST


@pytest.mark.parametrize("name", displayed())
async def test_a_message_looks_the_same(scene: Scene, name: str) -> None:
    """Pixel for pixel, with the tracker at hand and with one that cannot be reached; the pixel is loaded once."""
    for public_url in (scene.public_url, NOWHERE):
        pages = rewritten(submitted(name), scene.tracker, public_url)
        assert pages
        opens = 0
        for came, gone in pages:
            before = await scene.look(came)
            scene.kept.hits.clear()
            after = await scene.look(gone)
            opens += sum(hit.type == EventType.OPENED for hit in scene.kept.hits)
            assert (after.width, after.height) == (before.width, before.height), "the page is larger"
            assert not differing(before.png, after.png)
        assert opens == (public_url != NOWHERE)


@pytest.mark.parametrize("name", displayed())
async def test_every_link_leads_where_it_led(scene: Scene, name: str) -> None:
    """What the browser resolves a link to is what it arrives at through the tracker; link by link, octet by octet."""
    for came, gone in rewritten(submitted(name), scene.tracker, scene.public_url):
        meant = [_NOTRACK.sub(r"\1", url) for url in await scene.links(came)]
        written = await scene.links(gone)
        assert await scene.follow(written) == meant
        # Another parser sees as many links of ours as the browser, so none was passed over.
        wrapped = [url for url in written if url.startswith(scene.public_url)]
        ours = LexborHTMLParser(text_of(gone)).css(f'a[href^="{scene.public_url}"], area[href^="{scene.public_url}"]')
        assert len(wrapped) == len(ours)


async def test_the_eye_is_not_blind(scene: Scene) -> None:
    """One pixel in another colour is seen, and where; so is a page that became larger."""
    white = Leaf(kind="text/html", attached=False, encoding="", charset="utf-8", raw=_PLAINEST.encode())
    dot = b'<p style="position:absolute;left:30px;top:40px;width:1px;height:1px;margin:0;background:#fffffe">'
    tall = b'<p style="height:3000px">'
    before = await scene.look(white)
    after = await scene.look(msgspec.structs.replace(white, raw=white.raw + dot))
    larger = await scene.look(msgspec.structs.replace(white, raw=white.raw + tall))
    assert differing(before.png, before.png) == ""
    assert differing(before.png, after.png) == "1 pixels differ, in x 30 to 30 and y 40 to 40"
    assert (larger.width, larger.height > 3_000) == (before.width, True)
    assert differing(before.png, larger.png).startswith("one is ")
    assert struct.unpack_from(">II", before.png, 16) == (before.width, before.height)


async def test_the_browser_reaches_nothing_but_loopback(scene: Scene) -> None:
    """An address of the internet is not resolved; the messages' own pictures are missing, before and after alike."""
    with pytest.raises(Exception, match="ERR_NAME_NOT_RESOLVED"):
        await asyncio.wait_for(scene.page.open("https://example.com/"), 30)
