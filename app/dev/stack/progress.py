"""Owns how a stack tells what it is doing: notices, and who shows them.

A notice is shown on a terminal (rich), as plain lines, or sent as a line of JSON to the command that started
the supervisor in the background. Nothing here fails because nobody reads any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

BEGIN = "begin"  # `name` is being worked on
DONE = "done"  # `name` is finished
NOTE = "note"
WARNING = "warning"
READY = "ready"  # the stack is; the last notice of a start
FAILED = "failed"  # it will not be; the last notice of a start, `text` says why, `code` is the exit code


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth telling."""

    kind: str
    name: str = ""
    text: str = ""
    code: int = 0


Tell = Callable[[Notice], None]


class Plain:
    """One line for each notice, for pipes and (`stamped` with the time) for logs."""

    def __init__(self, out: IO[str], *, stamped: bool = False) -> None:
        self._out = out
        self._stamped = stamped

    def __call__(self, notice: Notice) -> None:
        """Show it."""
        line = _line(notice)
        if line is not None and self._stamped:
            line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}{line}"
        if line is not None:
            with contextlib.suppress(OSError, ValueError):
                print(line, file=self._out, flush=True)

    def close(self) -> None:
        """Nothing to tidy up."""


class Lively:
    """Lines for what is done, above one that names what is being worked on."""

    def __init__(self, out: IO[str]) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where a person looks

        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._busy: dict[str, None] = {}
        self._status: Status | None = None

    def __call__(self, notice: Notice) -> None:
        """Show it."""
        if notice.kind == BEGIN:
            self._busy[notice.name] = None
        elif notice.kind == DONE:
            self._busy.pop(notice.name, None)
        elif notice.kind in (READY, FAILED):
            self._busy.clear()
        line = _line(notice)
        with contextlib.suppress(OSError, ValueError):
            if line is not None and notice.kind != BEGIN:
                style = {WARNING: "yellow", DONE: "green"}.get(notice.kind)
                self._console.print(line, style=style, markup=False)
            self._show_busy()

    def _show_busy(self) -> None:
        if not self._busy:
            self.close()
            return
        text = ", ".join(self._busy)
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class Piped:
    """Lines of JSON through a pipe, read by `received`."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __call__(self, notice: Notice) -> None:
        """Send it; a reader that went away is no error."""
        with contextlib.suppress(OSError):
            os.write(self._handle, json.dumps(asdict(notice)).encode() + b"\n")

    def close(self) -> None:
        """Nothing to tidy up."""


def received(line: str) -> Notice:
    """The notice in a line of the pipe."""
    return Notice(**json.loads(line))


def shown_on(out: IO[str]) -> Plain | Lively:
    """Whoever shows notices best there."""
    return Lively(out) if out.isatty() and os.environ.get("TERM") != "dumb" else Plain(out)


def _line(notice: Notice) -> str | None:
    if notice.kind == DONE:
        return f"  {notice.name:<11} {notice.text}"
    if notice.kind in (NOTE, WARNING):
        return f"  {notice.text}"
    return None
