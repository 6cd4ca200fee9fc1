"""One connection to Redis that takes many commands, and then reads as many replies.

A client library asks one by one, and takes longer for each than Redis does.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

_READ_OCTETS = 65536


class Pipe:
    """One connection that takes many commands and then reads as many replies."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Return one reply, or the `ResponseError` that it was, for each command.

        An exception or a cancellation in between leaves no connection behind, so no reply can answer a later command.
        """
        connection = self._connection
        if not connection.is_connected:
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py leaves it so
        await connection.send_packed_command([b"".join(commands)], check_health=False)
        try:
            return await _replies(connection, len(commands))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.disconnect()


async def _replies(connection: AbstractConnection, count: int) -> list[Any]:
    """Return the next *count* replies.

    Read from the connection's own stream: the library takes as long for each of them as Redis for its command.
    """
    stream = connection._reader  # noqa: SLF001 - it has no other way to read many at once
    reader = hiredis.Reader(replyError=ResponseError, protocolError=RedisError)
    replies: list[Any] = []
    while len(replies) < count:
        octets = b"" if stream is None else await stream.read(_READ_OCTETS)
        if not octets:
            raise RedisError("Redis ended the connection")
        reader.feed(octets)
        # False is no reply of RESP2: it says that there is none yet.
        while (reply := reader.gets()) is not False:
            replies.append(reply)
    return replies


def packed(*words: bytes) -> bytes:
    """Return a command as Redis reads it."""
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)])
