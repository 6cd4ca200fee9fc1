"""Group commit without a timer: what arrives while a commit is in flight goes into the next one.

The caller awaits its group, so nothing is answered before it is durable. A member that cannot be stored never fails
its neighbours: a group that fails on data is halved until the bad member stands alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Member = TypeVar("Member")
Result = TypeVar("Result")


class GroupCommit(Generic[Member, Result]):
    """Write members in groups; one write is in flight at a time.

    *write* stores a group and returns one result per member, in order. *divisible* are the exceptions that a single
    member's data may have caused; every other exception fails the whole group. *limit* bounds a group's members.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Member]], Awaitable[Sequence[Result]]],
        *,
        divisible: tuple[type[Exception], ...] = (),
        limit: int = 500,
    ) -> None:
        self._write = write
        self._divisible = divisible
        self._limit = limit
        self._waiting: list[tuple[Member, asyncio.Future[Result]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def add(self, member: Member) -> Result:
        """Return *member*'s result once its group is stored; raise what storing it raised."""
        return await self.enter(member)

    def enter(self, member: Member) -> "asyncio.Future[Result]":
        """Put *member* into the next group; return what `add` returns. Who cancels that only stops to wait for it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((member, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._drain())
        return future

    async def close(self) -> None:
        """Wait until every group is decided."""
        while (writer := self._writer) is not None:
            await asyncio.wait([writer])

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._store(group)
        finally:
            self._writer = None

    async def _store(self, group: list[tuple[Member, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._write([member for member, _ in group])
        except asyncio.CancelledError:
            _fail(group, asyncio.CancelledError())
            raise
        except self._divisible as error:
            if len(group) == 1:
                _fail(group, error)
                return
            middle = len(group) // 2
            await self._store(group[:middle])
            await self._store(group[middle:])
        # The writer task must outlive any failure: its members are told, the next group is tried.
        except Exception as error:  # noqa: BLE001
            _fail(group, error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(group: Sequence[tuple[object, asyncio.Future[Result]]], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
