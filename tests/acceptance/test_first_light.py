"""The whole main job, as an operator, a mailer, a recipient and AMS see it, on one running Outrider."""

import asyncio
import base64
import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from pathlib import Path

import aiohttp
import pytest
from bs4 import BeautifulSoup
from yarl import URL

from sidecar.standin_ams import StandinAms
from tests.conftest import Eventually
from tests.running import Outrider, outrider, short_directory

LINKS = {
    "https://example.com/?a=1&amp;b=2": "https://example.com/?a=1&b=2",
    "https://example.com/%7E%2Fx?q=%7E%2F": "https://example.com/%7E%2Fx?q=%7E%2F",
    "https://example.com/a|b": "https://example.com/a|b",
    "https://example.com/?a[]=1": "https://example.com/?a[]=1",
    "https://example.com/p#fragment": "https://example.com/p#fragment",
    **{f"https://example.com/{number}": f"https://example.com/{number}" for number in range(5)},
}
PDF = b"%PDF-1.4\n" + bytes(range(256)) * 40 + b"\n%%EOF\n"
TEXT = "Здравствуйте, это распродажа.\n"
RECIPIENTS = ["ann@example.net", "Bob.Case@Example.org", "cyril@example.com"]


def _mail() -> bytes:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = "Shop <news@shop.example.com>"
    mail["To"] = "everybody@example.com"
    mail["Subject"] = "Распродажа"
    mail["Date"] = "Sun, 22 Nov 2026 10:00:00 +0000"
    mail["Message-ID"] = "<sale.1@mailer.example.com>"
    mail["X-Id-Mail"] = "[4711]"
    mail.set_content(TEXT, charset="windows-1251", cte="base64")
    links = "\n".join(f'<a href="{link}">ссылка</a>' for link in LINKS)
    mail.add_alternative(f"<html><body>{links}</body></html>", subtype="html", charset="windows-1251", cte="base64")
    mail.add_attachment(PDF, maintype="application", subtype="pdf", filename="list.pdf")
    return mail.as_bytes()


def _submit(port: int, content: bytes, recipients: list[str]) -> tuple[int, str]:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        client.mail("bounce@shop.example.com")
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        code, text = client.data(content)
        return code, text.decode("ascii")


def _captured(data_dir: Path) -> dict[str, EmailMessage]:
    found = {}
    for path in (data_dir / "capture").glob("*.eml"):
        mail = message_from_bytes(path.read_bytes(), EmailMessage, policy=default)
        found[path.stem] = mail
    return found


def _page(mail: EmailMessage) -> BeautifulSoup:
    part = mail.get_body(("html",))
    assert part is not None
    return BeautifulSoup(part.get_content(), "html.parser")


async def _get(url: str, method: str = "GET", data: dict[str, str] | None = None) -> tuple[int, str | None]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            URL(url, encoded=True),
            data=data,
            allow_redirects=False,
            headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
        ) as answer,
    ):
        return answer.status, answer.headers.get("Location")


async def _pending(running: Outrider) -> int:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {running.token}"}) as session:
        url = f"http://127.0.0.1:{running.console}/api/campaigns/4711"
        async with session.get(url) as answer:
            campaign = await answer.json()
            return int(campaign["ams"]["pending"])


@asynccontextmanager
async def _scene(free_port: Callable[[], int]) -> AsyncIterator[tuple[Outrider, StandinAms]]:
    async with StandinAms(api_key="k") as ams:
        with short_directory() as data_dir:
            async with outrider(
                data_dir, free_port, ams__url=ams.url, ams__api_key="k", ams__interval="0.2"
            ) as running:
                yield running, ams


@pytest.mark.timeout(150)
async def test_the_main_job(free_port: Callable[[], int], eventually: Eventually) -> None:
    """Three people, three messages, their hits, and AMS; with AMS down in between and nothing lost."""
    async with _scene(free_port) as (running, ams):
        code, text = await asyncio.to_thread(_submit, running.smtp, _mail(), RECIPIENTS)
        assert (code, text[:6]) == (250, "2.0.0 ")
        mails = _captured(running.data_dir)
        assert len(mails) == 3
        assert len({mail["Message-ID"] for mail in mails.values()}) == 3
        for key, mail in mails.items():
            assert mail["Message-ID"] == f"<{key}@shop.example.com>"
            assert mail["X-Original-Message-ID"] == "<sale.1@mailer.example.com>"
            (attachment,) = mail.iter_attachments()
            assert attachment.get_content() == PDF
            plain = mail.get_body(("plain",))
            assert plain is not None
            assert plain.get_content_charset() == "windows-1251"
            assert plain.get_content().split() == TEXT.split()
            page = _page(mail)
            assert len(page.find_all("img")) == 1
            assert [link.get_text() for link in page.find_all("a")] == ["ссылка"] * len(LINKS)
        everything = " ".join(str(mail["List-Unsubscribe"]) + str(_page(mail)) for mail in mails.values())
        for recipient in RECIPIENTS:
            assert recipient not in everything
            assert base64.urlsafe_b64encode(recipient.encode()).decode().rstrip("=") not in everything

        await ams.stop()
        mail = next(iter(mails.values()))
        page = _page(mail)
        for link, wanted in zip(page.find_all("a"), LINKS.values(), strict=True):
            assert await _get(str(link["href"])) == (302, wanted)
        image = page.find("img")
        assert image is not None
        assert (await _get(str(image["src"])))[0] == 200
        unsubscribe = str(mail["List-Unsubscribe"]).strip("<>")
        assert await _get(unsubscribe, "POST", {"List-Unsubscribe": "One-Click"}) == (200, None)
        first = str(page.find_all("a")[0]["href"])
        assert await _get(first[:-4] + "AAAA") == (404, None)

        async def everything_waits() -> bool:
            return await _pending(running) == len(LINKS) + 2

        await eventually(everything_waits, timeout=30)
        assert ams.received == []

        await ams.start()
        await eventually(lambda: len(ams.received) >= len(LINKS) + 2, timeout=60)
        emails = {item.email for item in ams.received}
        assert len(emails) == 1
        assert emails <= set(RECIPIENTS)
        assert {item.mailing for item in ams.received} == {4711}
        assert sorted(item.url for item in ams.received) == sorted(
            [*LINKS.values(), "open_trace", "Unsubscribe_Click:DC,AE{|;"]
        )
