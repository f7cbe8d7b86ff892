"""`cut_off`: end connections whose reader takes nothing, which the HTTP server would hold until it does.

The server lends nobody its sockets, so they are found among the files of this process by who is at their
other end. That takes a few microseconds a connection, and is done for those who misbehave, and at the end.
"""

import os
import socket
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

Peer: TypeAlias = tuple[str, int]
"""Address and port of who is at the other end."""

_FILES: Final = "/dev/fd"


def cut_off(peers: Collection[Peer]) -> int:
    """Shut the connections of these peers down, as far as there are any; how many there were."""
    found = 0
    try:
        names = [path.name for path in Path(_FILES).iterdir()] if peers else []
    except OSError:  # a system that does not tell
        return 0
    for name in names:
        with suppress(OSError, ValueError):  # it is closed meanwhile, or has nobody at its other end
            descriptor = int(name)
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                if connection.family in {socket.AF_INET, socket.AF_INET6} and (
                    connection.getpeername()[:2] in peers
                ):
                    connection.shutdown(socket.SHUT_RDWR)
                    found += 1
    return found
