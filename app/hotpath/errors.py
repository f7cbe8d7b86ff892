"""What a command can end in, besides its answer. The first question is always: may it have happened?"""

from typing import Final


class HotpathError(Exception):
    """Whatever this library raises about Redis."""


class NotSent(HotpathError):
    """The command never left this process: nothing happened, ask again whenever you like."""


class Unreachable(NotSent):
    """There is no connection, or the server did not answer just now: refused without waiting."""


class Overloaded(NotSent):
    """Too many commands wait to be sent already."""


class MayHaveHappened(HotpathError):
    """The command was sent and its answer did not come: within the deadline, or before the connection broke.

    Commands marked `safe` outlive a broken connection: they are sent again, within their deadline.
    """


class ErrorReply(HotpathError):
    """The server answered with an error. `code` is its first word ("WRONGTYPE", "NOSCRIPT", "ERR", …).

    The error of one command inside an array (what a script returns) is not raised: it stands in its place.
    """

    def __init__(self, message: str) -> None:
        """Take the server's own sentence."""
        super().__init__(message)
        self.message = message
        self.code = message.partition(" ")[0]


class NotNow(ErrorReply):
    """The server is there and refuses for now: full, loading, read-only, busy with a script."""


NOT_NOW: Final = frozenset(
    ("OOM", "LOADING", "READONLY", "BUSY", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")
)


def error_reply(message: str) -> ErrorReply:
    """The error that stands for a server's error reply."""
    error = ErrorReply(message)
    return NotNow(message) if error.code in NOT_NOW else error
