"""Turn one session and one envelope into a `Submission`, and whatever becomes of it into a reply.

Every exception becomes `451 4.3.0`: a permanent answer would make a mailer bounce for ever because of our own
trouble, and an exception's words may hold an address or a password.
"""

from datetime import datetime
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter

from relay import replies
from relay.replies import Reply

log = structlog.get_logger()

SUBMISSIONS = Counter(
    "outrider_relay_submissions_total",
    "Messages that ended with a final dot, by what the mailer was told: accepted, deferred, refused or error.",
    ["outcome"],
)
SUBMITTED_BYTES = Counter("outrider_relay_submitted_bytes_total", "Octets of message content handed to the pipeline.")

#: The source of a submission that nobody authenticated.
DEFAULT_SOURCE = "default"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction as the mailer gave it to us, complete: the final dot has been read."""

    #: Envelope sender exactly as given; "" for the null sender.
    sender: str
    #: Envelope recipients exactly as given, in order; case kept, exact duplicates once.
    recipients: tuple[str, ...]
    #: The message with CRLF line ends only, dot-unstuffed; never a bare CR, a bare LF or a NUL.
    content: bytes
    #: The AUTH user, else `default`.
    source: str
    #: The peer's host as text; "" when unknown.
    client: str
    #: What the client called itself, reduced to characters that are safe in a Received line.
    helo: str
    #: The "with" word of the Received line: `ESMTP`, `ESMTPS`, `ESMTPA`, `ESMTPSA`, `SMTP`, `UTF8SMTP…`.
    protocol: str
    #: The client declared SMTPUTF8.
    smtputf8: bool
    #: The client declared BODY=8BITMIME.
    eight_bit: bool
    #: When the final dot was read; aware, UTC.
    received_at: datetime

    def __repr__(self) -> str:
        """Show sizes alone: an address in a traceback is an address in a log."""
        return f"Submission({len(self.recipients)} recipients, {len(self.content)} octets)"


class Acceptor(Protocol):
    """Who decides about a submission: the pipeline."""

    async def accept(self, submission: Submission) -> Reply:
        """Decide and record every recipient, then return the reply to the final dot."""


def protocol_word(*, extended: bool, utf8: bool, tls: bool, authenticated: bool) -> str:
    """Return the "with" word of a Received line (RFC 3848, RFC 6531 4.3)."""
    if not extended:
        return "SMTP"
    return ("UTF8SMTP" if utf8 else "ESMTP") + ("S" if tls else "") + ("A" if authenticated else "")


async def submit(acceptor: Acceptor, submission: Submission) -> Reply:
    """Hand *submission* to the pipeline and return the reply for the mailer; raise nothing but a cancellation."""
    SUBMITTED_BYTES.inc(len(submission.content))
    try:
        reply = await acceptor.accept(submission)
    except Exception as error:  # noqa: BLE001 - the promise of this file
        log.error("submission_failed", error=type(error).__name__)  # noqa: TRY400 - its text stays out of the log
        SUBMISSIONS.labels("error").inc()
        return replies.LOCAL_ERROR
    SUBMISSIONS.labels(reply.outcome).inc()
    return reply
