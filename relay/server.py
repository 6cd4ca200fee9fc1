"""Listen for mailers, and stop without losing what was accepted.

Everything runs in the caller's event loop, beside the pipeline's pools. Stopping means: no new connection, idle
sessions told 421, transactions finished, and only at the deadline cut off.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from relay.conversation import OutriderSMTP
from relay.intake import Acceptor
from relay.passwords import PasswordHash
from relay.reception import Reception, ServerSettings

__all__ = ["Listener", "RelayServer", "ServerSettings", "serve", "tls_context"]

_BACKLOG = 512
_HANDSHAKE_SECONDS = 30.0


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen: an address and port, or a bound socket that is handed over."""

    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 0
    bound: socket.socket | None = None
    #: TLS from the first octet (RFC 8314 3.3), instead of STARTTLS.
    implicit_tls: bool = False


class RelayServer:
    """The listening sockets and their sessions; made by `serve`, ended by `drain`."""

    def __init__(self, reception: Reception, servers: Sequence[asyncio.Server]) -> None:
        self._reception = reception
        self._servers = servers
        #: Host and port of each listening socket, in the order of the listeners.
        self.addresses: tuple[tuple[str, int], ...] = tuple(
            bound.getsockname()[:2] for server in servers for bound in server.sockets
        )

    def reload(self, *, users: Mapping[str, PasswordHash] | None, certificate: tuple[str, str] | None) -> None:
        """Take other users, and the certificate and key of these PEM files, for sessions from here on.

        Raises `OSError` when the files cannot be read or do not belong together; then nothing has changed.
        """
        context = self._reception.settings.tls
        if context is not None and certificate is not None:
            # Tried first on one that nobody uses: half a pair loaded would end every handshake.
            tls_context(*certificate)
            context.load_cert_chain(*certificate)
        if self._reception.gate is not None and users is not None:
            self._reception.gate.admit_only(users)

    async def drain(self, *, seconds: float) -> None:
        """Stop listening, finish the transactions in progress, and close; after *seconds* close regardless."""
        for server in self._servers:
            server.close()
        await self._reception.drain(seconds)
        for server in self._servers:
            await server.wait_closed()


async def serve(
    acceptor: Acceptor,
    settings: ServerSettings,
    *,
    listeners: Iterable[Listener],
    reuse_port: bool = False,
) -> RelayServer:
    """Start to listen and return at once; *reuse_port* lets several processes share a port.

    Raises `OSError` when an address cannot be had, and `ValueError` for implicit TLS without a certificate.
    """
    reception = Reception(acceptor, settings)
    servers: list[asyncio.Server] = []
    try:
        for listener in listeners:
            servers.append(await _listen(listener, reception, reuse_port=reuse_port))  # noqa: PERF401 - closed below
    except BaseException:
        for server in servers:
            server.close()
        raise
    return RelayServer(reception, servers)


async def _listen(listener: Listener, reception: Reception, *, reuse_port: bool) -> asyncio.Server:
    context = reception.settings.tls if listener.implicit_tls else None
    if listener.implicit_tls and context is None:
        raise ValueError("implicit TLS needs a certificate")
    create = functools.partial(
        asyncio.get_running_loop().create_server,
        lambda: OutriderSMTP(reception),
        backlog=_BACKLOG,
        ssl=context,
        ssl_handshake_timeout=None if context is None else _HANDSHAKE_SECONDS,
    )
    if listener.bound is not None:
        return await create(sock=listener.bound)
    # False is not the same as None: some platforms refuse to be asked for what they do not have.
    return await create(host=listener.host, port=listener.port, reuse_port=reuse_port or None)


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Return the server's TLS context from PEM files: TLS 1.2 or later. Raises `OSError` when they cannot be read."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context
