"""The capture upstream: keep each message as a file, for a first look and for tests.

A message is a `KEY.eml` holding exactly the bytes that left, and a `KEY.json` with its envelope. It is accepted once
both are on the disk, so that what the ledger calls sent can be seen.
"""

import asyncio
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from relay.rendering import BUDGET
from relay.upstream import ATTEMPTS, BeforeDot, Letter, Outcome, Trouble, Verdict


class CapturedEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """What `KEY.json` holds."""

    key: str
    sender: str
    recipient: str
    received_at: datetime


class CaptureUpstream:
    """Write messages under *directory*; sending the same key again replaces its file."""

    name = "capture"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Keep *letter*; trouble when the disk refuses."""
        await before_dot()
        envelope = CapturedEnvelope(
            key=letter.key, sender=letter.sender, recipient=letter.recipient, received_at=datetime.now(UTC)
        )
        try:
            async with BUDGET.share(letter.size) as share:
                await asyncio.to_thread(self._write, await share.render(partial(letter.render, None)), envelope)
        except OSError as error:
            ATTEMPTS.labels("trouble_disk").inc()
            return Trouble(reason="disk", reply=f"451 4.3.0 {error.strerror or 'disk trouble'}")
        ATTEMPTS.labels("accepted").inc()
        return Verdict(code=250, text=f"2.0.0 Ok: captured as {letter.key}")

    async def close(self) -> None:
        """Hold nothing open."""

    def _write(self, content: bytes, envelope: CapturedEnvelope) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The envelope first: whoever lists the messages finds both.
        for name, text in ((f"{envelope.key}.json", msgspec.json.encode(envelope)), (f"{envelope.key}.eml", content)):
            temporary = self._directory / f".{name}.{os.getpid()}"
            with temporary.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._directory / name)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
