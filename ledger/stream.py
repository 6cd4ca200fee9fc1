"""Reach the Redis stream that hits wait in between the tracker, which appends, and the courier, which records them.

Both sides make their client here, so that the protocol version, the timeouts and the names cannot drift apart.
"""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

#: The stream. Every entry has the one field `FIELD`, which holds `ledger.events.encode_hit(hit)`.
STREAM = "outrider:hits"
#: The consumer group of all couriers.
GROUP = "courier"
FIELD = "h"

#: Within this Redis has answered, or is away. A blocking read must ask for less, or an idle stream looks like that.
ANSWER_SECONDS = 5.0

_CONNECT_SECONDS = 2.0


def connect(redis_url: str) -> Redis:
    """Return a client that connects when it is first used; the caller closes it with `aclose()`.

    It never retries by itself: whoever calls knows whether to try again or to fall back. Nor has it a deadline: with
    one, redis-py sends through `wait_for`, which before Python 3.12 may swallow a cancellation. Put an
    `asyncio.timeout` around what you ask. Replies are bytes in the list shapes of RESP2, which every Redis and Valkey
    since 7.0 speaks alike.
    """
    return Redis.from_url(
        redis_url,
        protocol=2,
        decode_responses=False,
        socket_timeout=None,
        socket_connect_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        client_name="outrider",
    )
