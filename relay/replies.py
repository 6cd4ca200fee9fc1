"""Every SMTP reply the relay can give, with the rule it comes from.

A reply is a value made of fixed text: nothing a client sent and no exception's words may enter one, and an error
of ours is always a 4yz, never a 5yz. What an upstream said is the exception: `passed_through` cleans it.
"""

import re
from typing import Self

import msgspec

# RFC 5321 4.5.3.1.5: a reply line has at most 512 octets, code and CRLF included.
LINE_OCTETS = 512
# More lines than any server sends; an upstream cannot make us hold or repeat a book.
MAX_LINES = 64

_ENHANCED = re.compile(r"([245])\.\d{1,3}\.\d{1,3}")
_UPSTREAM_LINE = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+(.*))?", re.DOTALL)


class Reply(msgspec.Struct, frozen=True):
    """One SMTP reply: a code, an enhanced status code (empty where RFC 2034 has none) and its text.

    The text may have several lines, separated by a line feed. Raises `ValueError` for a code outside 200 to 599 and
    for an enhanced code of another class than the code's.
    """

    code: int
    enhanced: str
    text: str

    def __post_init__(self) -> None:
        """Refuse what no client could read."""
        if not 200 <= self.code <= 599:
            raise ValueError("a reply code has three digits and begins with 2, 3, 4 or 5")
        if self.enhanced:
            match = _ENHANCED.fullmatch(self.enhanced)
            if match is None or match[1] != str(self.code)[0]:
                raise ValueError("an enhanced status code is of its reply code's class (RFC 3463 2)")

    def __str__(self) -> str:
        """Return the reply as one line without its line end, for a log or a table."""
        return " ".join(part for part in (str(self.code), self.enhanced, *self.text.split("\n")) if part)

    def __bytes__(self) -> bytes:
        """Return the reply as it goes on the wire: CRLF after every line, ASCII without controls, lines cut to size."""
        enhanced = f"{self.enhanced} " if self.enhanced else ""
        if len(self.text) < 400 and self.text.isascii() and self.text.isprintable():
            return f"{self.code} {enhanced}{self.text}\r\n".encode("ascii")
        room = LINE_OCTETS - len(f"{self.code} {enhanced}\r\n")
        lines = [
            clean[start : start + room]
            for clean in map(_clean, self.text.split("\n"))
            for start in range(0, max(len(clean), 1), room)
        ][:MAX_LINES]
        marks = ["-"] * (len(lines) - 1) + [" "]
        return "".join(
            f"{self.code}{mark}{enhanced}{line}\r\n" for mark, line in zip(marks, lines, strict=True)
        ).encode("ascii")

    @property
    def outcome(self) -> str:
        """What the reply means for a submission: `accepted`, `deferred` or `refused`."""
        return {2: "accepted", 4: "deferred"}.get(self.code // 100, "refused")

    @classmethod
    def passed_through(cls, code: int, text: str) -> Self:
        """Return an upstream's 4yz or 5yz verdict with its code and text, its enhanced code taken from the text.

        Each line of a multi-line reply repeats the enhanced code (RFC 2034 4); one of another class stays text.
        """
        enhanced = ""
        lines = []
        for line in text.replace("\r\n", "\n").split("\n"):
            match = _UPSTREAM_LINE.fullmatch(line)
            if match and match[1][0] == str(code)[0] and enhanced in {"", match[1]}:
                enhanced = match[1]
                lines.append(match[2] or "")
            else:
                lines.append(line)
        return cls(code, enhanced, "\n".join(lines))


def _clean(line: str) -> str:
    # RFC 6531 3.7.4.2 lets a reply be UTF-8 only to a client that said SMTPUTF8; ASCII is right for all of them.
    return "".join(c if " " <= c <= "~" else " " if c < "!" else "?" for c in line)


def queued(key: str) -> Reply:
    """Return the 250 for an accepted submission; the last word is the message key or the submission's key."""
    return Reply(250, "2.0.0", f"Ok: queued as {key}")


# Positive replies. RFC 5321 4.2.2 gives the codes, RFC 2034 4 says which carry an enhanced code.
OK = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Ok")
BYE = Reply(221, "2.0.0", "Bye")
HELP = Reply(214, "2.0.0", "This is a mail relay: see RFC 5321")
CANNOT_VERIFY = Reply(252, "2.1.5", "Cannot verify, but will take mail for it")  # RFC 5321 3.5.3
START_DATA = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")  # RFC 3207 4
AUTHENTICATED = Reply(235, "2.7.0", "Authentication successful")  # RFC 4954 4

# The command line. RFC 5321 4.2.4 and 4.3.2; RFC 3463 3.6 for 5.5.z.
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BAD_LINE = Reply(500, "5.5.2", "A command is one line of text without control characters, ended by CRLF")
UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognized")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
BAD_ARGUMENTS = Reply(501, "5.5.4", "Syntax error in parameters or arguments")
HELLO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "Need MAIL command")
RECIPIENT_FIRST = Reply(503, "5.5.1", "Need RCPT command")
NESTED_MAIL = Reply(503, "5.5.1", "Nested MAIL command")
NO_VALID_RECIPIENT = Reply(554, "5.5.1", "No valid recipients")  # RFC 2920 3.1

# The envelope. RFC 3463 3.2 for X.1.z; RFC 1870 6 for SIZE; RFC 6531 3.5 for addresses outside ASCII.
BAD_SENDER = Reply(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT = Reply(501, "5.1.3", "Bad recipient address syntax")
SENDER_NEEDS_UTF8 = Reply(553, "5.6.7", "A sender address outside ASCII needs SMTPUTF8")
RECIPIENT_NEEDS_UTF8 = Reply(553, "5.6.7", "A recipient address outside ASCII needs SMTPUTF8")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognized or not implemented")  # RFC 5321 4.1.1.11
TOO_BIG = Reply(552, "5.3.4", "Message size exceeds fixed limit")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")  # RFC 5321 4.5.3.1.10
AUTHENTICATION_REQUIRED = Reply(530, "5.7.0", "Authentication required")  # RFC 4954 6
UNWANTED = Reply(550, "5.7.1", "This recipient wants no more mail")
RELAYING_DENIED = Reply(550, "5.7.1", "Relaying denied")

# The content. Only CRLF.CRLF ends it, and what another server might take for an end never passes.
BAD_LINE_ENDS = Reply(550, "5.6.0", "Message holds a bare CR, a NUL, or a bare LF beside a lone dot")
MAIL_LOOP = Reply(554, "5.4.6", "Too many hops: mail is looping")  # RFC 5321 6.3

# TLS and AUTH. RFC 3207 and RFC 4954.
TLS_UNAVAILABLE = Reply(502, "5.5.1", "STARTTLS is not offered")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is already active")
ENCRYPTION_REQUIRED = Reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
AUTHENTICATED_ALREADY = Reply(503, "5.5.1", "Already authenticated")
AUTH_IN_TRANSACTION = Reply(503, "5.5.1", "AUTH is not permitted during a mail transaction")
UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Unrecognized authentication mechanism")
BAD_CREDENTIALS = Reply(535, "5.7.8", "Authentication credentials invalid")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
BAD_BASE64 = Reply(501, "5.5.2", "Cannot decode the authentication response")

# What ends a session: after each of these the connection is closed. RFC 5321 3.8 for 421.
NOT_HTTP = Reply(500, "5.5.1", "This is a mail relay")
TIMED_OUT = Reply(421, "4.4.2", "Timed out waiting for the client")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service is shutting down, try again")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MUCH_JUNK = Reply(421, "4.7.0", "Too many commands without a message")
TOO_MANY_FAILURES = Reply(421, "4.7.0", "Too many failed authentications")

# What the upstream's trouble or ours means when nothing is stored: come again, under the same Message-ID.
UPSTREAM_TROUBLE = Reply(451, "4.4.1", "The upstream cannot take mail now, try again later")
NO_ROOM = Reply(452, "4.3.1", "Insufficient system storage, try again later")

# An error of ours is temporary, and its words stay in the log.
LOCAL_ERROR = Reply(451, "4.3.0", "Local error in processing, try again later")
