"""Owns the questions "do you serve?" put to each kind of server, over the network as a client would.

Guarantees: an answer within the given seconds, True or False, never an exception. No drivers are imported,
so that `holdfast status` answers at once. Holds no state; a process that dies here loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
TIMEOUT_S = 1.0

Probe = Callable[[], Awaitable[bool]]

_PROTOCOL_3 = 196608


async def _ask(port: int, question: bytes, answer_bytes: int, timeout_s: float) -> bytes:
    """The first `answer_bytes` bytes (or fewer) of the answer to `question`; empty when there is none."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(question)
                await writer.drain()
                with contextlib.suppress(asyncio.IncompleteReadError):
                    return await reader.readexactly(answer_bytes)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        pass
    return b""


async def http_serves(port: int, path: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether GET `path` is answered with 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    status = await _ask(port, request.encode(), 12, timeout_s)
    return status.startswith(b"HTTP/1.") and status[9:12] == b"200"


async def failing_checks(port: int, timeout_s: float = TIMEOUT_S) -> list[str] | None:
    """What a mode's readiness finds failing (nothing: it is ready); None when there is no such answer."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(
                    f"GET /readyz HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode()
                )
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if head[9:12] == b"200":
            return []
        checks = json.loads(body)["checks"]
        return [str(name) for name, found in checks.items() if found != "ok"]
    except (OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        return None


async def redis_serves(port: int, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether PING is answered with PONG; a server that still loads its file says otherwise."""
    return await _ask(port, b"*1\r\n$4\r\nPING\r\n", 7, timeout_s) == b"+PONG\r\n"


async def postgres_serves(port: int, user: str, database: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the server asks for a password (it accepts connections) and not for patience."""
    body = struct.pack("!I", _PROTOCOL_3)
    body += b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
    return await _ask(port, struct.pack("!I", len(body) + 4) + body, 1, timeout_s) == b"R"


async def temporal_serves(http_port: int, namespace: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the namespace is there, asked at the frontend's HTTP port.

    Not through the Web UI: asked before the frontend listens, that does not try again for a second.
    """
    return await http_serves(http_port, f"/api/v1/namespaces/{namespace}", timeout_s)
