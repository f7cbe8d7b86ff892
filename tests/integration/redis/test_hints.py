"""Hints arrive at once, cost nothing, and none is promised."""

import asyncio
import time

from app.infra.redis.clients import open_redis
from app.infra.redis.hints import Hints
from tests.busy import BUSY_S


async def settled(listener) -> None:
    """Wait for the hint that every new connection reports."""
    assert await listener.wait(60)


async def test_a_hint_arrives(clients):
    """Whoever listens hears it long before it would have polled."""
    hints = Hints(clients)
    listener = hints.listen("c")
    await settled(listener)
    assert not await listener.wait(0.05)
    hints.publish("c")
    assert await listener.wait(60)
    assert not await listener.wait(0.05)


async def published(clients) -> int:
    """How many hints the server was told."""
    return (await clients.reads.info("commandstats")).get("cmdstat_publish", {}).get("calls", 0)


async def sent(hints) -> None:
    """Wait until nothing waits to be sent."""
    async with asyncio.timeout(60):
        while hints._sending is not None:
            await asyncio.sleep(0.001)


async def test_hints_of_one_moment_are_one(clients):
    """A thousand commits in one tick are one message and no task; what follows within the gap is one more."""
    hints = Hints(clients)
    assert await clients.hot.ready(60)
    before = await published(clients)
    tasks = len(asyncio.all_tasks())
    for _ in range(1000):
        hints.publish("c")
    assert len(asyncio.all_tasks()) == tasks
    await asyncio.sleep(0)
    for _ in range(1000):
        hints.publish("c")
    await sent(hints)
    assert await published(clients) == before + 2


async def test_channels_do_not_wait_for_each_other(clients):
    """Hints of one moment on two channels are both sent at once."""
    hints = Hints(clients)
    listeners = [hints.listen("c"), hints.listen("d")]
    for listener in listeners:
        await settled(listener)
    hints.publish("c")
    hints.publish("d")
    assert await asyncio.gather(*(listener.wait(60) for listener in listeners)) == [True, True]


async def test_a_listener_that_is_closed_hears_nothing(clients):
    """Another listener of the channel goes on."""
    hints = Hints(clients)
    closed, other = hints.listen("c"), hints.listen("c")
    await settled(closed)
    await settled(other)
    await closed.close()
    hints.publish("c")
    assert await other.wait(60)
    assert not await closed.wait(0)
    closed.wake()
    assert await closed.wait(0)


async def test_a_reconnect_is_a_hint(valkey, clients):
    """What was published while nobody listened must not wait for the next hint."""
    listener = Hints(clients).listen("c")
    await settled(listener)
    await valkey.kill()
    assert not await listener.wait(0.2)
    await valkey.start()
    assert await listener.wait(60)


async def test_publishing_to_a_dead_server_is_silent(valkey):
    """A hint that cannot be sent is no error."""
    await valkey.kill()
    async with open_redis(valkey.url, None, "test", "test") as clients:
        hints = Hints(clients)
        started = time.perf_counter()
        for _ in range(1000):
            hints.publish("c")
        assert time.perf_counter() - started < 0.1 + BUSY_S
        await sent(hints)
