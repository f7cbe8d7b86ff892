"""Hints arrive at once, cost nothing, and none is promised."""

import asyncio
import time

from app.infra.redis.clients import open_redis
from app.infra.redis.hints import Hints


async def settled(listener) -> None:
    """Wait for the hint that every new connection reports."""
    assert await listener.wait(5)


async def test_a_hint_arrives(clients):
    """Whoever listens hears it long before it would have polled."""
    hints = Hints(clients)
    listener = hints.listen("c")
    await settled(listener)
    assert not await listener.wait(0.05)
    hints.publish("c")
    assert await listener.wait(5)
    assert not await listener.wait(0.05)


async def test_hints_of_one_moment_are_one(clients):
    """A thousand commits in one tick are one message and one task."""
    hints = Hints(clients)
    before = (await clients.reads.info("commandstats")).get("cmdstat_publish", {}).get("calls", 0)
    tasks = len(asyncio.all_tasks())
    for _ in range(1000):
        hints.publish("c")
    assert len(asyncio.all_tasks()) == tasks + 1
    await hints._sending
    after = (await clients.reads.info("commandstats"))["cmdstat_publish"]["calls"]
    assert after == before + 1


async def test_a_reconnect_is_a_hint(valkey, clients):
    """What was published while nobody listened must not wait for the next hint."""
    listener = Hints(clients).listen("c")
    await settled(listener)
    await valkey.kill()
    assert not await listener.wait(0.2)
    await valkey.start()
    assert await listener.wait(10)


async def test_publishing_to_a_dead_server_is_silent(valkey):
    """A hint that cannot be sent is no error."""
    await valkey.kill()
    async with open_redis(valkey.url, None, "test", "test") as clients:
        hints = Hints(clients)
        started = time.perf_counter()
        for _ in range(1000):
            hints.publish("c")
        assert time.perf_counter() - started < 0.1
        await hints._sending
