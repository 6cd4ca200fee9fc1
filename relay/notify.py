"""Tell a sender what was refused after a 250: a notification, sent as a submission of our own.

It is told in the background, again and again until it is accepted: the mailer of the message does not wait for it.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter

from relay import dsn
from relay.intake import Acceptor, Submission, submit
from relay.stamp import Draft
from relay.upstream import Verdict

log = structlog.get_logger()

NOTICES = Counter("outrider_notices_total", "Notifications of what was refused after a 250, by outcome.", ["outcome"])

#: The source of our own mail: no mailer's campaigns or repeats are mixed up with it.
SOURCE = "dsn"

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


def is_notice(submission: Submission) -> bool:
    """Tell whether a submission is one of these notifications."""
    # A mailer may log in by that name, but always comes from somewhere.
    return submission.source == SOURCE and not (submission.sender or submission.client)


class Notifier:
    """Sends notifications through *acceptor*, which may be set later; none of them where it is none."""

    def __init__(self, *, upstream: str) -> None:
        self.acceptor: Acceptor | None = None
        self._upstream = upstream
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, draft: Draft, refused: Sequence[tuple[str, Verdict]]) -> None:
        """Begin to tell the sender of *draft* which recipients will not get it."""
        notice = notice_of(draft, refused, upstream=self._upstream, now=datetime.now(UTC))
        if notice is None or self.acceptor is None:
            return
        task = asyncio.create_task(self._send(self.acceptor, notice))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def close(self, *, patience: float) -> None:
        """Wait up to *patience* seconds for what is being told."""
        if self._telling:
            _, untold = await asyncio.wait(self._telling, timeout=patience)
            for task in untold:
                task.cancel()
            if untold:
                NOTICES.labels("lost").inc(len(untold))
                log.error("notices_lost", count=len(untold))

    async def _send(self, acceptor: Acceptor, notice: Submission) -> None:
        pause = _FIRST_PAUSE
        while (reply := await submit(acceptor, notice)).code // 100 == 4:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        NOTICES.labels(reply.outcome).inc()


def notice_of(
    draft: Draft, refused: Sequence[tuple[str, Verdict]], *, upstream: str, now: datetime
) -> Submission | None:
    """Return the notification about *refused* recipients; none for the null sender, who must not be answered."""
    sender = draft.submission.sender
    if not sender:
        return None
    hostname = draft.profile.hostname
    content = dsn.notification(
        sender=sender,
        failures=[
            dsn.Failure(recipient=who, code=said.code, text=said.text, upstream=said.upstream) for who, said in refused
        ],
        original=draft.submission.content,
        hostname=hostname,
        upstream=upstream,
        now=now,
    )
    return Submission(
        sender="",
        recipients=(sender,),
        content=content,
        source=SOURCE,
        client="",
        helo=hostname,
        protocol="ESMTP",
        smtputf8=not sender.isascii(),
        eight_bit=False,
        received_at=now,
    )
