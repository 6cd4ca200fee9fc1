"""Play the mailer, the recipients and the operator of a running Outrider, over its sockets alone."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import aiohttp
import aiosmtplib
import msgspec
from bs4 import BeautifulSoup
from yarl import URL

from tests.running import Outrider

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SENDER = "bounce@shop.example.com"

#: Seconds in which anything is answered; the machine may be busy with other tests.
PATIENCE = 60.0


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a visitor got."""

    status: int
    location: str | None
    content_type: str
    body: bytes


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """What of ours a message holds."""

    message_id: str
    pixel: str
    links: tuple[str, ...]
    unsubscribe: str


def mail(
    message_id: str | None,
    *,
    campaign: str | None = "65",
    links: tuple[str, ...] = ("https://example.com/?a=1&b=2",),
    text: str = "Hello",
    date: str = "Sun, 22 Nov 2026 10:00:00 +0000",
    extra: str = "",
) -> bytes:
    """Return an ordinary HTML mail as a mailer submits it; *extra* are further header lines, each ending in CRLF."""
    anchors = "".join(f'<p><a href="{link.replace("&", "&amp;")}">here</a></p>' for link in links)
    lines = [
        "From: Shop <news@shop.example.com>",
        "To: everybody@example.net",
        "Subject: Sale",
        f"Date: {date}",
        *([] if message_id is None else [f"Message-ID: <{message_id}>"]),
        *([] if campaign is None else [f"X-Id-Mail: [{campaign}]"]),
        "MIME-Version: 1.0",
        "Content-Type: text/html; charset=utf-8",
    ]
    head = "".join(f"{line}\r\n" for line in lines)
    return f"{head}{extra}\r\n<html><body><p>{text}</p>{anchors}</body></html>\r\n".encode()


async def submit(
    port: int,
    content: bytes,
    *recipients: str,
    sender: str = SENDER,
    source: str | None = None,
    patience: float = PATIENCE,
) -> tuple[int, str]:
    """Submit over SMTP, from the address *source*, and return the last reply: code and text, a refusal's too.

    A reply that takes longer than *patience* seconds is an error.
    """
    client = aiosmtplib.SMTP(
        hostname="127.0.0.1",
        port=port,
        timeout=patience,
        start_tls=False,
        source_address=None if source is None else (source, 0),
    )
    try:
        async with client:
            await client.ehlo()
            await client.mail(sender)
            for recipient in recipients:
                await client.rcpt(recipient)
            answer = await client.data(content)
    except aiosmtplib.SMTPResponseException as refusal:
        return refusal.code, refusal.message
    return answer.code, answer.message


async def accepted(port: int, content: bytes, *recipients: str, sender: str = SENDER) -> str:
    """Submit over SMTP, be accepted, and return the key that the 250 named."""
    code, text = await submit(port, content, *recipients, sender=sender)
    assert code == 250, (code, text)
    return text.rsplit(maxsplit=1)[-1]


async def visit(
    url: str,
    method: str = "GET",
    *,
    agent: str | None = BROWSER,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Answered:
    """Ask for *url* exactly as it is spelt; no *agent* sends no User-Agent."""
    said = dict(headers or {}) | ({} if agent is None else {"User-Agent": agent})
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            skip_auto_headers=["User-Agent"],
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session,
        session.request(method, URL(url, encoded=True), headers=said, data=form, allow_redirects=False) as answer,
    ):
        return Answered(
            status=answer.status,
            location=answer.headers.get("Location"),
            content_type=answer.content_type,
            body=await answer.read(),
        )


async def unsubscribe(url: str) -> Answered:
    """Unsubscribe by one click, as a mail program does (RFC 8058)."""
    return await visit(url, "POST", form={"List-Unsubscribe": "One-Click"})


async def until(condition: Callable[[], Awaitable[object]], patience: float = PATIENCE) -> None:
    """Wait for *condition*; the `eventually` of a fixture that is wider than a test."""
    async with asyncio.timeout(patience):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def asked(target: Outrider, path: str) -> Any:
    """Return what the console's API answers."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {target.token}"}, timeout=timeout) as session,
        session.get(f"http://127.0.0.1:{target.console}{path}") as answer,
    ):
        assert answer.status == 200, (answer.status, await answer.text())
        return await answer.json()


async def ready(port: int) -> tuple[int, dict[str, Any]]:
    """Return what `/readyz` answers on *port*."""
    answer = await visit(f"http://127.0.0.1:{port}/readyz")
    return answer.status, msgspec.json.decode(answer.body)


def tracked(content: bytes) -> Tracked:
    """Return what of ours a message that left holds: the pixel, the wrapped links in order, the unsubscribe."""
    message = message_from_bytes(content, EmailMessage, policy=default)
    part = message.get_body(("html",))
    assert part is not None
    page = BeautifulSoup(part.get_content(), "html.parser")
    pixel = page.find("img", src=re.compile("/track/o/"))
    assert pixel is not None
    return Tracked(
        message_id=str(message["Message-ID"]).strip("<>"),
        pixel=str(pixel["src"]),
        links=tuple(str(link["href"]) for link in page.find_all("a", href=re.compile("/track/c/"))),
        unsubscribe=str(message["List-Unsubscribe"]).strip("<>"),
    )


@asynccontextmanager
async def sessions(port: int, count: int) -> AsyncIterator[list[aiosmtplib.SMTP]]:
    """Open so many SMTP sessions at once, each greeted."""
    clients = [
        aiosmtplib.SMTP(hostname="127.0.0.1", port=port, timeout=PATIENCE, start_tls=False) for _ in range(count)
    ]
    try:
        for client in clients:
            await client.connect()
            await client.ehlo()
        yield clients
    finally:
        for client in clients:
            client.close()
