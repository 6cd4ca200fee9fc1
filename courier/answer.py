"""Read what AMS answered to a call, and say what it is worth.

Only a JSON-RPC `result` to our own call, with a 2xx status, is a yes. An `error` is a no that AMS meant; everything
else is no answer. What is kept of an answer holds neither an address nor the apiKey.
"""

import re

import msgspec

#: Every reason of `Unanswered` begins with this in the ledger, so that no answer can be told from a refusal.
NO_ANSWER = "no answer: "

_TEXT_LIMIT = 200
_READ_LIMIT = 2000
# PostgreSQL's largest number, and one.
_BIGINT = 2**63

# An address as it stands in prose, JSON or a URL. The character classes exclude each other, so this is linear in
# practice, and it reads 2,000 characters at most.
_ADDRESS = re.compile(r"[^\s<>\"'(),;:=@%]+(?:@|%40)[^\s<>\"'(),;:=@]+")
_NUMBER = re.compile(r"\d+")


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """AMS took the call: a valid result."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """AMS read the call and said no: a JSON-RPC error."""

    code: int
    #: As AMS wrote it; `worded` makes it fit to keep.
    message: str


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing that can be believed came back; whether AMS took the call is unknown."""

    reason: str


Answer = Accepted | Refused | Unanswered


def read_answer(status: int, body: bytes, call_id: str) -> Answer:
    """Return what the HTTP answer to the call *call_id* means."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    if not isinstance(answer, dict) or not {"result", "error"} & answer.keys():
        return Unanswered(reason="not JSON-RPC" if 200 <= status <= 299 else f"HTTP {status}")
    answered_id = answer.get("id")
    error = answer.get("error")
    # A call that AMS cannot even read is refused with the id null.
    if _id_text(answered_id) != call_id and (error is None or answered_id is not None):
        return Unanswered(reason="the answer is to another call")
    if error is not None:
        return _refusal(error)
    if not 200 <= status <= 299:
        return Unanswered(reason=f"HTTP {status}")
    if answer.get("result") is None and "error" in answer:
        return Unanswered(reason="neither a result nor an error")
    return Accepted()


def worded(answer: Refused | Unanswered, *, secret: str) -> str:
    """Return *answer* as it may be kept and shown: no address, no *secret*, 200 characters of the message at most."""
    match answer:
        case Unanswered():
            return NO_ANSWER + answer.reason
        case Refused():
            text = answer.message.replace(secret, "***") if secret else answer.message
            text = nameless(text)
            printable = "".join(character if character.isprintable() else " " for character in text)
            return f"{answer.code}: {printable[:_TEXT_LIMIT]}"


def nameless(text: str) -> str:
    """Return the first 2,000 characters of *text* with a mark for each address."""
    return _ADDRESS.sub("<address>", text[:_READ_LIMIT])


def alike(one: str | None, other: str | None) -> bool:
    """Whether two kept answers say the same; numbers in them may differ, a position for example."""
    if one is None or other is None:
        return False
    return _NUMBER.sub("#", one.partition(":")[2]) == _NUMBER.sub("#", other.partition(":")[2]) and (
        one.partition(":")[0] == other.partition(":")[0]
    )


def _id_text(value: object) -> str:
    # AMS is sent "1" and answers 1; some servers make it 1.0.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _refusal(error: object) -> Refused:
    if not isinstance(error, dict):
        return Refused(code=0, message=str(error))
    code = error.get("code")
    message = error.get("message")
    return Refused(code=code if isinstance(code, int) else 0, message=message if isinstance(message, str) else "")


def read_progress(body: bytes) -> dict[int, tuple[int, int]]:
    """Return how many addresses AMS shows as opened and as clicked, by mailing; what it does not show is left out."""
    try:
        result = msgspec.json.decode(body).get("result")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        return {}
    shown: dict[int, tuple[int, int]] = {}
    for mailing in result if isinstance(result, list) else []:
        match mailing:
            case {"id": int(number), "progressInfo": {"opened": int(opened), "clicks": int(clicks)}} if (
                min(number, opened, clicks) >= 0 and max(number, opened, clicks) < _BIGINT
            ):
                shown[number] = opened, clicks
            case _:
                continue
    return shown
