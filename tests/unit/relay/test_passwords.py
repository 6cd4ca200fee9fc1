"""The users file says who may submit; a wrong line stops the start, and nothing in it is ever shown."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.passwords import SALT_BYTES, PasswordFileError, PasswordHash, hash_password, parse, verify, with_user

SALT = bytes(range(SALT_BYTES))
ANN = hash_password("correct horse", salt=SALT)


def cheap(password: str) -> PasswordHash:
    """Return a hash of the lowest cost, for tests of everything but the cost."""
    raw = __import__("hashlib").scrypt(password.encode(), salt=SALT, n=2, r=1, p=1, dklen=32)
    return PasswordHash(log_cost=1, block_size=1, parallel=1, salt=SALT, digest=raw)


def test_a_password_is_known_again() -> None:
    """What `passwd` writes, the relay reads and checks."""
    users = parse(with_user("", "ann", ANN))
    assert users == {"ann": ANN}
    assert verify(users, "ann", b"correct horse")
    assert not verify(users, "ann", b"correct horse ")
    assert not verify(users, "ann", b"")


def test_the_file_has_one_spelling_of_a_hash() -> None:
    """The format is public: it can be made and checked with any scrypt."""
    assert str(ANN).startswith("$scrypt$ln=15,r=8,p=1$" + base64.b64encode(SALT).decode().rstrip("=") + "$")
    assert str(parse(f"ann:{ANN}\n")["ann"]) == str(ANN)


def test_an_unknown_user_is_wrong_and_takes_as_long() -> None:
    """Nobody can find out who exists: not from the answer, and not from its time."""
    users = {"ann": ANN}
    began = time.process_time()
    assert not verify(users, "ann", b"wrong")
    known = time.process_time() - began
    began = time.process_time()
    assert not verify(users, "bob", b"wrong")
    assert not verify({}, "bob", b"wrong")
    unknown = (time.process_time() - began) / 2
    assert known / 4 < unknown < known * 4


def test_an_unknown_user_does_not_get_in_with_somebody_elses_password() -> None:
    """The hash that stands in for the missing one opens nothing."""
    assert not verify({"ann": cheap("secret")}, "bob", b"secret")


def test_a_line_is_replaced_in_place_and_the_rest_stays() -> None:
    """`passwd FILE USER` for a user who stands in the file changes that line alone."""
    old, new = cheap("old"), cheap("new")
    text = f"# who may submit\n\nann:{old}\nbob:{old}\n"
    changed = with_user(text, "ann", new)
    assert changed == f"# who may submit\n\nann:{new}\nbob:{old}\n"
    assert with_user(changed, "carl", new) == changed + f"carl:{new}\n"


@pytest.mark.parametrize(
    "line",
    [
        "ann",
        "ann:",
        ":" + str(ANN),
        "ann:secret",
        " ann:" + str(ANN),
        "ann\x07:" + str(ANN),
        "ann:$scrypt$ln=40,r=8,p=1$" + str(ANN).split("$", 3)[3],
        "ann:$scrypt$ln=15,r=99,p=1$" + str(ANN).split("$", 3)[3],
        "ann:$scrypt$ln=0,r=8,p=1$" + str(ANN).split("$", 3)[3],
        "ann:$scrypt$ln=15,r=8,p=1$AAAA$" + str(ANN).split("$")[4],
        "ann:$scrypt$ln=15,r=8,p=1$" + str(ANN).split("$")[3] + "$AAAA",
        "ann:$scrypt$ln=15,r=8,p=1$A$A",
        f"ann:{ANN}\nann:{ANN}",
    ],
)
def test_a_line_that_is_none_stops_the_start(line: str) -> None:
    """The message names the line and shows nothing of it."""
    with pytest.raises(PasswordFileError, match=r"^line \d+: ") as caught:
        parse(f"# a comment\n{line}\n")
    assert "scrypt" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("user", ["", "a:b", "a\nb", "#ann", " ann", "a" * 256])
def test_a_user_name_that_would_break_the_file_is_refused(user: str) -> None:
    """A name is one field of one line."""
    with pytest.raises(PasswordFileError, match="user name"):
        with_user("", user, ANN)


def test_a_hash_does_not_show_itself() -> None:
    """A traceback that prints a settings object prints no hash."""
    assert "digest" not in repr(ANN)
    assert str(ANN) not in repr({"ann": ANN})


@given(st.text(max_size=200))
def test_any_text_is_users_or_a_password_file_error(text: str) -> None:
    """Invariant: nothing but `PasswordFileError` escapes, whatever stands in the file."""
    try:
        users = parse(text)
    except PasswordFileError:
        return
    assert users == {}
