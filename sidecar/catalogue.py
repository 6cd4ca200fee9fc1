"""Every setting with its names, its type and its default, read off the settings tree.

There is no second list: a field that a role adds to its settings is known here, and so to the loader, to
`check-config` and to the reference, without another line.
"""

import math
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from sidecar.settings import Settings

PREFIX = "OUTRIDER_"

#: Names without the prefix, which every platform sets.
BARE_NAMES = {"DATABASE_URL": "database_url", "REDIS_URL": "redis_url"}

_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})
_INTEGER = re.compile(r"\A[+-]?[0-9]+\Z")
_NUMBER = re.compile(r"\A[+-]?[0-9]+(?:\.[0-9]+)?\Z")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: `section` is empty for those that stand above all sections."""

    section: str
    key: str
    annotation: Any
    default: Any
    meta: Meta

    @property
    def path(self) -> str:
        """The name on the command line, and with its section in brackets in TOML: `relay.listen`."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def environment(self) -> str:
        """The name in the environment: `OUTRIDER_RELAY__LISTEN`."""
        return PREFIX + self.path.replace(".", "__").upper()

    @property
    def base(self) -> Any:
        """The type without its annotations."""
        return get_args(self.annotation)[0] if get_origin(self.annotation) is Annotated else self.annotation

    @property
    def is_list(self) -> bool:
        """Whether it holds several values."""
        return get_origin(self.base) is tuple

    @property
    def may_break(self) -> bool:
        """Whether its value may have several lines, as PEM has."""
        return bool((self.meta.extra or {}).get("lines"))

    @property
    def is_secret(self) -> bool:
        """Whether its value is never printed; by its name, so that a new secret is one without being listed."""
        return self.section == "keys" or self.key == "token" or self.key.endswith(("api_key", "secret", "password"))

    def expected(self) -> str:
        """Say what a value must be, in the words of an error message: `an integer of at least 1024`."""
        base = self.base
        if get_origin(base) is Literal:
            return "one of " + ", ".join(get_args(base))
        if self.is_list:
            items = "integers" if get_args(base)[0] is int else "texts"
            count = "a list of" if self.meta.min_length is None else str(self.meta.min_length)
            return f"{count} {items}, separated by commas"
        words = {str: "a text", bool: "true or false", int: "an integer", float: "a number", Path: "a path"}
        return words[base] + _bounds(self.meta)


def _bounds(meta: Meta) -> str:
    words = []
    if meta.ge is not None:
        words.append(f"of at least {meta.ge:g}" if isinstance(meta.ge, float) else f"of at least {meta.ge}")
    if meta.gt is not None:
        words.append(f"greater than {meta.gt}")
    if meta.le is not None:
        words.append(f"of at most {meta.le}")
    return " " + " and ".join(words) if words else ""


@cache
def catalogue() -> tuple[Setting, ...]:
    """Return every setting in the order of the tree."""
    found: list[Setting] = []
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found += [_setting(field.name, inner) for inner in msgspec.structs.fields(field.type)]
        else:
            found.append(_setting("", field))
    return tuple(found)


@cache
def sections() -> dict[str, str]:
    """Return every section's name with its one-sentence description."""
    return {
        field.name: (field.type.__doc__ or "").partition("\n")[0]
        for field in msgspec.structs.fields(Settings)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }


def _setting(section: str, field: FieldInfo) -> Setting:
    metas = [mark for mark in getattr(field.type, "__metadata__", ()) if isinstance(mark, Meta)]
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return Setting(section=section, key=field.name, annotation=field.type, default=default, meta=metas[0])


def by_path() -> dict[str, Setting]:
    """Return every setting by its path."""
    return {setting.path: setting for setting in catalogue()}


def by_environment() -> dict[str, Setting]:
    """Return every setting by its names in the environment, the bare ones included."""
    paths = by_path()
    named = {setting.environment: setting for setting in catalogue()}
    return named | {bare: paths[path] for bare, path in BARE_NAMES.items()}


def primary_name(path: str) -> str:
    """Return the name under which the documentation speaks of a setting: bare where there is a bare one."""
    bare = {known: name for name, known in BARE_NAMES.items()}
    return bare.get(path) or by_path()[path].environment


def read_text(setting: Setting, text: str) -> Any:
    """Return the value that *text* spells in the environment or after `--set`; raise `ValueError` with the fault."""
    base, text = setting.base, text.strip()
    if setting.is_list:
        items = [item.strip() for item in text.split(",")] if text else []
        if "" in items:
            raise ValueError("an item of the list is empty")
        return check(setting, [_number(int, item, setting) for item in items] if get_args(base)[0] is int else items)
    if base is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError(f"expected {setting.expected()}")
        return text.lower() in _TRUE
    return check(setting, _number(base, text, setting) if base in {int, float} else text)


def _one_line(setting: Setting, text: str) -> str:
    return text.replace("\r", "").replace("\n", "") if setting.may_break else text


def _number(kind: type[int | float], text: str, setting: Setting) -> int | float:
    # Python also reads 1_000, other scripts' digits, nan and inf; an operator who wrote those meant something else.
    if not (_INTEGER if kind is int else _NUMBER).match(text):
        raise ValueError(f"expected {setting.expected()}")
    return kind(text)


def check(setting: Setting, value: Any) -> Any:
    """Return *value* as the tree holds it; raise `ValueError` with what is wrong. TOML's values come here directly."""
    if setting.is_list and isinstance(value, str):
        return read_text(setting, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected {setting.expected()}")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and any(ord(char) < 32 or ord(char) == 127 for char in _one_line(setting, text)):
            raise ValueError("expected no control character, such as a line end")
    if setting.base is Path:
        if not isinstance(value, str) or not value:
            raise ValueError(f"expected {setting.expected()}")
        return Path(value).absolute()
    try:
        return msgspec.convert(value, setting.annotation)
    except msgspec.ValidationError:
        raise ValueError(f"expected {setting.expected()}") from None
