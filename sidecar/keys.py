"""Keep the secrets that Outrider makes for itself: generated once, 0600, in the data directory.

A secret that is given in the settings stands before the kept one. What is kept is the very text that could be given,
so that a move to more machines is a copy of the files' contents into the settings.
"""

import os
import secrets
from pathlib import Path

import msgspec

from ledger.sealing import Sealer
from sidecar.settings import Settings

SIGNING_FILE = "signing.key"
IDENTITY_FILE = "identity.key"
CONSOLE_FILE = "console.token"

_SECRET_BYTES = 32


class KeyFileError(Exception):
    """A file with a secret is open to others, empty, or cannot be kept."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of the links, of the Message-IDs and of the addresses in the ledger."""

    #: Newest first: the first signs, all verify.
    signing: tuple[bytes, ...]
    #: Never rotated.
    identity: bytes
    #: Newest first: the first encrypts, all decrypt. None is made by itself: where there is none, nothing is sealed.
    addresses: tuple[bytes, ...] = ()

    @property
    def sealer(self) -> Sealer:
        """What the ledger seals and opens addresses with."""
        return Sealer(self.addresses)

    def __repr__(self) -> str:
        """Show how many keys there are, and none of them."""
        return f"Keys(signing={len(self.signing)}, addresses={len(self.addresses)})"


def load_keys(settings: Settings) -> Keys:
    """Return the keys as given, else as kept in the data directory, where they are made at the first start."""
    signing = settings.keys.signing or (kept_secret(settings.data_dir / SIGNING_FILE),)
    identity = settings.keys.identity or kept_secret(settings.data_dir / IDENTITY_FILE)
    return Keys(
        signing=tuple(key.encode("utf-8") for key in signing),
        identity=identity.encode("utf-8"),
        addresses=address_keys(settings),
    )


def address_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys of the addresses in the ledger: those that are given, none else."""
    return tuple(key.encode("utf-8") for key in settings.keys.addresses)


def console_token(settings: Settings) -> str:
    """Return the console's bearer token as given, else as kept in the data directory."""
    return settings.console.token or kept_secret(settings.data_dir / CONSOLE_FILE)


def kept_secret(path: Path) -> str:
    """Return the secret in *path*; the first of any number of processes makes it, and all get the same."""
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    try:
        _make(path)
        return _read(path)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others: make it yours alone with chmod 600, or give the key")
        secret = file.read().strip()
    if not secret:
        raise KeyFileError(f"{path} is empty: put the secret back, or remove the file if it was never used")
    return secret


def _make(path: Path) -> None:
    # Passed through by the embedded servers' account, listed by nobody.
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace: the first process wins, and what it made is whole.
        try:
            os.link(partial, path)
        except FileExistsError:
            return
    finally:
        partial.unlink(missing_ok=True)
    # Links in delivered mail and every Message-ID hang on this name.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
