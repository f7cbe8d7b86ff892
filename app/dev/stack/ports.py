"""Owns which port each server of a stack has.

Guarantees: a port stays the same from run to run as long as it is free; no two servers get the same one, not
even of stacks that start together; a port that had to move is said so. They are remembered in a file of the
data folder. If the process dies here, the file is the old or the new one, never a half.
"""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

from app.dev.stack.errors import StackError
from app.dev.stack.probes import HOST

USUAL = {
    "postgres": 5432,
    "redis": 6379,
    "temporal": 7233,
    "temporal_http": 7243,
    "temporal_ui": 8233,
    "sandbox": 8090,
    "smtp": 1025,
    "gateway": 8080,
    "worker": 8081,
    "consumer": 8082,
}
_STEP = (
    100  # away from the usual neighbours, and below the range from which the kernel takes ports for clients
)
_TRIES = 95
_SERVERS = (20_000, 32_000)
"""Linux gives clients ports from 32,768 on."""


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A port that is free now, and that the kernel gives to no client.

    From its own range a client that keeps on dialling a dead server gets, now and then, that server's port:
    it talks to itself, and the server cannot start again.
    """
    while not is_free(port := random.randrange(*_SERVERS)):  # noqa: S311 - no secret
        pass
    return port


def remembered(file: Path) -> dict[str, int]:
    """The ports of the last run; empty when there was none or the file cannot be read."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: port
        for name, port in found.items()
        if name in USUAL and isinstance(port, int) and 0 < port < 65536
    }


class Claims:
    """The ports that this process keeps for its servers, so that stacks that start together do not clash.

    A claim is the name of an abstract socket: it belongs to the network namespace, as the ports do, and ends
    with the process.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self, port: int) -> bool:
        """Claim the port; False when it is in use, or claimed by another stack that has yet to use it."""
        if not is_free(port):
            return False
        if port not in self._held:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0holdfast-port-{port}")
            except OSError:
                claim.close()
                return False
            self._held[port] = claim
        return True

    def release(self) -> None:
        """Give all claims up."""
        for claim in self._held.values():
            claim.close()
        self._held.clear()


def choose(
    last: dict[str, int], claims: Claims, gateway: int | None = None
) -> tuple[dict[str, int], str | None]:
    """A claimed port for every server, and a sentence when some are not where they were or usually are.

    `gateway` is a port asked for by name: StackError when it is taken.
    """
    chosen: dict[str, int] = {}
    moved = []
    if gateway is not None:
        if not claims.take(gateway):
            raise StackError(
                f"Port {gateway}, asked for by --gateway-port, is in use by another program. "
                "Stop that, name another port, or leave the option out for a free one."
            )
        chosen["gateway"] = gateway
    # Remembered ports come first, so that a server that has to move does not take a neighbour's.
    spoken_for = {gateway, *last.values()}
    for name, usual in USUAL.items():
        if name in chosen:
            continue
        wanted = last.get(name, usual)
        others = spoken_for if name not in last else set()
        if wanted not in {*chosen.values(), *others} and claims.take(wanted):
            chosen[name] = wanted
            continue
        chosen[name] = _next_free(usual, {*spoken_for, *chosen.values()}, claims)
        moved.append(f"{name} {chosen[name]} (not {wanted})")
    if not moved:
        return chosen, None
    return chosen, f"Taken ports are replaced by free ones: {', '.join(moved)}."


def _next_free(usual: int, taken: set[int | None], claims: Claims) -> int:
    for tries in range(_TRIES):
        port = usual + tries * _STEP
        if port not in taken and claims.take(port):
            return port
    while not claims.take(port := any_free()):
        pass
    return port
