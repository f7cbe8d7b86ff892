"""Health of a worker or consumer: `/livez`, `/readyz`, `/startupz` and `/metrics` on HEALTH_PORT.

Liveness asks nothing but this process, and what answers has started: to start anew brings nobody back who is
away. Readiness asks the checks it was given; of those, `reported` ones are shown and do not count. The server
is a few lines of asyncio on purpose: it must answer when everything else in the process is busy being broken.
"""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from app.observability import metrics

Check = Callable[[], Awaitable[bool]]
"""Whether something is well; it may raise, which means no."""

Exposition = Callable[[], Awaitable[bytes]]
"""Makes the metrics in Prometheus' text format; it neither raises nor asks a server."""

CHECK_TIMEOUT_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 5.0


class CannotListenError(SystemExit):
    """Nothing can listen there. Where nobody catches it, the program ends with 1 and with its one line."""

    def __init__(self, variable: str, host: str, port: int, error: OSError) -> None:
        """Blame `variable`, which names the port, or LISTEN_HOST where the address is the trouble."""
        is_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        blamed = f"LISTEN_HOST {host}" if is_host else f"{variable} {port}"
        known = not isinstance(error, socket.gaierror) and error.errno
        why = os.strerror(error.errno) if known and error.errno else error.strerror or str(error)
        super().__init__(f"holdfast: {blamed} cannot be listened on: {why}")


async def report(checks: Mapping[str, Check], reported: Collection[str] = ()) -> tuple[bool, bytes]:
    """Run all checks at once, each a second at most; whether those that count are well, and an account."""
    checks = dict(checks)  # a mode that starts adds to its own while this waits
    answers = await asyncio.gather(*(_ask(check) for check in checks.values()))
    account = dict(zip(checks, ("ok" if well else "failing" for well in answers), strict=True))
    well = all(answer for name, answer in zip(checks, answers, strict=True) if name not in reported)
    return well, msgspec.json.encode({"status": "ok" if well else "failing", "checks": account})


async def _ask(check: Check) -> bool:
    try:
        return await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - whatever it is, it is not well
        return False


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    checks: Mapping[str, Check],
    reported: Collection[str] = (),
    exposition: Exposition = metrics.exposition_of_ours,
) -> AsyncIterator[None]:
    """Answer health requests inside the block; `exposition` makes what `/metrics` says.

    Raises CannotListenError when the port is taken.
    """

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode("latin-1")
                if path == "/metrics":
                    writer.write(_response(200, await exposition(), metrics.CONTENT_TYPE))
                else:
                    writer.write(await _answer(path, checks, reported))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(connection, host, port, limit=16_384)
    except OSError as error:
        raise CannotListenError("HEALTH_PORT", host, port, error) from None
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def _answer(path: str, checks: Mapping[str, Check], reported: Collection[str]) -> bytes:
    if path in {"/livez", "/startupz"}:
        return _response(200, b'{"status":"ok"}')
    if path == "/readyz":
        well, account = await report(checks, reported)
        return _response(200 if well else 503, account)
    return _response(404, b'{"status":"not found"}')


def _response(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    reason = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body
