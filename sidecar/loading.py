"""Read the settings from where an operator may write them, and refuse what is not clear.

Precedence: command line, environment, TOML file, default. Every problem is found before any is reported, and names the
setting as the operator spelt it; a value is never shown, because any of them may hold a secret in the wrong place.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sidecar.catalogue import (
    PREFIX,
    Setting,
    by_environment,
    by_path,
    catalogue,
    check,
    families,
    is_family_name,
    primary_name,
    read_text,
    sections,
    setting_at,
    setting_of,
)
from sidecar.contradictions import contradictions, role_problems
from sidecar.places import wanting_places
from sidecar.settings import LAUNCHER_DIRECTORY, Settings, SettingsError

CONFIG_NAME = "outrider.toml"

# The tests' own switches are no settings.
_NOT_SETTINGS = "OUTRIDER_TEST_"

# What Kubernetes sets in every pod for a Service named outrider or outrider-something.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)\Z|_PORT(_[0-9]+_(TCP|UDP)(_\w+)?)?\Z")


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says about settings."""

    #: `section.key=value`, as given after each `--set`.
    assignments: Sequence[str] = ()
    data_dir: str | None = None
    config: str | None = None


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A value that somebody gave, and how it was spelt."""

    setting: Setting
    value: Any
    #: The name as the operator wrote it, with its file where it has one.
    spelt: str


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The settings and, by path, the name under which each was given that was given."""

    settings: Settings
    spelt: Mapping[str, str]

    def spell(self, path: str) -> str:
        """Return the setting's name as the operator wrote it, or as the documentation does."""
        return self.spelt.get(path) or primary_name(path)

    def for_role(self, role: str) -> Settings:
        """Return the settings if *role* can start with them; raise `SettingsError` with what it lacks."""
        if problems := [problem.text for problem in role_problems(role, self.settings, self.spell)]:
            raise SettingsError(*problems)
        return self.settings


class _Problems:
    """What was found wrong so far, and about which settings."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.refused: set[str] = set()

    def add(self, text: str, *, path: str = "") -> None:
        self.lines.append(text)
        self.refused.add(path)


def load(
    command_line: CommandLine | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    launcher: Path = LAUNCHER_DIRECTORY,
) -> Loaded:
    """Return the effective settings; raise `SettingsError` with every problem there is.

    The environment is this process's unless given; `outrider.toml` is looked for in *directory* (the current one) and
    then in *launcher*.
    """
    said = command_line or CommandLine()
    problems = _Problems()
    given: dict[str, Given] = {}
    for layer in (
        _file(_config_path(said, directory or Path.cwd(), launcher, problems), problems),
        _environment(os.environ if environment is None else environment, problems),
        _command_line(said, problems),
    ):
        given |= _unambiguous(layer, problems)
    spelt = {path: found.spelt for path, found in given.items()}
    loaded = Loaded(settings=_tree(given), spelt=spelt)
    for check_all in (contradictions, wanting_places):
        for problem in check_all(loaded.settings, loaded.spell):
            # A refused value stands at its default here: what follows from that is not the operator's doing.
            if problems.refused.isdisjoint(problem.paths):
                problems.add(problem.text)
    if problems.lines:
        raise SettingsError(*problems.lines)
    return loaded


def _unambiguous(layer: Iterator[Given], problems: _Problems) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for given in layer:
        other = found.setdefault(given.setting.path, given)
        if other.value != given.value:
            names = given.spelt if given.spelt == other.spelt else f"{other.spelt} and {given.spelt}"
            problems.add(f"{names}: given twice, with different values", path=given.setting.path)
    return found


def _tree(given: Mapping[str, Given]) -> Settings:
    values: dict[str, dict[str, Any]] = {}
    for found in given.values():
        values.setdefault(found.setting.section, {})[found.setting.key] = found.value
    tree = Settings(**values.pop("", {}))
    parts: dict[str, Any] = {name: {} for name in families()}
    for section, keys in values.items():
        family, _, name = section.partition(".")
        if name:
            parts[family][name] = families()[family].type(**keys)
        else:
            parts[section] = msgspec.structs.replace(getattr(tree, section), **keys)
    return msgspec.structs.replace(tree, **parts)


def _command_line(said: CommandLine, problems: _Problems) -> Iterator[Given]:
    if said.data_dir is not None:
        yield from _read(by_path()["data_dir"], said.data_dir, "--data-dir", problems)
    for assignment in said.assignments:
        path, equals, text = assignment.partition("=")
        setting = setting_at(path.strip())
        if not equals:
            problems.add("--set: expected section.key=value")
        elif setting is None:
            problems.add(f"--set {path}: no such setting{_did_you_mean(path, by_path())}")
        else:
            yield from _read(setting, text, f"--set {setting.path}", problems)


def _environment(environment: Mapping[str, str], problems: _Problems) -> Iterator[Given]:
    for name, text in sorted(environment.items()):
        if (setting := setting_of(name)) is not None:
            yield from _read(setting, text, name, problems)
        elif name.upper().startswith(PREFIX) and not name.startswith(_NOT_SETTINGS):
            hint = _did_you_mean(name, by_environment())
            if _SERVICE_LINK.search(name):
                hint = "; Kubernetes sets it for a Service of that name: set enableServiceLinks: false in the pod"
            problems.add(f"{name}: no such setting{hint}")


def _config_path(said: CommandLine, directory: Path, launcher: Path, problems: _Problems) -> Path | None:
    if said.config is not None:
        path = Path(said.config)
        if not path.is_file():
            problems.add(f"--config {path}: there is no such file")
            return None
        return path
    return next((place / CONFIG_NAME for place in (directory, launcher) if (place / CONFIG_NAME).is_file()), None)


def _file(path: Path | None, problems: _Problems) -> Iterator[Given]:
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.add(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.add(f"{path}: expected UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.add(f"{path}: not TOML: {error}")
    else:
        for name, value in document.items():
            yield from _entry(name, value, path, problems)


def _entry(name: str, value: Any, path: Path, problems: _Problems) -> Iterator[Given]:
    """Read one entry of the document: a setting above all sections, or a section."""
    known = by_path()
    if name in sections():
        if not isinstance(value, dict):
            problems.add(f"{name} in {path}: expected a section, [{name}]")
            return
        for key, inner in value.items():
            yield from _value(f"{name}.{key}", inner, path, problems)
    elif name in families():
        yield from _family(name, value, path, problems)
    elif name in known:
        yield from _value(name, value, path, problems)
    else:
        kind = "section" if isinstance(value, dict) else "setting"
        names = [*sections(), *families(), *(setting.path for setting in catalogue() if not setting.section)]
        problems.add(f"{name} in {path}: no such {kind}{_did_you_mean(name, names)}")


def _family(family: str, value: Any, path: Path, problems: _Problems) -> Iterator[Given]:
    """Read the sections of a family."""
    if not isinstance(value, dict) or not all(isinstance(section, dict) for section in value.values()):
        problems.add(f"{family} in {path}: expected sections, [{families()[family].section}]")
        return
    for name, section in value.items():
        if not is_family_name(name):
            problems.add(f"{family}.{name} in {path}: expected a name of small letters, digits and single underscores")
            continue
        for key, inner in section.items():
            yield from _value(f"{family}.{name}.{key}", inner, path, problems)


def _value(name: str, value: Any, path: Path, problems: _Problems) -> Iterator[Given]:
    setting = setting_at(name)
    if setting is None:
        problems.add(f"{name} in {path}: no such setting{_did_you_mean(name, by_path())}")
        return
    yield from _read(setting, value, f"{name} in {path}", problems, typed=True)


def _read(setting: Setting, value: Any, spelt: str, problems: _Problems, *, typed: bool = False) -> Iterator[Given]:
    try:
        read = check(setting, value) if typed else read_text(setting, value)
    except ValueError as error:
        problems.add(f"{spelt}: {error}", path=setting.path)
    else:
        yield Given(setting=setting, value=read, spelt=spelt)


def _did_you_mean(name: str, known: Sequence[str] | Mapping[str, Setting]) -> str:
    import difflib

    # What all names begin with makes none of them likely.
    is_variable = name.upper().startswith(PREFIX)
    prefix, spelling = (PREFIX, name[len(PREFIX) :].upper()) if is_variable else ("", name.lower())
    close = difflib.get_close_matches(spelling, [one.removeprefix(prefix) for one in known], n=1, cutoff=0.75)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
