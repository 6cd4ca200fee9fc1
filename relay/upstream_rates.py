"""Share rates between all relay processes through Redis; while it is away, each keeps to them by itself.

The script gives out turns by the rules of `relay.rate.Buckets`, by the server's clock. Redis decides nothing else
about mail: without it mail flows, and what all processes together send may be more than the rate.
"""

import asyncio
import time
from collections.abc import Sequence

import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from relay.rate import LONGEST_WAIT, Buckets, Limit, Turn

log = structlog.get_logger()

# Seconds that Redis has for an answer, and for which it is not asked again when it had none.
_ANSWER_SECONDS, _AWAY_SECONDS = 1.0, 5.0

# Questions of one process at a time: each takes a connection.
_AT_ONCE = 4

# In one hash slot, so that a message's limits are taken together.
_PREFIX = "{outrider:rate}:"

# All times in microseconds, written out in full: %.14g would round them. ARGV: patience, then the interval, the slack
# and the epoch of each key, then the longest wait. Returns whether the turn is taken, and the wait.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local patience, longest = tonumber(ARGV[1]), tonumber(ARGV[#ARGV])
local wait, ends, waits = 0, {}, {}
for i, key in ipairs(KEYS) do
  ends[i] = math.max(tonumber(redis.call('HGET', key, 'next') or 0), now)
  waits[i] = math.max(ends[i] - tonumber(ARGV[3 * i]) - now, 0)
  wait = math.max(wait, waits[i])
end
local taken = wait <= patience
for i, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[3 * i - 1])
  local field, value = 'next', ends[i] + interval
  if not taken then
    field, value = 'promised:' .. ARGV[3 * i + 1], 0
    if waits[i] > patience then
      local back = math.max(tonumber(redis.call('HGET', key, field) or 0), now + waits[i])
      wait = math.max(wait, back - now)
      if back - now <= longest then value = back + interval end
    end
  end
  if value > 0 then
    redis.call('HSET', key, field, string.format('%.0f', value))
    local left = redis.call('PTTL', key)
    redis.call('PEXPIRE', key, string.format('%.0f', math.max(left, (value - now) / 1000 + 60000)))
  end
end
return {taken and 1 or 0, string.format('%.0f', wait)}
"""


class SharedRates:
    """Gives out turns under limits: `relay.upstreams.Rates`."""

    def __init__(self, client: Redis | None) -> None:
        self._client = client
        self._script = None if client is None else client.register_script(_SCRIPT)
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._own = Buckets()
        self._ask_at = 0.0
        self._away = False
        if client is None:
            log.warning("rates_not_shared", reason="no Redis is named")

    async def take(self, limits: Sequence[Limit], *, patience: float) -> Turn:
        """Give a turn under all *limits* within *patience* seconds, or under none of them."""
        turn = None if self._script is None else await self._asked(self._script, limits, patience)
        return turn or self._own.take(limits, patience=patience, now=time.monotonic())

    async def close(self) -> None:
        """Close the connection to Redis."""
        if self._client is not None:
            await self._client.aclose()

    async def _asked(self, script: AsyncScript, limits: Sequence[Limit], patience: float) -> Turn | None:
        async with self._asking:
            # Whoever stood in line behind one that had no answer does not ask.
            if time.monotonic() < self._ask_at:
                return None
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    turn = await _shared(script, limits, patience)
            except (RedisError, OSError) as error:
                self._ask_at = time.monotonic() + _AWAY_SECONDS
                if not self._away:
                    log.warning("rates_not_shared", reason=type(error).__name__)
                self._away = True
                return None
        if self._away:
            log.info("rates_shared_again")
        self._away = False
        return turn


async def _shared(script: AsyncScript, limits: Sequence[Limit], patience: float) -> Turn:
    words = [_micros(patience)]
    for limit in limits:
        words += [_micros(limit.rate.interval), _micros(limit.rate.slack), limit.epoch]
    words.append(_micros(LONGEST_WAIT))
    taken, wait = await script(keys=[_PREFIX + limit.key for limit in limits], args=words)
    return Turn(taken=bool(taken), seconds=min(int(wait) / 1e6, LONGEST_WAIT))


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)
