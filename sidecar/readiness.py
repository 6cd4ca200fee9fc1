"""What a role needs to do its duty, and what of it is missing now."""

from typing import Any


class Readiness:
    """What a role needs, and what of it is missing now.

    Every name in *needs* counts as missing until it is reported present.
    """

    def __init__(self, *needs: str) -> None:
        self._missing = dict.fromkeys(needs, "not reached yet")
        self._degraded: dict[str, str] = {}
        self._draining = False

    def miss(self, name: str, reason: str) -> None:
        """Report that the role cannot do its duty, because *name* is missing."""
        self._degraded.pop(name, None)
        self._missing[name] = reason

    def degrade(self, name: str, reason: str) -> None:
        """Report that the role still does its duty, without *name*."""
        self._missing.pop(name, None)
        self._degraded[name] = reason

    def have(self, name: str) -> None:
        """Report that *name* is present."""
        self._missing.pop(name, None)
        self._degraded.pop(name, None)

    def drain(self) -> None:
        """Report that the process finishes what it has and takes nothing more; there is no way back."""
        self._draining = True

    @property
    def ready(self) -> bool:
        """Whether new work may be sent here."""
        return not self._missing and not self._draining

    def describe(self) -> dict[str, Any]:
        """Return the body of /readyz: `status`, and the reasons by name for what is missing or degraded."""
        status = "draining" if self._draining else "missing" if self._missing else "ready"
        body: dict[str, Any] = {"status": status}
        if self._missing:
            body["missing"] = dict(sorted(self._missing.items()))
        if self._degraded:
            body["degraded"] = sorted(self._degraded)
            body["reasons"] = dict(sorted(self._degraded.items()))
        return body
