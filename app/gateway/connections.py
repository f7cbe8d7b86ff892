"""Connections of the HTTP server: `cut_off` ends those whose reader takes nothing, `connected` looks for any.

The server lends nobody its sockets, so they are found among the files of this process by who is at their
other end. That takes a few microseconds a connection, and is done for those who misbehave, and at the end.
"""

import os
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

Peer: TypeAlias = tuple[str, int]
"""Address and port of who is at the other end."""

_FILES: Final = "/dev/fd"


def cut_off(peers: Collection[Peer]) -> int:
    """Shut the connections of these peers down, as far as there are any; how many there were."""
    found = 0
    for connection in _open() if peers else ():
        with suppress(OSError):  # it is closed meanwhile
            if connection.getpeername()[:2] in peers:
                connection.shutdown(socket.SHUT_RDWR)
                found += 1
    return found


def connected(port: int) -> bool:
    """Whether anybody is connected to this port of ours."""
    for connection in _open():
        with suppress(OSError):  # it listens, or is closed meanwhile
            if connection.getsockname()[1] == port and connection.getpeername():
                return True
    return False


def _open() -> Iterator[socket.socket]:
    """Every socket of this process that speaks IP, as a copy that is closed with the next question."""
    try:
        names = [path.name for path in Path(_FILES).iterdir()]
    except OSError:  # a system that does not tell
        return
    for name in names:
        with suppress(OSError, ValueError):
            descriptor = int(name)
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                if connection.family in {socket.AF_INET, socket.AF_INET6}:
                    yield connection
