"""Show an operator the settings as they take effect, and where each came from.

Secrets and the credentials in URLs are left out; everything else is shown as it will be used.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from relay.routes import parse_routing
from sidecar import dkim_keys
from sidecar.catalogue import Setting, catalogue, families, sections
from sidecar.contradictions import Spell
from sidecar.loading import Loaded
from sidecar.redaction import redact_url
from sidecar.settings import Settings, public_url, relay_workers, tracker_workers
from sidecar.webhook_trust import LEAST_SECRET_CHARS, open_webhooks, short_secrets

# Shorter than this, a key could be found by trying.
_LEAST_KEY_CHARS = 32


def effective(loaded: Loaded) -> str:
    """Return the settings in TOML's form; what is not a default says who gave it."""
    lines = ["# Effective settings; secrets and credentials are not shown."]
    for section in ("", *sections()):
        lines += ["", f"[{section}]"] if section else []
        holder = getattr(loaded.settings, section) if section else loaded.settings
        lines += [_line(setting, holder, loaded) for setting in catalogue() if setting.section == section]
    for family in families().values():
        for name, holder in getattr(loaded.settings, family.name).items():
            section = f"{family.name}.{name}"
            own = [msgspec.structs.replace(setting, section=section) for setting in family.settings]
            lines += ["", f"[{section}]", *(_line(setting, holder, loaded) for setting in own)]
    lines += ["", *(f"# {note}" for note in _notes(loaded))]
    return "\n".join(lines) + "\n"


def _line(setting: Setting, holder: Any, loaded: Loaded) -> str:
    line = f"{setting.key} = {_shown(setting, getattr(holder, setting.key))}"
    return f"{line}  # {loaded.spelt[setting.path]}" if setting.path in loaded.spelt else line


def _shown(setting: Setting, value: Any) -> str:
    if setting.is_secret and value:
        return json.dumps(["[secret]"] * len(value) if isinstance(value, tuple) else "[secret]")
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.15g}"
        case tuple():
            # Only what holds a URL can hold its credentials.
            shown = [redact_url(item) if isinstance(item, str) and "://" in item else item for item in value]
            return json.dumps(shown, ensure_ascii=False)
        case Path():
            return json.dumps(str(value), ensure_ascii=False)
        case str():
            return json.dumps(redact_url(value), ensure_ascii=False)
        case _:
            return str(value)


def _notes(loaded: Loaded) -> Iterator[str]:
    settings, spell = loaded.settings, loaded.spell
    yield f"injected URLs begin with {public_url(settings)}"
    yield f"relay processes: {relay_workers(settings)}, tracker processes: {tracker_workers(settings)}"
    yield f"PostgreSQL: {_store(settings.database_url)}; Redis: {_store(settings.redis_url)}"
    yield f"addresses in the ledger: {'encrypted' if settings.keys.addresses else 'kept as they are'}"
    yield f"AMS: {'on' if settings.ams.url else 'off'}"
    yield f"sinks: {', '.join([*settings.sinks, *(['listmonk'] if settings.listmonk.url else [])]) or 'none'}"
    yield f"webhooks: {', '.join(open_webhooks(settings.webhooks)) or 'all closed'}"
    if not settings.relay.upstream:
        yield f"{spell('relay.upstream')} is not set: run and relay do not start without an upstream"
    relay = settings.relay
    for address, provider in parse_routing(relay.upstream, relay.routes, relay.dsn).guessed():
        yield f"upstream {address.name}: profile={provider.name}, by the host's name"
    yield from _dkim_notes(settings, spell)
    for path in _short_keys(settings):
        yield f"{spell(path)}: a key has fewer than {_LEAST_KEY_CHARS} characters and could be found by trying"
    for key in short_secrets(settings.webhooks):
        path, least = f"webhooks.{key}", LEAST_SECRET_CHARS
        yield f"{spell(path)}: a secret has fewer than {least} characters and could be found by trying"


def _dkim_notes(settings: Settings, spell: Spell) -> Iterator[str]:
    inject = settings.inject
    if inject.dkim_keys and inject.dkim != "resign":
        yield f"{spell('inject.dkim_keys')}: nothing is signed with them while {spell('inject.dkim')} is {inject.dkim}"
    for key in map(dkim_keys.load_key, map(dkim_keys.key_file, inject.dkim_keys)):
        yield f"DNS, TXT at {key.name}: {dkim_keys.record(key)}"
        if dkim_keys.is_weak(key):
            least = dkim_keys.GOOD_RSA_BITS
            yield f"{spell('inject.dkim_keys')}: {key.name}: an RSA key of less than {least} bits; some distrust it"


def _store(url: str) -> str:
    return "yours" if url else "embedded"


def _short_keys(settings: Settings) -> Iterator[str]:
    if any(len(key) < _LEAST_KEY_CHARS for key in settings.keys.signing):
        yield "keys.signing"
    if 0 < len(settings.keys.identity) < _LEAST_KEY_CHARS:
        yield "keys.identity"
    if any(len(key) < _LEAST_KEY_CHARS for key in settings.keys.addresses):
        yield "keys.addresses"
