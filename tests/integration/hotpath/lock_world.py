"""What the tests of locks share: processes of their own making, and a look at what is left behind.

To the server a process is its connections, so several of them live in one test process here; those that must
be killed are in test_locks_processes.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from zlib import crc32

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.locks import SLOTS, Locks
from app.hotpath.subscriptions import Subscriptions

PREFIX = "hf:test:locks:"


@dataclass
class Process:
    """One process as the server sees it."""

    client: Client
    subscriptions: Subscriptions
    locks: Locks


@asynccontextmanager
async def process(
    url: str, *, deadline_s: float = 2.0, wakes_url: str | None = None
) -> AsyncIterator[Process]:
    """A process that is connected and hears its wakes, at another address if need be."""
    async with (
        Client(Address.parse(url), name="locks", deadline_s=deadline_s) as client,
        Subscriptions(Address.parse(wakes_url or url), name="lock-wakes") as subscriptions,
        Locks(client, subscriptions, prefix=PREFIX) as locks,
    ):
        assert await client.ready(60)
        await until(lambda: locks.is_listening)
        yield Process(client, subscriptions, locks)


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


def keys(name: str) -> tuple[str, str]:
    """The key that is there while the lock is held, and that of its tokens."""
    slot = f"{PREFIX}{{lock:{crc32(name.encode()) % SLOTS:x}}}:"
    return f"{slot}held:{name}", f"{slot}tokens"


async def queue(client: Client, name: str) -> list[bytes]:
    """The owners that stand in the server's line."""
    return await client.execute("LRANGE", keys(name)[0].replace("}:held:", "}:queue:", 1), 0, -1)


async def queued(client: Client, name: str, count: int) -> None:
    """Wait until so many places are taken in the server's line."""
    async with asyncio.timeout(60):
        while len(await queue(client, name)) != count:
            await asyncio.sleep(0.001)


async def left_behind(client: Client) -> set[bytes]:
    """Every key of locks but the counters of tokens, which stay for ever."""
    found = await client.execute("KEYS", f"{PREFIX}*")
    return {key for key in found if not key.endswith(b":tokens")}


async def nothing_is_left(client: Client, timeout_s: float = 60) -> None:
    """Wait until no lock and no place in a line is left."""
    async with asyncio.timeout(timeout_s):
        while await left_behind(client):
            await asyncio.sleep(0.005)
