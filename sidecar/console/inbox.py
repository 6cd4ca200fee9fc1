"""The capture inbox: what would have left, and what became of it, for a first look and for tests.

A captured message is a stranger's page. It is shown in a sandboxed frame, under a policy that lets it fetch our own
pixel and nothing else, and run nothing.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import structlog
from aiohttp import hdrs, web

from ledger import reports
from ledger.ids import MessageKey, key_bytes
from ledger.reports import Message, MessageFilter
from ledger.store import UNAVAILABLE, Ledger
from sidecar.console.asked import ProblemError, not_found
from sidecar.console.captured import Capture, Envelope, Part, read_mail, read_part
from sidecar.console.pages import page

log = structlog.get_logger()

Result = TypeVar("Result")

#: Messages on one page of the inbox.
PAGE_SIZE = 50

#: Characters of the source that a page shows; the download has all of it.
SOURCE_SHOWN = 500_000

VIEWS = ("html", "text", "headers", "source", "links", "parts")

_LARGEST_PAGE = 1_000_000


class Inbox:
    """The pages, with what they read."""

    def __init__(self, ledger: Ledger, directory: Path | None, public_url: str) -> None:
        self._ledger = ledger
        self._capture = None if directory is None else Capture(directory)
        self._click_url = f"{public_url.rstrip('/')}/track/c/"
        self._frame_policy = frame_policy(public_url)

    def routes(self) -> list[web.RouteDef]:
        """Return the pages' paths."""
        return [
            web.get("/", self.show_inbox),
            web.get("/inbox/{key}", self.show_message),
            web.get("/inbox/{key}/state", self.show_state),
            web.get("/inbox/{key}/html", self.show_html),
            web.get("/inbox/{key}/raw", self.download),
            web.get("/inbox/{key}/part/{number:[0-9]{1,4}}", self.download_part),
        ]

    async def show_inbox(self, request: web.Request) -> web.Response:
        """List captured messages, newest first."""
        if self._capture is None:
            return page("inbox.html", capturing=False, rows=[], number=1, last=1, total=0, known=True)
        capture, number = self._capture, _page_number(request)
        summaries, total = await self._read(lambda: capture.listing(page=number, size=PAGE_SIZE))
        states, known = await self._states([MessageKey(summary.envelope.key) for summary in summaries])
        return page(
            "inbox.html",
            capturing=True,
            rows=[(summary, states.get(MessageKey(summary.envelope.key))) for summary in summaries],
            number=number,
            last=max(1, -(-total // PAGE_SIZE)),
            total=total,
            known=known,
        )

    async def show_message(self, request: web.Request) -> web.Response:
        """Show one message, one of its sides, and what became of it."""
        key, content = await self._content(request)
        envelope = await self._read(lambda: self._envelope(key))
        mail = await asyncio.to_thread(read_mail, content)
        sides = {"html": mail.page is not None, "text": mail.text is not None}
        view = request.query.get("view", "")
        if view not in VIEWS or not sides.get(view, True):
            view = next((side for side in ("html", "text") if sides[side]), "source")
        states, known = await self._states([key])
        return page(
            "message.html",
            key=key,
            envelope=envelope,
            mail=mail,
            view=view,
            views=[side for side in VIEWS if sides.get(side, True)],
            links=[(url, url.startswith(self._click_url)) for url in mail.links],
            source=content[:SOURCE_SHOWN].decode("utf-8", "replace") if view == "source" else "",
            cut=len(content) > SOURCE_SHOWN,
            size=len(content),
            message=states.get(key),
            known=known,
        )

    async def show_state(self, request: web.Request) -> web.Response:
        """Answer the part of a message's page that changes; its script asks for it again and again."""
        key = _key(request)
        states, known = await self._states([key])
        return page("state.html", message=states.get(key), known=known)

    async def show_html(self, request: web.Request) -> web.Response:
        """Answer a message's HTML as the page that the frame shows."""
        _, content = await self._content(request)
        mail = await asyncio.to_thread(read_mail, content)
        if mail.page is None:
            raise not_found("page")
        return web.Response(
            body=mail.page.encode("utf-8", "replace"),
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": self._frame_policy},
        )

    async def download(self, request: web.Request) -> web.Response:
        """Answer the very octets that left."""
        key, content = await self._content(request)
        return _attachment(content, f"{key}.eml")

    async def download_part(self, request: web.Request) -> web.Response:
        """Answer one part's decoded octets, to be saved and never shown."""
        _, content = await self._content(request)
        number = int(request.match_info["number"])
        found = await asyncio.to_thread(_part_of, content, number)
        if found is None:
            raise not_found("part")
        part, payload = found
        return _attachment(payload, part.name or f"part-{number}")

    async def _content(self, request: web.Request) -> tuple[MessageKey, bytes]:
        key = _key(request)
        capture = self._capture
        content = None if capture is None else await self._read(lambda: capture.content(key))
        if content is None:
            raise not_found("captured message")
        return key, content

    def _envelope(self, key: str) -> Envelope | None:
        return None if self._capture is None else self._capture.envelope(key)

    async def _read(self, read: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            log.warning("capture_unreadable", error=type(error).__name__)
            raise ProblemError(503, "unavailable", "the captured mail cannot be read from the disk") from error

    async def _states(self, keys: list[MessageKey]) -> tuple[dict[MessageKey, Message], bool]:
        """Return what the ledger knows of *keys*, and whether it could be asked."""
        try:
            rows = await self._ledger.fetch("report_messages_by_keys", [key_bytes(key) for key in keys])
            wanted = MessageFilter(ids=tuple(row["id"] for row in rows))
            found = await reports.messages(self._ledger, wanted, limit=max(1, len(keys)))
        except UNAVAILABLE as error:
            log.warning("console_lost_ledger", route="inbox", error=type(error).__name__)
            return {}, False
        return {message.key: message for message in found.messages}, True


def frame_policy(public_url: str) -> str:
    """Return the policy of a captured page: our own pixel, its own styles and pictures, no script, no form."""
    parts = urlsplit(public_url)
    return (
        f"default-src 'none'; img-src {parts.scheme}://{parts.netloc} data:; style-src 'unsafe-inline'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'self'; "
        "sandbox allow-popups allow-popups-to-escape-sandbox"
    )


def _attachment(content: bytes, name: str) -> web.Response:
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\/%' else "_" for char in name)
    return web.Response(
        body=content,
        content_type="application/octet-stream",
        headers={
            hdrs.CONTENT_DISPOSITION: f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def _part_of(content: bytes, number: int) -> tuple[Part, bytes] | None:
    mail = read_mail(content)
    return None if mail.broken else read_part(content, number)


def _key(request: web.Request) -> MessageKey:
    key = request.match_info["key"]
    try:
        key_bytes(key)
    except ValueError:
        raise not_found("captured message") from None
    return MessageKey(key)


def _page_number(request: web.Request) -> int:
    text = request.query.get("page", "1")
    return min(max(int(text), 1), _LARGEST_PAGE) if text.isascii() and text.isdigit() and len(text) < 8 else 1
