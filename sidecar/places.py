"""Try the files and directories that the settings name, before anything starts that would need them.

A file is opened, not only looked at: what can be found and not read is as good as missing.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidecar.contradictions import Problem, Spell
from sidecar.dkim_keys import key_file, load_key
from sidecar.keys import KeyFileError
from sidecar.settings import Settings


def wanting_places(settings: Settings, spell: Spell) -> Iterator[Problem]:
    """Yield every named file or directory that cannot serve."""
    yield from _data_dir(settings.data_dir, spell)
    yield from _users(settings.relay.users, spell)
    yield from _certificate(settings.relay.tls_cert, settings.relay.tls_key, spell)
    yield from _page(settings.tracker.page_template, spell)
    yield from _authorities("ams.ca_file", settings.ams.ca_file, spell)
    yield from _authorities("listmonk.ca_file", settings.listmonk.ca_file, spell)
    for name, sink in settings.sinks.items():
        yield from _authorities(f"sinks.{name}.ca_file", sink.ca_file, spell)
    yield from _dkim_keys(settings.inject.dkim_keys, spell)


def _unreadable(path: str, name: str, spell: Spell) -> Problem | None:
    try:
        with Path(name).open("rb"):
            return None
    except OSError as error:
        return Problem(paths=(path,), text=f"{spell(path)}: expected a readable file, {name}: {error.strerror}")


def _data_dir(data_dir: Path, spell: Spell) -> Iterator[Problem]:
    # It is made at the first start, so the nearest directory that exists has to take it.
    place = next((parent for parent in (data_dir, *data_dir.parents) if parent.exists()), data_dir)
    if not place.is_dir():
        yield Problem(paths=("data_dir",), text=f"{spell('data_dir')}: expected a directory, {place} is none")
    elif not os.access(place, os.W_OK | os.X_OK):
        yield Problem(paths=("data_dir",), text=f"{spell('data_dir')}: expected to be able to write in {place}")


def _users(name: str, spell: Spell) -> Iterator[Problem]:
    if not name:
        return
    if problem := _unreadable("relay.users", name, spell):
        yield problem
        return
    from relay.passwords import PasswordFileError, parse

    try:
        parse(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        yield Problem(paths=("relay.users",), text=f"{spell('relay.users')}: {name}: expected UTF-8")
    except PasswordFileError as error:
        yield Problem(paths=("relay.users",), text=f"{spell('relay.users')}: {name}: {error}")


def _certificate(cert: str, key: str, spell: Spell) -> Iterator[Problem]:
    paths = ("relay.tls_cert", "relay.tls_key")
    problems = [_unreadable(path, name, spell) for path, name in zip(paths, (cert, key), strict=True) if name]
    yield from filter(None, problems)
    if any(problems) or not (cert and key):
        return
    import ssl

    try:
        # An empty password, so that an encrypted key is refused here and does not ask at a terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError):
        text = f"{spell(paths[0])} and {spell(paths[1])}: expected a PEM chain and its key, without a pass phrase"
        yield Problem(paths=paths, text=text)


def _page(name: str, spell: Spell) -> Iterator[Problem]:
    if not name:
        return
    path = "tracker.page_template"
    if problem := _unreadable(path, name, spell):
        yield problem
        return
    from tracker.pages import Pages, TemplateError

    try:
        Pages(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        yield Problem(paths=(path,), text=f"{spell(path)}: {name}: expected UTF-8")
    except TemplateError as error:
        yield Problem(paths=(path,), text=f"{spell(path)}: {name}: {error}")


def _authorities(path: str, name: str, spell: Spell) -> Iterator[Problem]:
    if not name:
        return
    if problem := _unreadable(path, name, spell):
        yield problem
        return
    import ssl

    try:
        ssl.create_default_context(cafile=name)
    except (ssl.SSLError, OSError):
        yield Problem(paths=(path,), text=f"{spell(path)}: expected certificates in PEM, {name}")


def _dkim_keys(entries: Sequence[str], spell: Spell) -> Iterator[Problem]:
    for entry in entries:
        try:
            file = key_file(entry)
        except ValueError:
            # Not a matter of files.
            continue
        if problem := _unreadable("inject.dkim_keys", str(file.path), spell):
            yield problem
            continue
        try:
            load_key(file)
        except KeyFileError as error:
            yield Problem(paths=("inject.dkim_keys",), text=f"{spell('inject.dkim_keys')}: {error}")
