"""A real browser, headless and without a network, that shows a page as a person would see it.

One Chromium serves a whole test; it is driven over its DevTools protocol. It can reach this machine's loopback and
nothing else, it writes into the folder it is given, and its whole process group is ended with the test.
"""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

#: Longer than any page takes, on a machine that does something else too.
_PATIENCE = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--disable-lcd-text",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    "--window-size=800,1000",
)


class BrowserError(Exception):
    """The browser did not start, or did not do as it was told; the text is its own."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a page looks like: all of it, not only what fits the window."""

    width: int
    height: int
    png: bytes


def find_browser() -> str | None:
    """Return the path of a Chromium or Chrome, if there is one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """The one page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._sent = 0

    async def open(self, url: str) -> None:
        """Show what stands at *url*, and wait until it and its pictures are there, or are known not to come."""
        async with asyncio.timeout(_PATIENCE):
            answer = await self._call("Page.navigate", url=url)
            if "errorText" in answer:
                raise BrowserError(f"{url}: {answer['errorText']}")
            await self._event("Page.loadEventFired")
        await self.says("document.fonts.ready.then(() => 1)")

    async def says(self, expression: str) -> Any:
        """Return what *expression*, JavaScript that may be a promise, comes to in the page."""
        async with asyncio.timeout(_PATIENCE):
            answer = await self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def links(self) -> list[str]:
        """Return where each link of the page leads, as the browser understands it."""
        links = await self.says("Array.from(document.links, link => link.href)")
        assert isinstance(links, list)
        return links

    async def resolves(self, url: str) -> str:
        """Return *url* as the browser goes to it, for one that stands alone, such as a Location."""
        return str(await self.says(f"new URL({msgspec.json.encode(url).decode()}).href"))

    async def look(self) -> Look:
        """Take a picture of the whole page."""
        async with asyncio.timeout(_PATIENCE):
            size = (await self._call("Page.getLayoutMetrics"))["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            shot = await self._call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return Look(width=int(size["width"]), height=int(size["height"]), png=base64.b64decode(shot["data"]))

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    async def _event(self, method: str) -> None:
        while (await self._socket.receive_json()).get("method") != method:
            pass

    @classmethod
    async def of(cls, socket: aiohttp.ClientWebSocketResponse) -> "Page":
        """Return a new page of the browser behind *socket*; what stands in it runs no script, as in a mail program."""
        browser = cls(socket, "")
        target = (await browser._call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await browser._call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = cls(socket, session)
        page._sent = browser._sent
        await page._call("Page.enable")
        await page._call("Emulation.setScriptExecutionDisabled", value=True)
        await page._call("Network.enable")
        await page._call("Network.setCacheDisabled", cacheDisabled=True)
        return page


@contextlib.asynccontextmanager
async def browser_page(program: str, folder: Path) -> AsyncIterator[Page]:
    """Run *program*, a Chromium, with all that it writes in *folder*; yield its page."""
    profile = folder / "profile"
    profile.mkdir()
    home = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR")}
    # Chromium's sandbox needs a user of its own; as root it has to go without.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (folder / "browser.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            *_OPTIONS,
            *sandbox,
            f"--user-data-dir={profile}",
            "about:blank",
            env=os.environ | home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = await _address(profile / "DevToolsActivePort", process, folder / "browser.log")
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=0) as socket,
            ):
                yield await Page.of(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _address(file: Path, process: asyncio.subprocess.Process, log: Path) -> str:
    """Return where the browser listens, once it has written it down."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while asyncio.get_running_loop().time() < deadline and process.returncode is None:
        lines = _text(file).splitlines()
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.02)
    raise BrowserError(f"the browser did not start: {_text(log)[-2_000:]}")


def _text(file: Path) -> str:
    return file.read_text("utf-8", "replace") if file.is_file() else ""


def differing(before: bytes, after: bytes) -> str:
    """Return in words where two PNG pictures differ, pixel by pixel; empty if they do not."""
    if before == after:
        return ""
    was, became = _rows(before), _rows(after)
    if (len(was), len(was[0])) != (len(became), len(became[0])):
        return f"one is {len(was[0])} pixels by {len(was)}, the other {len(became[0])} by {len(became)}"
    places = [
        (x, y)
        for y, (one, other) in enumerate(zip(was, became, strict=True))
        if one != other
        for x, (left, right) in enumerate(zip(one, other, strict=True))
        if left != right
    ]
    if not places:
        return ""
    across, down = [x for x, _ in places], [y for _, y in places]
    return f"{len(places)} pixels differ, in x {min(across)} to {max(across)} and y {min(down)} to {max(down)}"


_CHANNELS = {2: 3, 6: 4}


def _rows(png: bytes) -> list[list[bytes]]:
    """Return the pixels of a PNG of 8 bits a channel that is not interlaced (RFC 2083), row by row."""
    width, height, depth, colour = struct.unpack_from(">IIBB", png, 16)
    assert (png[:8], depth, png[28]) == (b"\x89PNG\r\n\x1a\n", 8, 0), "a kind of PNG that Chromium does not make"
    size = _CHANNELS[colour]
    packed, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += length + 12
    raw = zlib.decompress(packed)
    stride = width * size
    rows: list[list[bytes]] = []
    above = bytes(stride)
    for y in range(height):
        start = y * (stride + 1)
        above = _unfiltered(raw[start], raw[start + 1 : start + 1 + stride], above, size)
        rows.append([above[x : x + size] for x in range(0, stride, size)])
    return rows


def _unfiltered(kind: int, row: bytes, above: bytes, size: int) -> bytes:
    done = bytearray(row)
    for at, octet in enumerate(row):
        left = done[at - size] if at >= size else 0
        up = above[at]
        corner = above[at - size] if at >= size else 0
        match kind:
            case 0:
                return row
            case 1:
                guess = left
            case 2:
                guess = up
            case 3:
                guess = (left + up) // 2
            case _:
                guess = min((left, up, corner), key=lambda near: abs(left + up - corner - near))
        done[at] = (octet + guess) & 0xFF
    return bytes(done)
