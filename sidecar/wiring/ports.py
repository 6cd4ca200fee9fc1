"""The ports of a fleet: nobody else's when it starts, and its own until it ends.

Its processes listen with SO_REUSEPORT, under which the kernel lets a second fleet in and hands it half of the
connections without a word. So a port is tried without that option first, and then kept by a socket that never listens.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from sidecar.addresses import parse_listen
from sidecar.wiring.role import RoleError

# The console listens without SO_REUSEPORT: a socket that kept its port would keep it from the console too.
_EXCLUSIVE = frozenset({"console.listen"})


@asynccontextmanager
async def claimed(listens: Mapping[str, str]) -> AsyncIterator[None]:
    """Keep the listen addresses, by the settings that name them; raise `RoleError` when one cannot be had.

    Processes of this account that listen with SO_REUSEPORT get in beside it, and all of the connections.
    """
    with ExitStack() as stack:
        for setting, text in listens.items():
            try:
                await _claim(stack, text, keep=setting not in _EXCLUSIVE)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise RoleError(f"{setting}: {text} is in use: stop who listens there, or set another") from error
                raise RoleError(f"{setting}: nobody can listen on {text}: {error.strerror}") from error
        yield


def try_port(family: socket.AddressFamily, address: Any) -> int:
    """Return the port that *address* means when nobody has it, 0 being any; raise `OSError` when somebody does."""
    with _socket(family) as probe:
        # What connections of an earlier start left in TIME_WAIT is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        port: int = probe.getsockname()[1]
        return port


async def _claim(stack: ExitStack, text: str, *, keep: bool) -> None:
    listen = parse_listen(text)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    missing: OSError | None = None
    had = False
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        try:
            try_port(family, address)
        except OSError as error:
            # `localhost` means ::1 also where there is no IPv6.
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
            missing = error
            continue
        had = True
        if keep:
            kept = stack.enter_context(_socket(family))
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            kept.bind(address)
    if missing is not None and not had:
        raise missing


def _socket(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        # As asyncio listens: [::] leaves 0.0.0.0 to somebody else.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made
