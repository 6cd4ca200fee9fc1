"""Tell a sender what could not be delivered: a delivery status notification (RFC 3464).

Pure: it builds the content; the pipeline sends it like any other mail, from the null sender, so that no notification
ever answers a notification.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage, Message
from email.policy import SMTP, compat32
from email.utils import format_datetime

import msgspec

# The original's header block is returned, cut; its body is the sender's already.
_HEADER_OCTETS = 20_000

# Fields as they are: the modern policy would read meaning into them, and fold.
_PLAIN = compat32.clone(linesep="\r\n", max_line_length=0)

_ENHANCED = re.compile(r"\A(?:\d{3}[ -])?([245]\.\d{1,3}\.\d{1,3})\b")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient that will not get the message, and why."""

    recipient: str
    code: int
    text: str
    #: Who said so; empty: the notification's upstream.
    upstream: str = ""


def notification(
    *, sender: str, failures: Sequence[Failure], original: bytes, hostname: str, upstream: str, now: datetime
) -> bytes:
    """Return the content of a notification to *sender* about *failures* of the message *original*."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"Mail Delivery System <MAILER-DAEMON@{hostname}>"
    mail["To"] = f"<{sender}>" if sender.isascii() else "undisclosed-recipients:;"
    mail["Subject"] = "Undelivered Mail Returned to Sender"
    mail["Date"] = format_datetime(now)
    mail["Auto-Submitted"] = "auto-replied"
    mail["MIME-Version"] = "1.0"
    mail["Content-Type"] = "multipart/report; report-type=delivery-status"
    text = EmailMessage(policy=SMTP)
    text.set_content(_words(failures, hostname), charset="utf-8")
    headers = EmailMessage(policy=SMTP)
    headers.set_content(
        original[: original.find(b"\r\n\r\n") + 2][:_HEADER_OCTETS].decode("ascii", "replace"),
        subtype="rfc822-headers",
        charset="utf-8",
    )
    mail.set_payload([text, _status(failures, hostname, upstream), headers])
    return mail.as_bytes()


def _words(failures: Sequence[Failure], hostname: str) -> str:
    lines = [
        f"This is the mail relay {hostname}.",
        "",
        "Your message could not be delivered to the recipients below. It will not be tried again.",
        "",
    ]
    lines += [f"<{failure.recipient}>: {failure.code} {_one_line(failure.text)}" for failure in failures]
    return "\n".join(lines) + "\n"


def _status(failures: Sequence[Failure], hostname: str, upstream: str) -> Message:
    # RFC 3464 2.1: the body is groups of fields, the message's own first.
    groups: list[Message | str] = [_group({"Reporting-MTA": f"dns; {hostname}"})]
    for failure in failures:
        kind = "rfc822" if failure.recipient.isascii() else "utf-8"
        match = _ENHANCED.match(failure.text)
        remote = failure.upstream or upstream
        groups.append(
            _group(
                {
                    "Final-Recipient": f"{kind}; {failure.recipient}",
                    "Action": "failed",
                    "Status": match[1] if match is not None and match[1][0] == "5" else "5.0.0",
                    "Remote-MTA": f"dns; {remote.rpartition(':')[0] or remote}",
                    "Diagnostic-Code": f"smtp; {failure.code} {_one_line(failure.text)}",
                }
            )
        )
    part = Message(policy=_PLAIN)
    part["Content-Type"] = "message/delivery-status"
    part.set_payload(groups)
    return part


def _group(fields: Mapping[str, str]) -> Message:
    group = Message(policy=_PLAIN)
    for name, value in fields.items():
        group[name] = value.encode("ascii", "backslashreplace").decode("ascii")
    return group


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
