"""Play the recipients: read captured mail as a mail client does, fetch the pixel, click, unsubscribe."""

import re
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import aiohttp
import msgspec
from bs4 import BeautifulSoup
from yarl import URL

_BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its recipient sees it."""

    message_id: str
    text: str
    html: str
    #: Every href in the page, decoded as a browser decodes it.
    hrefs: tuple[str, ...]
    #: The addresses of the images in the page.
    images: tuple[str, ...]
    attachments: tuple[bytes, ...]
    #: The https or http address of List-Unsubscribe; empty without one.
    unsubscribe: str
    one_click: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the tracker said."""

    status: int
    location: str | None
    body: bytes


def read(content: bytes) -> Received:
    """Read a message that left."""
    # The policy makes the parser build the modern class, which knows what is shown.
    mail = message_from_bytes(content, EmailMessage, policy=default)
    html = mail.get_body(("html",))
    text = mail.get_body(("plain",))
    page = "" if html is None else str(html.get_content())
    soup = BeautifulSoup(page, "html.parser")
    listed = re.search(r"<(https?://[^>]+)>", str(mail.get("List-Unsubscribe", "")))
    return Received(
        message_id=str(mail["Message-ID"]),
        text="" if text is None else str(text.get_content()),
        html=page,
        hrefs=tuple(str(link["href"]) for link in soup.find_all("a", href=True)),
        images=tuple(str(image["src"]) for image in soup.find_all("img", src=True)),
        attachments=tuple(part.get_content() for part in mail.iter_attachments()),
        unsubscribe="" if listed is None else listed[1],
        one_click=str(mail.get("List-Unsubscribe-Post", "")) == "List-Unsubscribe=One-Click",
    )


class Browser:
    """A recipient's client: it follows nothing by itself."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, url: str) -> Answer:
        """Fetch *url* exactly as it is spelt."""
        return await self._ask("GET", url, None)

    async def one_click(self, url: str) -> Answer:
        """Unsubscribe as a mail provider does (RFC 8058)."""
        return await self._ask("POST", url, {"List-Unsubscribe": "One-Click"})

    async def _ask(self, method: str, url: str, form: dict[str, str] | None) -> Answer:
        async with self._session.request(
            method, URL(url, encoded=True), data=form, allow_redirects=False, headers={"User-Agent": _BROWSER}
        ) as response:
            return Answer(status=response.status, location=response.headers.get("Location"), body=await response.read())
