"""The capture inbox shows what would have left and what became of it, and lets no message touch the console."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path

import pytest
import pytest_asyncio

from ledger.ids import MessageKey, key_text
from relay.capture import CaptureUpstream
from relay.upstream import Letter
from tests.console import BEARER, NOWHERE, PUBLIC_URL, Client, console
from tests.rows import NOON, Pool, Rows

SCRIPT = "<script>alert(1)</script>"
PIXEL = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects what a page would fetch, run or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every *tag*."""
        return [attrs for name, attrs in self.tags if name == tag]


class Mails:
    """Captures messages as the relay does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._upstream = CaptureUpstream(directory)
        self._made = 0

    async def add(self, content: bytes, *, key: MessageKey | None = None, recipient: str = "ann@example.net") -> str:
        """Capture *content*; return its key."""
        self._made += 1
        named = key or key_text(bytes([self._made]) * 16)

        async def before_dot() -> None:
            """Mark nothing."""

        letter = Letter(
            key=named, sender="news@example.com", recipient=recipient, smtputf8=False, render=lambda _: content
        )
        await self._upstream.send(letter, before_dot)
        return named


def mail(html: str | None = None, text: str = "Plain words", subject: str = "Sale") -> EmailMessage:
    """Return a message with a text part, and an HTML part when given."""
    message = EmailMessage()
    message["From"] = "Shop <news@example.com>"
    message["To"] = "ann@example.net"
    message["Subject"] = subject
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


@pytest.fixture
def mails(tmp_path: Path) -> Mails:
    """Return a capture directory to fill."""
    return Mails(tmp_path / "capture")


@pytest_asyncio.fixture
async def pages(mails: Mails) -> AsyncIterator[Client]:
    """Return a client of a console whose ledger is away: captured mail shows all the same."""
    async with console(NOWHERE, capture_dir=mails.directory) as client:
        yield client


async def shown(client: Client, path: str, status: int = 200) -> Page:
    """Return a page, and hold every page to the rules of all."""
    answer = await client.get(path, headers=BEARER)
    text = await answer.text()
    assert answer.status == status, text
    assert answer.content_type == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    page = Page(text)
    for tag, attrs in page.tags:
        # Nothing from another host, nothing inline.
        fetched = attrs.get("src") or (attrs.get("href") if tag == "link" else None)
        assert fetched is None or fetched.startswith("/"), attrs
        assert not any(name.startswith("on") or name == "style" for name in attrs), attrs
        assert tag != "style"
        assert tag != "script" or attrs.get("src") == "/static/console.js"
    return page


class TestList:
    """The inbox lists what was captured, newest first, with what became of it."""

    async def test_newest_first_page_by_page(self, pages: Client, mails: Mails) -> None:
        for number in range(53):
            key = await mails.add(mail(subject=f"Number {number}").as_bytes())
            file = mails.directory / f"{key}.eml"
            os.utime(file, ns=(number * 10**9, number * 10**9))
        first, second = await shown(pages, "/"), await shown(pages, "/?page=2")
        subjects = re.findall(r"Number \d+", first.text + second.text)
        assert subjects == [f"Number {number}" for number in range(52, -1, -1)]
        assert {"rel": "next", "href": "/?page=2"} in first.all("a")
        assert {"rel": "prev", "href": "/?page=1"} in second.all("a")
        for odd in ("0", "-1", "x", "99999999999", "%D9%A1"):
            await shown(pages, f"/?page={odd}")

    async def test_what_became_of_it_shows(self, database_url: str, pool: Pool, mails: Mails) -> None:
        rows = Rows(pool)
        opened = await rows.message()
        await rows.engagement(opened, opens=1, first_opened_at=NOON)
        sent = await rows.message("bob@example.net")
        for message in (opened, sent):
            await mails.add(mail().as_bytes(), key=message.key)
        async with console(database_url, capture_dir=mails.directory) as client:
            page = await shown(client, "/")
        assert "opened" in page.text
        assert "sent" in page.text
        assert "cannot be reached" not in page.text

    async def test_a_hostile_subject_is_text(self, pages: Client, mails: Mails) -> None:
        key = await mails.add(f'Subject: {SCRIPT}\r\nFrom: "{SCRIPT}" <a@example.com>\r\n\r\nx\r\n'.encode())
        for path in ("/", f"/inbox/{key}", f"/inbox/{key}?view=headers", f"/inbox/{key}?view=source"):
            page = await shown(pages, path)
            assert SCRIPT in page.text, path

    async def test_an_empty_and_a_missing_directory_are_no_trouble(self, pages: Client, mails: Mails) -> None:
        assert "Nothing yet" in (await shown(pages, "/")).text
        await mails.add(mail().as_bytes())
        (mails.directory / "notes.txt").write_text("not mail", encoding="utf-8")
        (mails.directory / ".half.eml.123").write_bytes(b"x")
        assert (await shown(pages, "/")).text.count("Sale") == 1

    async def test_without_capturing_the_page_says_so(self) -> None:
        async with console(NOWHERE) as client:
            assert "real upstream" in (await shown(client, "/")).text
            assert "no such captured message" in (await shown(client, f"/inbox/{'a' * 26}", 404)).text

    async def test_half_an_envelope_is_no_trouble(self, pages: Client, mails: Mails) -> None:
        key = await mails.add(mail().as_bytes())
        (mails.directory / f"{key}.json").write_bytes(b'{"key": ')
        assert "Sale" in (await shown(pages, "/")).text
        await shown(pages, f"/inbox/{key}")


class TestMessage:
    """A message shows every side, and its page can do nothing but be looked at."""

    async def test_the_frame_is_sandboxed_twice(self, pages: Client, mails: Mails) -> None:
        key = await mails.add(mail(f"<p>Hello</p>{SCRIPT}").as_bytes())
        (frame,) = (await shown(pages, f"/inbox/{key}")).all("iframe")
        assert frame["src"] == f"/inbox/{key}/html"
        assert frame["sandbox"].split() == ["allow-popups", "allow-popups-to-escape-sandbox"]
        answer = await pages.get(frame["src"], headers=BEARER)
        assert answer.status == 200
        policy = {part.split()[0]: part.split()[1:] for part in answer.headers["Content-Security-Policy"].split(";")}
        assert policy == {
            "default-src": ["'none'"],
            "img-src": [PUBLIC_URL, "data:"],
            "style-src": ["'unsafe-inline'"],
            "form-action": ["'none'"],
            "base-uri": ["'none'"],
            "frame-ancestors": ["'self'"],
            "sandbox": ["allow-popups", "allow-popups-to-escape-sandbox"],
        }
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        # As it is, script and all: the policy holds it, not a filter.
        assert f"<p>Hello</p>{SCRIPT}" in await answer.text()

    async def test_links_open_a_tab_and_the_doctype_stays_first(self, pages: Client, mails: Mails) -> None:
        key = await mails.add(mail("<!DOCTYPE html>\n<html><body>x</body></html>").as_bytes())
        text = await (await pages.get(f"/inbox/{key}/html", headers=BEARER)).text()
        assert text.startswith('<!DOCTYPE html><base target="_blank">')

    async def test_inline_pictures_travel_with_the_page(self, pages: Client, mails: Mails) -> None:
        message = mail('<img src="cid:logo@shop"><img src="cid:none@shop"><img src=cid:page@shop>')
        html = message.get_payload()[1]  # type: ignore[index]  # a multipart's payload is its parts
        html.add_related(PIXEL, "image", "png", cid="<logo@shop>")  # type: ignore[union-attr]  # an EmailMessage
        html.add_related(b"<svg/>", "image", "svg+xml", cid="<page@shop>")  # type: ignore[union-attr]  # the same
        key = await mails.add(message.as_bytes())
        text = await (await pages.get(f"/inbox/{key}/html", headers=BEARER)).text()
        assert '<img src="data:image/png;base64,iVBORw0KGgo=">' in text
        assert '<img src="cid:none@shop">' in text
        assert "<img src=cid:page@shop>" in text

    async def test_text_source_headers_links_and_parts(self, pages: Client, mails: Mails) -> None:
        tracked = f"{PUBLIC_URL}/track/c/abc"
        message = mail(
            f'<a href="{tracked}">a</a> <a href="https://shop.example.com/?a=1&amp;b=2">b</a> '
            f"<a href='javascript:alert(1)'>c</a> <a href=\"{tracked}\">d</a>"
        )
        message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename='pri"ce/\u20ac.pdf')
        content = message.as_bytes()
        key = await mails.add(content)
        assert "Plain words" in (await shown(pages, f"/inbox/{key}?view=text")).text
        assert "multipart/mixed" in (await shown(pages, f"/inbox/{key}?view=source")).text
        assert "Shop <news@example.com>" in (await shown(pages, f"/inbox/{key}?view=headers")).text
        links = (await shown(pages, f"/inbox/{key}?view=links")).all("a")
        assert [link["href"] for link in links if link["href"].startswith(("http", "javascript"))] == [
            tracked,
            "https://shop.example.com/?a=1&b=2",
        ]
        downloads = [
            a["href"] for a in (await shown(pages, f"/inbox/{key}?view=parts")).all("a") if "/part/" in a["href"]
        ]
        assert downloads == [f"/inbox/{key}/part/{number}" for number in range(3)]
        answer = await pages.get(downloads[2], headers=BEARER)
        assert await answer.read() == b"%PDF"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == (
            "attachment; filename=\"pri_ce__.pdf\"; filename*=UTF-8''pri%22ce%2F%E2%82%AC.pdf"
        )
        html = await pages.get(downloads[1], headers=BEARER)
        assert html.headers["Content-Type"] == "application/octet-stream"
        raw = await pages.get(f"/inbox/{key}/raw", headers=BEARER)
        assert await raw.read() == (mails.directory / f"{key}.eml").read_bytes() == content

    async def test_legacy_charsets_read_as_they_were_meant(self, pages: Client, mails: Mails) -> None:
        content = (
            b"Subject: =?windows-1251?B?z/Do4uXy?=\r\nContent-Type: text/html; charset=windows-1251\r\n"
            b"Content-Transfer-Encoding: 8bit\r\n\r\n<p>\xcf\xf0\xe8\xe2\xe5\xf2</p>\r\n"
        )
        key = await mails.add(content)
        answer = await pages.get(f"/inbox/{key}/html", headers=BEARER)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "<p>\u041f\u0440\u0438\u0432\u0435\u0442</p>" in await answer.text()
        assert "\u041f\u0440\u0438\u0432\u0435\u0442" in (await shown(pages, f"/inbox/{key}")).text

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\r\n",
            b"no header at all",
            b"\xff\xfe\x00\x01",
            b"Content-Type: text/html; charset=klingon\r\n\r\n<p>x</p>",
            b"Content-Type: text/html; charset=idna\r\n\r\n" + b"a." * 500,
            b"Content-Type: multipart/mixed\r\n\r\nx",
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nunclosed",
            b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!",
            b"Content-Type: text/plain; name*0*=utf-8''%FF; name*1=x\r\n\r\nx",
            b"Content-Type: message/rfc822\r\n\r\nSubject: inside\r\n\r\nx",
            b"Subject: =?utf-8?B?////?=\r\nFrom: =?klingon?Q?x?=\r\n\r\nx",
            b"".join(
                b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (depth, depth)
                for depth in range(2000)
            ),
            b"Content-Type: text/html\r\n\r\n" + b"<a href=" * 60_000,
            b"Content-Type: text/html\r\n\r\n" + b'<a href="' * 60_000,
        ],
    )
    async def test_whatever_was_sent_can_be_looked_at(self, pages: Client, mails: Mails, content: bytes) -> None:
        key = await mails.add(content)
        async with asyncio.timeout(10):
            for view in ("html", "text", "headers", "source", "links", "parts"):
                await shown(pages, f"/inbox/{key}?view={view}")
            assert (await pages.get(f"/inbox/{key}/raw", headers=BEARER)).status == 200
            assert (await pages.get(f"/inbox/{key}/html", headers=BEARER)).status in {200, 404}
            assert (await pages.get(f"/inbox/{key}/part/0", headers=BEARER)).status in {200, 404}
            await shown(pages, "/")

    async def test_only_keys_name_files(self, pages: Client, mails: Mails) -> None:
        (mails.directory.parent / "secret.eml").write_text("secret", encoding="utf-8")
        await mails.add(mail().as_bytes())
        for name in ("..%2Fsecret", "..%252Fsecret", "%00", "a", "A" * 26, f"{'a' * 25}b", f"{'a' * 26}.json", "."):
            for side in ("", "/html", "/raw", "/state", "/part/0"):
                answer = await pages.get(f"/inbox/{name}{side}", headers=BEARER)
                assert answer.status == 404, (name, side)
                assert "secret" not in (await answer.text()).replace("%2Fsecret", "")


class TestState:
    """What became of a message arrives beside it."""

    async def test_an_event_arrives_in_the_fragment(self, database_url: str, pool: Pool, mails: Mails) -> None:
        rows = Rows(pool)
        message = await rows.message(campaign=await rows.campaign("42"), reply="250 2.0.0 Ok")
        await mails.add(mail("<p>x</p>").as_bytes(), key=message.key)
        async with console(database_url, capture_dir=mails.directory) as client:
            page = await shown(client, f"/inbox/{message.key}")
            (state,) = [attrs for attrs in page.all("div") if attrs.get("id") == "state"]
            assert "None yet" in page.text
            await rows.engagement(message, opens=1, clicks=2, first_opened_at=NOON, first_clicked_at=NOON)
            await rows.event(message, "clicked", url="https://shop.example.com/?q=<b>", at=NOON + timedelta(seconds=1))
            await rows.event(message, "opened", machine=True, reason="prefetch/1")
            fragment = await shown(client, state["data-from"])
        assert "None yet" not in fragment.text
        assert "2 \u00d7" in fragment.text
        assert "https://shop.example.com/?q=<b>" in fragment.text
        assert "by a machine: prefetch/1" in fragment.text
        assert fragment.text.index("clicked") < fragment.text.index("2026-03-01 12:00:00")
        assert "html" not in [tag for tag, _ in fragment.tags]

    async def test_while_the_ledger_is_away_the_mail_still_shows(self, pages: Client, mails: Mails) -> None:
        key = await mails.add(mail().as_bytes())
        for path in ("/", f"/inbox/{key}", f"/inbox/{key}/state"):
            page = await shown(pages, path)
            assert "PostgreSQL cannot be reached" in page.text
            assert "hunter2" not in page.text

    async def test_a_message_of_another_ledger_is_said_to_be_unknown(self, database_url: str, mails: Mails) -> None:
        key = await mails.add(mail().as_bytes())
        async with console(database_url, capture_dir=mails.directory) as client:
            assert "does not know" in (await shown(client, f"/inbox/{key}")).text
