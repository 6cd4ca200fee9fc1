"""What each command does: read the settings, and hand over to the part that does the work.

Every part is imported inside its command, so that one command never loads another's libraries.
"""

import argparse
import asyncio
import getpass
import importlib
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sidecar.failures import CommandError
from sidecar.loading import CommandLine, Loaded, load
from sidecar.settings import Settings, SettingsError

Report = Callable[[Settings, argparse.Namespace], Awaitable[int]]


def _load(given: argparse.Namespace) -> Loaded:
    for name in ("data_dir", "config"):
        before, after = getattr(given, f"before_{name}"), getattr(given, name)
        if before is not None and after is not None and before != after:
            raise SettingsError(f"--{name.replace('_', '-')}: given twice, with different values")
    return load(
        CommandLine(
            assignments=[*given.before_assignments, *given.assignments],
            data_dir=given.data_dir or given.before_data_dir,
            config=given.config or given.before_config,
        )
    )


@contextmanager
def _plain_failures() -> Iterator[None]:
    """Turn what an operator can put right into a `CommandError`; the driver's texts hold values and are not shown."""
    import asyncpg

    from ledger.processes import UnknownKeyError
    from ledger.schema import SchemaError
    from ledger.sealing import SealedError
    from ledger.store import UNAVAILABLE
    from sidecar.embedded import EmbeddedError
    from sidecar.keys import KeyFileError
    from sidecar.reach import NoLedgerError

    try:
        yield
    except (UnknownKeyError, SealedError, KeyFileError) as error:
        raise CommandError(str(error), code=2) from error
    except (EmbeddedError, NoLedgerError, SchemaError) as error:
        raise CommandError(str(error)) from error
    except BrokenPipeError:
        raise
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        raise CommandError(f"PostgreSQL did not do it: {type(error).__name__}") from error


def _run(given: argparse.Namespace) -> int:
    settings = _load(given).for_role("run")
    with _plain_failures():
        from sidecar.wiring import run_all

        return run_all(settings)


def _role(given: argparse.Namespace) -> int:
    settings = _load(given).for_role(given.command)
    with _plain_failures():
        from sidecar.reach import joined
        from sidecar.wiring import run_role

        return run_role(given.command, joined(settings))


def _demo(given: argparse.Namespace) -> int:
    settings = _load(given).settings
    with _plain_failures():
        from sidecar.demo import main

        return main(settings, exit_when_done=given.exit)


def _answer_alone(command: str) -> None:
    """Keep standard output for the answer: a pipe reads it."""
    from sidecar.logs import configure_command

    configure_command(command)


def _migrate(given: argparse.Namespace) -> int:
    settings = _load(given).settings

    async def migrated() -> list[str]:
        _answer_alone(given.command)
        from ledger.schema import migrate
        from sidecar.reach import reachable

        async with reachable(settings) as reached:
            return await migrate(reached.database_url)

    with _plain_failures():
        applied = asyncio.run(migrated())
    print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")
    return 0


def _check_config(given: argparse.Namespace) -> int:
    from sidecar.effective import effective

    print(effective(_load(given)), end="")
    return 0


def _describe_config(_given: argparse.Namespace) -> int:
    from sidecar.reference import reference

    print(reference(), end="")
    return 0


def _explain(given: argparse.Namespace) -> int:
    settings = _load(given).settings
    from sidecar.explain import explanation

    try:
        content = sys.stdin.buffer.read() if given.file == "-" else Path(given.file).read_bytes()
        found = explanation(content, settings, now=datetime.now(UTC))
    except OSError as error:
        raise CommandError(f"{given.file}: {error.strerror}", code=2) from error
    except ValueError as error:
        raise CommandError(f"{given.file}: {error}") from error
    print(json.dumps(found.document(), ensure_ascii=False, indent=2) if given.json else found.text())
    return 0


def _report(name: str, *, of: str = "sidecar.reports_cli") -> Callable[[argparse.Namespace], int]:
    def body(given: argparse.Namespace) -> int:
        settings = _load(given).settings

        async def reported() -> int:
            _answer_alone(given.command)
            from sidecar.reach import reachable

            report: Report = getattr(importlib.import_module(of), name)
            async with reachable(settings) as reached:
                return await report(reached, given)

        with _plain_failures():
            return asyncio.run(reported())

    return body


def _passwd(given: argparse.Namespace) -> int:
    from relay.passwords import SALT_BYTES, PasswordFileError, hash_password, with_user

    path = Path(given.file)
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        # The name is tried before a password is asked for.
        with_user(before, given.user, hash_password("", salt=bytes(SALT_BYTES)))
        hashed = hash_password(_password(), salt=secrets.token_bytes(SALT_BYTES))
        _replace(path, with_user(before, given.user, hashed))
    except PasswordFileError as error:
        raise CommandError(f"{path}: {error}", code=2) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: expected UTF-8", code=2) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    print(f"{path}: password set")
    return 0


def _password() -> str:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise CommandError("the two passwords differ; nothing was changed")
    else:
        password = sys.stdin.readline().removesuffix("\n")
    if not password:
        raise CommandError("an empty password is none; nothing was changed")
    return password


def _replace(path: Path, text: str) -> None:
    """Write the users file whole or not at all; a new one is its owner's alone."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            if path.exists():
                # The relay may run under an account that reads it as a member of the file's group.
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _bench(given: argparse.Namespace) -> int:
    from sidecar.bench import run_benches
    from sidecar.cli_parser import BENCHES

    names = BENCHES if given.bench == "all" else (given.bench,)
    return run_benches(
        names,
        rounds=given.rounds,
        against=given.against,
        haraka=given.haraka,
        as_json=given.json,
        now=datetime.now(UTC),
    )


COMMAND_BODIES: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "run": _run,
    "relay": _role,
    "tracker": _role,
    "courier": _role,
    "console": _role,
    "migrate": _migrate,
    "check-config": _check_config,
    "describe-config": _describe_config,
    "explain": _explain,
    "status": _report("status"),
    "messages": _report("messages"),
    "export": _report("export"),
    "sync-counts": _report("sync_counts"),
    "campaign": _report("campaign", of="sidecar.queue_cli"),
    "pause": _report("hold", of="sidecar.queue_cli"),
    "resume": _report("hold", of="sidecar.queue_cli"),
    "queue": _report("queue_command", of="sidecar.queue_cli"),
    "suppress": _report("suppress", of="sidecar.suppress_cli"),
    "forget": _report("forget", of="sidecar.forget_cli"),
    "seal": _report("seal", of="sidecar.seal_cli"),
    "unmatched": _report("unmatched"),
    "replay": _report("replay"),
    "probe": _report("probe", of="sidecar.probe_cli"),
    "import": _report("import_history", of="sidecar.import_cli"),
    "passwd": _passwd,
    "bench": _bench,
}
