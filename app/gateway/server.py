"""Granian inside this process: one process a gateway, so that a kill ends one and only one.

The embedded server shares our event loop and leaves signals to us. It takes its port with SO_REUSEPORT, by
which two gateways would quietly share it; `check_port` refuses that. Its `backpressure` counts connections,
idle ones too, and lets more wait unheard; so it is set far above what the edge refuses with an answer.

Told to stop, Granian closes idle connections at once, and with them the requests that are just on their way.
So we linger before that: the server goes on serving, readiness says no, and each answer closes its
connection, until there is none left, or nobody asked for `LINGER_S`. Who is silent for so long is closed
unasked.
"""

import asyncio
import resource
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from app.gateway.connections import connected
from app.observability.logging import logger

CONNECTIONS_MAX: Final = 8_192
BACKLOG: Final = 4_096
"""Connections that wait to be taken; the kernel may have a lower limit of its own (`net.core.somaxconn`)."""
HEAD_TIMEOUT_MS: Final = 10_000
LINGER_S: Final = 1.0
"""How long nobody must have asked; never more than a quarter of the time that there is."""
LINGERS_MAX: Final = 3
"""How many times that it lasts at most, while requests go on coming."""
LOOK_S: Final = 0.05
_DESCRIPTORS_SPARE: Final = 256

log = logger("server")


def check_port(host: str, port: int) -> None:
    """Raises OSError where somebody listens on the port already, or we may not."""
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _connections() -> int:
    """As many connections as the process may have files open, within our own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + _DESCRIPTORS_SPARE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed - _DESCRIPTORS_SPARE, _DESCRIPTORS_SPARE)


async def serve(
    app: Callable[..., Any],
    host: str,
    port: int,
    stopping: asyncio.Event,
    *,
    drain: Callable[[], None],
    shutdown_timeout_s: float,
    linger_s: float = 0.0,
    asked_late: Callable[[], int] = int,
) -> bool:
    """Serve until `stopping`, then finish what is held; False when the server ended by itself.

    `drain` is called first: it shortens what could be held for long and has answers close their connections.
    That is waited for until for `linger_s` seconds nothing was asked (`asked_late` counts); whoever connects
    is still served.
    """
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_TIMEOUT_MS),
        websockets=False,
        backlog=BACKLOG,
        backpressure=_connections(),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        told.cancel()
        log.error("http_server_ended", exc_info=serving.exception())
        return False
    drain()
    ends_at = monotonic() + shutdown_timeout_s
    await linger(port, min(linger_s, shutdown_timeout_s / 4), asked_late)
    server.stop()  # type: ignore[no-untyped-call]
    _, held = await asyncio.wait((serving,), timeout=ends_at - monotonic())
    if held:
        log.warning("gave_up_on_held_requests", waited_s=shutdown_timeout_s)
        serving.cancel()
    return True


async def linger(port: int, seconds: float, asked_late: Callable[[], int]) -> None:
    """Wait until nobody is connected to our port any more, or nobody has asked for so many seconds."""
    ends_at = monotonic() + LINGERS_MAX * seconds
    asked, quiet_at = asked_late(), monotonic() + seconds
    while monotonic() < min(quiet_at, ends_at) and connected(port):
        await asyncio.sleep(LOOK_S)
        if asked_late() != asked:
            asked, quiet_at = asked_late(), monotonic() + seconds
