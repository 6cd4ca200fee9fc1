"""Turn what was refused after a 250 into a notification to the sender, as a submission of our own."""

from collections.abc import Sequence
from datetime import datetime

from relay import dsn
from relay.intake import Submission
from relay.stamp import Draft
from relay.upstream import Verdict

#: The source of our own mail: no mailer's campaigns or repeats are mixed up with it.
SOURCE = "dsn"


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
        failures=[dsn.Failure(recipient=who, code=said.code, text=said.text) for who, said in refused],
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
