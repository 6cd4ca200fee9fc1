"""The settings reference: complete, and the same as the page that is committed."""

from pathlib import Path

from sidecar.catalogue import catalogue
from sidecar.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def row(name: str) -> str:
    """Return the reference's row of the setting that has *name* in the environment."""
    (found,) = [line for line in reference().splitlines() if f"`{name}` |" in line]
    return found


def test_the_page_is_what_describe_config_prints() -> None:
    """A setting that changes takes its page along: ./outrider describe-config > docs/settings.md."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_every_setting_has_one_row() -> None:
    """Five cells, none of them empty."""
    for setting in catalogue():
        cells = [cell.strip() for cell in row(setting.environment).replace("\\|", "/").strip("|").split("|")]
        assert len(cells) == 5
        assert cells[0] == f"`{setting.key}`"
        assert all(cells)


def test_a_row_says_name_default_kind_and_meaning() -> None:
    """A row can be acted upon without the code."""
    assert row("OUTRIDER_RELAY__MAX_BYTES") == (
        "| `max_bytes` | `OUTRIDER_RELAY__MAX_BYTES` | `26214400` | an integer of at least 1024 "
        "| Largest message in octets (SIZE); larger gets 552. |"
    )


def test_bare_names_come_first() -> None:
    """What most people type stands first."""
    assert "| `DATABASE_URL`, `OUTRIDER_DATABASE_URL` |" in row("OUTRIDER_DATABASE_URL")


def test_no_default_depends_on_the_machine() -> None:
    """The page is the same wherever it is made."""
    assert "`data` beside the launcher; as root `/var/lib/outrider`" in row("OUTRIDER_DATA_DIR")
