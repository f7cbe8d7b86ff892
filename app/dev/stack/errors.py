"""Owns the one error the embedded stack raises for people to read.

Guarantees: the text names what is wrong and a way on, and carries the exit code of the command.
Nothing here has state; a process that dies here loses nothing.
"""

from __future__ import annotations

import errno
from pathlib import Path

FAILED = 1
USAGE = 64
UNAVAILABLE = 69
CONFIGURATION = 78


class StackError(Exception):
    """What is wrong and what to do about it, in a sentence or two for the person at the keyboard."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class ServiceFailed(StackError):
    """A process of the stack did not become ready: its name, why, the end of its log, the log's path."""

    def __init__(self, name: str, reason: str, log: Path, tail: list[str]) -> None:
        self.name = name
        self.reason = reason
        self.log = log
        self.tail = tail
        lines = [f"{name} {reason}."]
        if tail:
            lines.append(f"The end of {log}:")
            lines.extend(f"    {line}" for line in tail)
        else:
            lines.append(f"Its log is empty: {log}")
        if any("No space left on device" in line for line in tail):
            lines.append("The disk is full: make room and start again; nothing that was accepted is lost.")
        super().__init__("\n".join(lines))


def explain(error: OSError, what: str, where: Path) -> StackError:
    """Turn an OSError met while doing `what` at `where` into a sentence with a way on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StackError(
            f"{what}: the disk that holds {where} is full. Make room, or choose another --data-dir."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StackError(
            f"{what}: this user may not write {where}. Give it to this user, or choose another --data-dir.",
            CONFIGURATION,
        )
    if error.errno == errno.EROFS:
        return StackError(
            f"{what}: {where} is on a read-only disk. Choose another --data-dir.", CONFIGURATION
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StackError(f"{what}: {where} is not a folder. Choose another --data-dir.", CONFIGURATION)
    return StackError(f"{what}: {where}: {error.strerror or error}")
