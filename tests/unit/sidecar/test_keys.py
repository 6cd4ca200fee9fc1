"""The secrets that Outrider makes for itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.keys import KeyFileError, console_token, kept_secret, load_keys
from sidecar.settings import ConsoleSettings, KeysSettings, Settings

ROOT = Path(__file__).parents[3]


def test_keys_are_made_once_and_kept(tmp_path: Path) -> None:
    """The second start finds what the first has made."""
    settings = Settings(data_dir=tmp_path / "new" / "place")
    first = load_keys(settings)
    assert load_keys(settings) == first
    assert len(first.signing) == 1
    assert len(first.identity) >= 32
    # Sealing is a setting: nobody's addresses are tied to a key that he does not know of.
    assert first.addresses == ()
    assert first.identity != first.signing[0]
    assert console_token(settings) == console_token(settings)


def test_another_place_has_other_keys(tmp_path: Path) -> None:
    """Nothing of a key follows from the machine."""
    assert load_keys(Settings(data_dir=tmp_path / "a")) != load_keys(Settings(data_dir=tmp_path / "b"))


def test_they_are_their_owners_alone(tmp_path: Path) -> None:
    """Every file with a secret is 0600 from its first byte."""
    load_keys(Settings(data_dir=tmp_path))
    console_token(Settings(data_dir=tmp_path))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"signing.key": "0o600", "identity.key": "0o600", "console.token": "0o600"}


def test_given_keys_stand_before_kept_ones_and_nothing_is_written(tmp_path: Path) -> None:
    """A given key is used as its UTF-8 bytes."""
    settings = Settings(
        data_dir=tmp_path / "none",
        keys=KeysSettings(signing=("newest", "\u00e4lter"), identity="for ever", addresses=("new", "old")),
        console=ConsoleSettings(token="mine"),
    )
    keys = load_keys(settings)
    assert keys.signing == (b"newest", "\u00e4lter".encode())
    assert keys.identity == b"for ever"
    assert keys.addresses == (b"new", b"old")
    assert console_token(settings) == "mine"
    assert not (tmp_path / "none").exists()


def test_what_is_kept_can_be_given(tmp_path: Path) -> None:
    """A move to more machines is a copy of the files' contents into the settings."""
    kept = load_keys(Settings(data_dir=tmp_path))
    copied = KeysSettings(
        signing=((tmp_path / "signing.key").read_text().strip(),),
        identity=(tmp_path / "identity.key").read_text().strip(),
    )
    assert load_keys(Settings(data_dir=tmp_path / "else", keys=copied)) == kept


def test_one_of_many_processes_makes_it(tmp_path: Path) -> None:
    """However many processes start at once for the first time, all hold the same key."""
    code = f"import pathlib, sidecar.keys as keys; print(keys.kept_secret(pathlib.Path({str(tmp_path)!r}, 'k')))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    secrets = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(secrets) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A key that somebody may have copied is not used in silence."""
    path = tmp_path / "signing.key"
    path.write_text("secret")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="can be read by others") as refused:
        kept_secret(path)
    assert str(path) in str(refused.value)
    path.chmod(0o600)
    assert kept_secret(path) == "secret"


def test_an_empty_file_is_no_key(tmp_path: Path) -> None:
    """Making a new one in its place would change every Message-ID."""
    path = tmp_path / "identity.key"
    path.touch(mode=0o600)
    with pytest.raises(KeyFileError, match="is empty"):
        kept_secret(path)
    assert path.read_bytes() == b""


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """The failure names the file."""
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be"):
        kept_secret(tmp_path / "file" / "signing.key")


def test_keys_in_a_traceback_show_nothing(tmp_path: Path) -> None:
    """A representation holds no key."""
    keys = load_keys(Settings(data_dir=tmp_path))
    assert repr(keys) == "Keys(signing=1, addresses=0)"
