"""Make one HTTP request of a sink, and say what came back.

A body holds addresses and a header may hold a token: nothing of them is logged, no redirect is followed with them, and
TLS is verified.
"""

import io
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp

from courier.answer import Unanswered
from courier.sinks import Answer, Doubtful, read_status

#: So much of an answer is read for its reason.
_TEXT_LIMIT = 2000

# Half of the time is for the answer.
_CONNECT_SHARE = 0.5


class Post:
    """An endpoint. Open it with `open_post`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout: float) -> None:
        self._session = session
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=timeout * _CONNECT_SHARE)

    async def send(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post *body*, and return what was answered; raise nothing. `Doubtful`: it was out, and may have been taken."""
        try:
            async with self._session.post(
                self._url,
                # A file and not bytes: aiohttp sends it in blocks, and writes no warning for a body over 1 MiB.
                data=io.BytesIO(body),
                headers={"User-Agent": "Outrider", **headers},
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                text = "" if response.ok else await _beginning(response)
                return read_status(response.status, text, response.headers.get("Retry-After"), datetime.now(UTC))
        except aiohttp.ConnectionTimeoutError:
            return Unanswered(reason="no connection in time")
        except TimeoutError:
            return Doubtful(reason="timeout")
        except aiohttp.ClientSSLError:
            return Unanswered(reason="TLS failed or the certificate is not trusted")
        except aiohttp.ClientConnectorError:
            return Unanswered(reason="no connection")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The exception's own words may hold the URL, and with it a password.
            return Doubtful(reason=type(error).__name__)


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Return the first words of a refusal; its status counts without them too."""
    try:
        return (await response.content.read(_TEXT_LIMIT)).decode("utf-8", "replace")
    except (aiohttp.ClientError, OSError):
        return ""


@asynccontextmanager
async def open_post(url: str, *, ca_file: str, timeout: float) -> AsyncIterator[Post]:  # noqa: ASYNC109 - of each request
    """Make a client for *url*; raises `OSError` or `ssl.SSLError` for an unusable `ca_file`."""
    trust = ssl.create_default_context(cafile=ca_file or None)
    # A connection per request: they are seconds apart, and one that was closed meanwhile would look like a failure.
    connector = aiohttp.TCPConnector(limit=1, ssl=trust, force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Post(session, url, timeout)
