"""Ask one https address for its document: public addresses only, no redirect, bounded in time and size.

What is asked for was named by a stranger's request, host checked by the provider's rules. The address that was judged
is the one that is connected to, so a name cannot point elsewhere in between.
"""

import ipaddress
import re
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

#: Seconds for all of it: Postal waits five for its answer.
FETCH_SECONDS = 3.0
#: A certificate has 2 kB, a key set 4.
MAX_DOCUMENT = 65_536

# One reading only: no userinfo, no backslash, no blank that one parser passes over and another does not.
_URL = re.compile(
    r"\Ahttps://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?(?:[/?][!-~]*)?\Z"
)
_PORTS = 65_536
_MAX_URL = 6000
_MAX_LINE = 8190
_OK = 200
# What a translating network puts before an IPv4 address (RFC 6052).
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


class DocumentError(Exception):
    """The document could not be had; the text is a fixed word or two of ours."""


class Fetcher(Protocol):
    """Asks for a document."""

    async def fetch(self, url: str) -> bytes:
        """Return what *url* answers with 200; raise `DocumentError`."""
        ...


def is_public(address: str) -> bool:
    """Say whether *address* is one of the Internet's: no private, loopback, link-local, shared or reserved one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _TRANSLATED:
            found = ipaddress.IPv4Address(found.packed[12:])
        elif found.sixtofour is not None or found.teredo is not None:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


class HttpsFetcher:
    """Fetches over the network; `close` it at the end. *tls* and *reachable* are a test's, which has only loopback."""

    def __init__(
        self,
        *,
        seconds: float = FETCH_SECONDS,
        tls: ssl.SSLContext | None = None,
        reachable: Callable[[str], bool] = is_public,
    ) -> None:
        self._seconds = seconds
        self._tls = tls
        self._reachable = reachable
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """Return what *url* answers with 200; raise `DocumentError`."""
        self._judge(url)
        try:
            async with self._open().get(URL(url, encoded=True), allow_redirects=False) as response:
                if response.status != _OK:
                    raise DocumentError(f"it answered {response.status}")
                return await _bounded(response)
        except TimeoutError:
            raise DocumentError("it was too slow") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise DocumentError("it could not be reached") from None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _judge(self, url: str) -> None:
        match = _URL.match(url)
        if match is None or len(url) > _MAX_URL or not int(match["port"] or 443) < _PORTS:
            raise DocumentError("its address is not asked for")
        host = match["host"]
        # A name is judged when it is resolved; what looks like a number (127.1, too) the client connects to as it is.
        if (host.startswith("[") or host.replace(".", "").isdigit()) and not self._reachable(host.strip("[]")):
            raise DocumentError("its address is not public")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_Judging(self._reachable), ssl=self._tls or True, use_dns_cache=False, limit=8
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                # An answer is taken as it comes: nothing is unpacked, so nothing can swell.
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "outrider"},
                max_line_size=_MAX_LINE,
                max_field_size=_MAX_LINE,
                trust_env=False,
            )
        return self._session


class _Judging(AbstractResolver):
    """Resolves a name to those of its addresses that may be asked."""

    def __init__(self, reachable: Callable[[str], bool]) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._reachable = reachable

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [one for one in found if self._reachable(one["host"])]
        if not allowed:
            raise OSError("no public address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_DOCUMENT:
            raise DocumentError("it is too long")
    return bytes(body)
