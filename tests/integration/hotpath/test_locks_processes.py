"""Real processes, killed in the middle: one holder at a time, and the dead hold nobody up for long."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from app.hotpath.address import Address
from app.hotpath.client import Client
from tests.busy import BUSY_S
from tests.integration.hotpath.lock_world import keys, nothing_is_left

TASKS = 50


@pytest.fixture
async def client(redis_url) -> AsyncIterator[Client]:
    """Looks on."""
    async with Client(Address.parse(redis_url), name="onlooker", deadline_s=5) as opened:
        yield opened


@asynccontextmanager
async def worker(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of lock_worker.py that has begun; killed at the end."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.hotpath.lock_worker", url, str(TASKS)),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    assert started.stdout is not None
    try:
        assert await started.stdout.readline() == b"ready\n"
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def turns(client: Client) -> int:
    """How often the counter was written."""
    return await client.execute("LLEN", "log")


async def more_turns(client: Client, count: int, timeout_s: float = 60) -> float:
    """Wait for so many more; in how many seconds they came."""
    loop = asyncio.get_running_loop()
    started, before = loop.time(), await turns(client)
    async with asyncio.timeout(timeout_s):
        while await turns(client) < before + count:
            await asyncio.sleep(0.01)
    return loop.time() - started


async def test_four_processes_one_holder_with_kills_and_resets(client, redis_url):
    """200 tasks in 4 processes; two are killed and replaced, all connections are reset again and again."""
    held_key = keys("n")[0]
    queue_key = held_key.replace("}:held:", "}:queue:", 1)
    async with AsyncExitStack() as stack:
        workers = await asyncio.gather(*(stack.enter_async_context(worker(redis_url)) for _ in range(4)))
        await more_turns(client, 200)
        for victim in workers[:2]:
            victim.kill()
            await victim.wait()
            await stack.enter_async_context(worker(redis_url))
            # At most the dead one's lifetime (3 s) passes before the others go on.
            assert await more_turns(client, 50) < 10 + BUSY_S
        for _ in range(5):
            await client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await client.execute("CLIENT", "KILL", "TYPE", "pubsub")
            await more_turns(client, 50)
        owners = set()
        async with asyncio.timeout(60):
            while len(owners) < 4:  # nobody is starved
                holder = await client.execute("GET", held_key)
                owners.add((holder or b"").partition(b".")[0])
                owners.discard(b"")
    log = [entry.split(b":") for entry in await client.execute("LRANGE", "log", 0, -1)]
    numbers = [int(number) for number, _ in log]
    tokens = [int(token) for _, token in log]
    assert numbers == list(range(1, len(log) + 1))
    assert all(older < newer for older, newer in pairwise(tokens))
    # All are dead now. The queue is kept as long as somebody might still ask, and then it goes by itself.
    assert await client.execute("PTTL", queue_key) <= 30_000
    await client.execute("DEL", queue_key)
    await nothing_is_left(client)
