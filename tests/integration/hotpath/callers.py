"""What callers of the hot path do: open a client, wait for something, say how a command ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import HotpathError

PATIENT_S = 10.0
"""A deadline for commands that must not fail, on a machine that is busy."""


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Client]:
    """A client with a connection. Its commands have 10 s unless told otherwise."""
    options.setdefault("deadline_s", PATIENT_S)
    async with Client(Address.parse(url), name=options.pop("name", "test"), **options) as client:
        assert await client.ready(PATIENT_S)
        yield client


async def ended(command: Awaitable[Any]) -> Any:
    """A command's answer, or the error it ended in."""
    try:
        return await command
    except HotpathError as error:
        return error


async def works(client: Client) -> bool:
    """Whether a command is answered now."""
    try:
        return bool(await client.execute("PING", deadline_s=0.5) == b"PONG")
    except HotpathError:
        return False


async def until(
    is_so: Callable[[], object] | Callable[[], Awaitable[object]], what: str, within_s: float = 60
) -> float:
    """Wait for a condition; how long it took, in seconds."""
    started = time.monotonic()
    while True:
        answer = is_so()
        if await answer if isinstance(answer, Awaitable) else answer:
            return time.monotonic() - started
        assert time.monotonic() - started < within_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.005)
