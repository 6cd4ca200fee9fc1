"""Only a valid result to our own call is a yes."""

import pytest

from courier.answer import Accepted, Refused, Unanswered, alike, read_answer, read_progress, worded


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","result":"OK","id":17}',
        b'{"jsonrpc":"2.0","result":"OK","id":"17"}',
        b'{"jsonrpc":"2.0","result":true,"id":17.0}',
        '{"result":"ОК","id":17}'.encode(),  # noqa: RUF001 - AMS's manual writes it in Cyrillic
        b'{"result":{"newResourceID":21},"id":17}',
        b'{"result":0,"id":17}',
        b'{"result":null,"id":17}',
        b'{"result":"OK","error":null,"id":17}',
    ],
)
def test_any_result_with_our_id_is_a_yes(body: bytes) -> None:
    """Results differ from method to method, and the id's type changes on the way."""
    assert read_answer(200, body, "17") == Accepted()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Log in</html>"),
        (200, b""),
        (200, b"null"),
        (200, b"[]"),
        (200, b'"OK"'),
        (200, b'{"jsonrpc":"2.0","id":17}'),
        (200, b'{"jsonrpc":"2.0","result":"OK"}'),
        (200, b'{"jsonrpc":"2.0","result":"OK","id":18}'),
        (200, b'{"jsonrpc":"2.0","result":"OK","id":null}'),
        (200, b'{"jsonrpc":"2.0","result":"OK","id":[17]}'),
        (200, b'{"jsonrpc":"2.0","error":{"code":1,"message":"x"},"id":18}'),
        (200, b'{"jsonrpc":"2.0","result":"OK","id":1'),
        (200, b'{"result":null,"error":null,"id":17}'),
        (200, b"\xff\xfe"),
        (302, b""),
        (500, b'{"result":"OK","id":17}'),
        (502, b"Bad Gateway"),
        (404, b'{"result":"OK","id":17}'),
    ],
)
def test_everything_else_is_no_answer(status: int, body: bytes) -> None:
    """HTML with 200, another id, a redirect, half an answer: whether AMS took the call is unknown."""
    assert isinstance(read_answer(status, body, "17"), Unanswered)


def test_an_error_is_a_refusal_whatever_the_status() -> None:
    """The body comes before the status, an error before a result, and null is the id of an unreadable call."""
    for status in (200, 400, 500):
        body = b'{"result":"OK","error":{"code":-32603,"message":"no"},"id":17}'
        assert read_answer(status, body, "17") == Refused(code=-32603, message="no")
    assert read_answer(200, b'{"error":{"code":-32700,"message":"p"},"id":null}', "17") == Refused(
        code=-32700, message="p"
    )
    assert read_answer(200, b'{"error":"no","id":17}', "17") == Refused(code=0, message="no")
    assert read_answer(200, b'{"error":{"code":"x","message":5},"id":17}', "17") == Refused(code=0, message="")


def test_what_is_kept_names_nobody() -> None:
    """Addresses are masked in prose, in JSON and in URLs, and the apiKey is taken out."""
    message = (
        'Invalid email ann@example.net, <bob@example.net>, {"email":"cid@example.net"} at '
        "https://x.example/?e=dan%40example.net with key K-1"
    )
    kept = worded(Refused(code=-32603, message=message), secret="K-1")
    assert "example.net" not in kept
    assert "K-1" not in kept
    for name in ("ann", "bob", "cid", "dan"):
        assert name not in kept
    assert kept.startswith("-32603: Invalid email <address>")


def test_what_is_kept_is_short_and_printable() -> None:
    """200 characters of the message, no control characters, and hostile lengths cost no time."""
    assert len(worded(Refused(code=1, message="x" * 10**6), secret="")) == len("1: ") + 200
    assert worded(Refused(code=1, message="a\r\nb\0"), secret="") == "1: a  b "
    assert worded(Unanswered(reason="timeout"), secret="k") == "no answer: timeout"


def test_alike_looks_past_numbers() -> None:
    """The same words with another position are the same refusal; another code or another text is not."""
    assert alike("-32603: Invalid item 7", "-32603: Invalid item 12")
    assert not alike("-32603: Invalid item", "-32602: Invalid item")
    assert not alike("-32603: Invalid item", "-32603: No such mailing")
    assert not alike(None, "-32603: Invalid item")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"result":[{"id":42,"progressInfo":{"total":9,"opened":3,"clicks":1}}],"id":1}', {42: (3, 1)}),
        (
            b'{"result":[{"id":7},{"id":8,"progressInfo":null},{"id":11,"progressInfo":{"opened":0,"clicks":0}},null,5]}',
            {11: (0, 0)},
        ),
        (b'{"result":[{"id":1,"progressInfo":{"opened":9223372036854775808,"clicks":1}}]}', {}),
        (b'{"result":[{"id":9,"progressInfo":{"opened":"3","clicks":1}}]}', {}),
        (b'{"result":[{"id":10,"progressInfo":{"opened":-1,"clicks":1}}]}', {}),
        (b'{"result":"OK"}', {}),
        (b'{"error":{}}', {}),
        (b"[]", {}),
        (b"<html>", {}),
        (b"\xff", {}),
    ],
)
def test_progress_is_read_where_it_is(body: bytes, shown: dict[int, tuple[int, int]]) -> None:
    """A mailing without it, or of another shape, costs its neighbours nothing."""
    assert read_progress(body) == shown
