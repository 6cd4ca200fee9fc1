"""Tell the demo's story: each step says what was observed, and whether it is what was promised."""

import sys
from typing import TextIO


class Story:
    """Prints steps and remembers whether all of them held."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._colours = out.isatty()
        self.failures = 0
        self.steps = 0

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self._say(f"\n{self._coloured(title, '1')}")

    def tell(self, text: str) -> None:
        """Say something that is not a promise."""
        self._say(f"    {text}")

    def check(self, promise: str, *, holds: bool, seen: str = "") -> bool:
        """Say that *promise* was observed to hold, or that it was not; *seen* is the observation."""
        self.steps += 1
        self.failures += not holds
        mark = self._coloured("ok  ", "32") if holds else self._coloured("FAIL ", "31")
        self._say(f"{mark}{promise}" + (f": {seen}" if seen else ""))
        return holds

    def _coloured(self, text: str, colour: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self._colours else text

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
