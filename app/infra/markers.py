"""`Markers`: which environment the servers say they belong to, held against the one this process is in.

PostgreSQL, Redis and the Temporal namespace each carry a marker with the name of their environment.
Guarantees that a server of another environment is used for nothing: the first marker that differs is said in
one line that names the setting, and the process is told to stop, with exit code 78. A marker that is missing
is written only once PostgreSQL has said that it is ours. If the process dies here, the next one asks again.
"""

import asyncio
import re
import sys
from typing import Final

from app.domain.errors import Unavailable

EXIT_CONFIGURATION: Final = 78
KEEP_INTERVAL_S: Final = 10.0
"""How often the markers in Redis and Temporal are looked at while everything is well."""
SAYS: Final = "the marker there says"
"""How the environment of a server is found, as a rule."""

_SHOWN_MAX: Final = 40
_NAME: Final = re.compile(r"[a-z0-9-]+\Z")
"""What ENVIRONMENT may be, or at least like it: anything else is nobody's marker."""
_WERE_IT_WRONG: Final = "were the marker wrong itself: docs/ISOLATION.md, Changing a marker on purpose"
_NOUNS: Final = {"postgres": "the database", "redis": "the Redis database", "temporal": "the namespace"}


class AnotherEnvironmentError(Unavailable):
    """A server belongs to another environment. Whoever asks it meanwhile is told that it is unavailable."""


class ElsewhereError(SystemExit):
    """A setting leads to another environment. Where nobody catches this, the program ends with 78."""


class Markers:
    """What the servers of one process say. `stop` is set as soon as one belongs to another environment."""

    def __init__(self, environment: str, stop: asyncio.Event) -> None:
        """Nothing was said yet."""
        self.environment = environment
        self.is_sure = False
        """Whether PostgreSQL has said that it is ours: what is missing elsewhere may be written then."""
        self.wrong: str | None = None
        """The line that was said about the first server of another environment."""
        self._stop = stop

    def compare(self, setting: str, service: str, found: str, says: str = SAYS, mend: str = "") -> None:
        """Hold a marker that was found against our own. Raises AnotherEnvironmentError where they differ.

        `says` tells how `found` was found, `mend` what makes the server ours, if it truly is: that is said
        of a marker that is nobody's only. One that names an environment is not undone by a copied line.
        """
        if found == self.environment:
            return
        line = difference(setting, service, found, self.environment, says, mend)
        if self.wrong is None:
            self.wrong = line
            sys.stderr.write(f"holdfast: {line}\n")
            self._stop.set()
        raise AnotherEnvironmentError(service, line)

    def refuse(self) -> None:
        """Go no further if a server belongs to another environment. Raises ElsewhereError."""
        if self.wrong is not None:
            raise ElsewhereError(EXIT_CONFIGURATION)

    def exit_code(self, otherwise: int) -> int:
        """78 if a server belongs to another environment."""
        return otherwise if self.wrong is None else EXIT_CONFIGURATION


def difference(setting: str, service: str, found: str, own: str, says: str = SAYS, mend: str = "") -> str:
    """The line about a server of another environment; `found` is whatever somebody wrote there."""
    shown = repr(found[:_SHOWN_MAX])
    line = f"{setting} must lead to {_NOUNS[service]} of ENVIRONMENT {own!r}: {says} {shown}"
    line += f": mend {setting} or ENVIRONMENT"
    if not mend:
        return line
    how = _WERE_IT_WRONG if _NAME.match(found) else f"only if it is {own}'s all the same: {mend}"
    return f"{line} ({how})"
