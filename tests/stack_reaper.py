"""Removes the containers of a test process when that process is no more: `stack_reaper.py OWNER <pipe`.

The pipe's other end is held by the owner alone. Its end of file comes when the owner closes it or dies,
were it by SIGKILL; nothing that is still there then will be stopped by anybody else.
"""

import sys
import time

import docker
from docker.errors import DockerException

OWNER = "io.holdfast.test.owner"
"""The label of every container that the tests start: whose it is."""
DONE = b"done"
"""What an owner says that has removed its containers itself."""

_SETTLE_S = 2.0
"""How long the engine may take to make a container that was asked for at the very end."""


def leave_nothing(client: docker.DockerClient, owner: str) -> int:
    """Remove an owner's containers with their volumes; how many there were."""
    found = client.containers.list(all=True, ignore_removed=True, filters={"label": f"{OWNER}={owner}"})
    for container in found:
        try:
            container.remove(force=True, v=True)
        except DockerException as error:  # somebody else removes it, or the next run will
            print(f"holdfast: container {container.short_id} is left: {error}", file=sys.stderr)
    return len(found)


def main() -> None:
    """Wait for the owner's end, and clean up until nothing more turns up."""
    is_over = sys.stdin.buffer.read() == DONE
    client = docker.from_env()
    while leave_nothing(client, sys.argv[1]) or not is_over:
        is_over = True
        time.sleep(_SETTLE_S)


if __name__ == "__main__":
    main()
