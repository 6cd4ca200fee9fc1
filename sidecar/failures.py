"""How a command ends that cannot do what it was asked: a line for the operator, and an exit code."""


class CommandError(Exception):
    """The command could not do its work; the text says why, to the person who typed it."""

    def __init__(self, text: str, *, code: int = 1) -> None:
        super().__init__(text)
        self.code = code
