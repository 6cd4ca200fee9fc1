"""Write the settings reference that docs/settings.md holds and `describe-config` prints.

It is made from the settings themselves, and a check compares it with the file, so the two cannot part.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sidecar.catalogue import BARE_NAMES, Setting, catalogue, families, sections

_HEAD = """\
# Settings

Everything has a default; an upstream is all that `./outrider run` asks for.

Precedence: the command line (`--set section.key=value`, `--data-dir`), the environment, `outrider.toml` in the current
directory or beside the launcher (or `--config FILE`), the default.

- In the environment a setting is `OUTRIDER_<SECTION>__<KEY>`; `DATABASE_URL` and `REDIS_URL` also work bare.
- Of a section with NAME there may be any number, each under a name of your own, such as [sinks.crm]; in the
  environment it stands in capitals.
- In TOML it is `key` under `[section]`; those without a section stand at the top.
- A list is written with commas in the environment and on the command line, as an array or with commas in TOML.
- True and false are `true`, `1`, `yes` and `false`, `0`, `no` in the environment and on the command line.

An unknown name, a wrong type or a contradiction stops the start with exit code 2, and every problem is named at once.
`./outrider check-config` tries the settings and shows where each came from; secrets are never printed.

This page is what `./outrider describe-config` prints: edit the settings' descriptions, not the page.
"""

# Defaults that depend on the machine are told in words.
_WORDED = {"data_dir": "`data` beside the launcher; as root `/var/lib/outrider`"}


def reference() -> str:
    """Return the whole reference as Markdown."""
    parts = [*_table("Above all sections", "", _settings_of(""))]
    for name, description in sections().items():
        parts += _table(f"[{name}]", description, _settings_of(name))
    for family in families().values():
        parts += _table(f"[{family.section}]", family.description, family.settings)
    return "\n".join([_HEAD, *parts]).rstrip("\n") + "\n"


def _settings_of(section: str) -> list[Setting]:
    return [setting for setting in catalogue() if setting.section == section]


def _table(title: str, description: str, settings: Iterable[Setting]) -> Iterator[str]:
    yield f"## {title}\n"
    if description:
        yield f"{description}\n"
    yield "| setting | environment | default | expected | meaning |"
    yield "|---|---|---|---|---|"
    yield from map(_row, settings)
    yield ""


def _row(setting: Setting) -> str:
    bare = [name for name, path in BARE_NAMES.items() if path == setting.path]
    names = ", ".join(f"`{name}`" for name in [*bare, setting.environment])
    meaning = setting.meta.description or ""
    default = _WORDED.get(setting.path) or _default(setting.default)
    cells = (f"`{setting.key}`", names, default, setting.expected(), meaning)
    # GitHub's tables end a cell at a bar, also inside code.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(value: Any) -> str:
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case "" | ():
            return "empty"
        case tuple():
            return f"`{', '.join(str(item) for item in value)}`"
        case float():
            return f"`{value:.15g}`"
        case _:
            return f"`{value}`"
