"""Open a connection to an upstream: greeted, encrypted and logged in, or the reason why not.

The certificate is verified; `starttls=opportunistic` goes on without that, and says why. A password never leaves in
clear text, but to this machine.
"""

import asyncio
import ssl

import aiosmtplib
import structlog

from relay.upstream import CLOSING, Trouble, judged
from relay.upstream_address import UpstreamAddress

log = structlog.get_logger()

#: Seconds until a connection must stand, from the first packet to the answer to AUTH.
CONNECT_SECONDS = 15.0


class Connector:
    """Opens connections to one upstream; remembers what was said about its certificate."""

    def __init__(
        self,
        address: UpstreamAddress,
        *,
        hostname: str,
        tls: ssl.SSLContext | None = None,
        seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._address = address
        self._hostname = hostname
        self._tls = tls
        self._seconds = seconds
        self._verifies = True
        self._said_clear = False

    async def open(self) -> aiosmtplib.SMTP | Trouble:
        """Return a connection on which MAIL can be said."""
        verifies = self._verifies
        try:
            async with asyncio.timeout(self._seconds):
                return await self._opened()
        except ssl.SSLCertVerificationError as error:
            return await self._unverified(error) if verifies else Trouble(reason="tls", unwell=True)
        except TimeoutError:
            return Trouble(reason="timeout", unwell=True)

    async def _unverified(self, error: ssl.SSLCertVerificationError) -> aiosmtplib.SMTP | Trouble:
        address = self._address
        if address.scheme == "smtps" or address.starttls != "opportunistic":
            log.warning("upstream_certificate_refused", upstream=address.name, reason=error.verify_message)
            return Trouble(reason="tls", unwell=True)
        # Better than clear text, and all that "opportunistic" promises (RFC 7435). Others may have found out meanwhile.
        if self._verifies:
            self._verifies, self._tls = False, _unverifying()
            if not address.loopback:
                log.warning("upstream_certificate_not_verified", upstream=address.name, reason=error.verify_message)
        return await self.open()

    async def _opened(self) -> aiosmtplib.SMTP | Trouble:
        address = self._address
        client = aiosmtplib.SMTP(
            hostname=address.host,
            port=address.port,
            local_hostname=self._hostname,
            timeout=self._seconds,
            use_tls=address.scheme == "smtps",
            start_tls=False,
            tls_context=self._context() if address.scheme == "smtps" else None,
        )
        try:
            trouble = await self._greet(client)
        except BaseException:
            client.close()
            raise
        if trouble is not None:
            client.close()
            return trouble
        return client

    async def _greet(self, client: aiosmtplib.SMTP) -> Trouble | None:
        step = "connect"
        try:
            await client.connect()
            await _hello(client)
            step = "tls"
            if (trouble := await self._encrypt(client)) is not None:
                return trouble
            step = "auth"
            return await self._log_in(client)
        except aiosmtplib.SMTPResponseException as error:
            return _refused(error, to_auth=step == "auth")
        except aiosmtplib.SMTPTimeoutError:
            return Trouble(reason="timeout", unwell=True)
        except ssl.SSLCertVerificationError:
            raise
        except (aiosmtplib.SMTPException, OSError) as error:
            cause = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise cause from error
            if isinstance(cause, ssl.SSLError):
                step = "tls"
            return Trouble(reason=step, unwell=True)

    async def _encrypt(self, client: aiosmtplib.SMTP) -> Trouble | None:
        address = self._address
        if address.scheme == "smtps":
            return None
        if address.starttls != "off" and client.supports_extension("starttls"):
            await client.starttls(tls_context=self._context())
            await _hello(client)
            return None
        if address.starttls == "required" or (address.user and not address.loopback):
            return Trouble(reason="tls", unwell=True)
        if not address.loopback and not self._said_clear:
            self._said_clear = True
            reason = "switched off" if address.starttls == "off" else "not offered"
            log.warning("upstream_without_tls", upstream=address.name, reason=reason)
        return None

    async def _log_in(self, client: aiosmtplib.SMTP) -> Trouble | None:
        user, password = self._address.user, self._address.password
        if not user:
            return None
        offered = client.server_auth_methods
        # One try: a wrong password said three ways is three of the tries before a lock-out.
        if "plain" in offered:
            await client.auth_plain(user, password)
        elif "login" in offered:
            await client.auth_login(user, password)
        elif "cram-md5" in offered:
            await client.auth_crammd5(user, password)
        else:
            return Trouble(reason="auth", unwell=True)
        return None

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _unverifying() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _hello(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code == CLOSING:
            raise
        await client.helo()


def _refused(error: aiosmtplib.SMTPResponseException, *, to_auth: bool) -> Trouble:
    reply = f"{error.code} {error.message}"
    if to_auth and error.code >= 500:
        return Trouble(reason="auth", reply=reply, unwell=True)
    outcome = judged(error.code, error.message)
    reason = outcome.reason if isinstance(outcome, Trouble) else "reply"
    return Trouble(reason=reason, reply=reply, unwell=True)
