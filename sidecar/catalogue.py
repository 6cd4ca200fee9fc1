"""Every setting with its names, its type and its default, read off the settings tree.

There is no second list: a field that a role adds to its settings is known here, and so to the loader, to
`check-config` and to the reference, without another line. Where an operator may have any number of sections of a kind
([sinks.NAME]), the settings of one stand for all: a family.
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

#: What stands for an operator's own name in a family's paths; no name is spelt like it.
NAME = "NAME"

_FAMILY_NAME = re.compile(r"\A[a-z](?:_?[a-z0-9]){0,31}\Z")

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
    """Return every setting in the order of the tree, but those of families."""
    found: list[Setting] = []
    for field in msgspec.structs.fields(Settings):
        if get_origin(field.type) is dict:
            continue
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found += [_setting(field.name, inner) for inner in msgspec.structs.fields(field.type)]
        else:
            found.append(_setting("", field))
    return tuple(found)


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Sections of one kind, of which an operator may have any number under names of his own."""

    name: str
    description: str
    #: What one section is.
    type: type[msgspec.Struct]
    #: The settings of one section, `NAME` standing for the operator's name.
    settings: tuple[Setting, ...]

    @property
    def section(self) -> str:
        """The section's name in TOML: `sinks.NAME`."""
        return f"{self.name}.{NAME}"


@cache
def families() -> dict[str, Family]:
    """Return every family by its name."""
    found: dict[str, Family] = {}
    for field in msgspec.structs.fields(Settings):
        if get_origin(field.type) is dict:
            member: type[msgspec.Struct] = get_args(field.type)[1]
            found[field.name] = Family(
                name=field.name,
                description=(member.__doc__ or "").partition("\n")[0],
                type=member,
                settings=tuple(_setting(f"{field.name}.{NAME}", inner) for inner in msgspec.structs.fields(member)),
            )
    return found


def is_family_name(name: str) -> bool:
    """Whether a section of a family may be called so; the name is spelt alike in TOML and, in capitals, outside."""
    return _FAMILY_NAME.match(name) is not None


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


def setting_at(path: str) -> Setting | None:
    """Return the setting at *path*, also in a section of a family; none where there is none."""
    if (known := by_path().get(path)) is not None:
        return known
    family, _, rest = path.partition(".")
    name, _, key = rest.partition(".")
    if family not in families() or not is_family_name(name):
        return None
    found = next((setting for setting in families()[family].settings if setting.key == key), None)
    return None if found is None else msgspec.structs.replace(found, section=f"{family}.{name}")


def setting_of(variable: str) -> Setting | None:
    """Return the setting that a variable of the environment is, also in a section of a family."""
    if variable in BARE_NAMES:
        return by_path()[BARE_NAMES[variable]]
    found = setting_at(variable.removeprefix(PREFIX).lower().replace("__", "."))
    return found if found is not None and found.environment == variable else None


def by_environment() -> dict[str, Setting]:
    """Return every setting by its names in the environment, the bare ones included, and those of families by `NAME`."""
    paths = by_path()
    every = (*catalogue(), *(setting for family in families().values() for setting in family.settings))
    named = {setting.environment: setting for setting in every}
    return named | {bare: paths[path] for bare, path in BARE_NAMES.items()}


def primary_name(path: str) -> str:
    """Return the name under which the documentation speaks of a setting: bare where there is a bare one."""
    bare = {known: name for name, known in BARE_NAMES.items()}
    setting = setting_at(path)
    return bare.get(path) or (path if setting is None else setting.environment)


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
