"""What the hot path counts is served as metrics, and how full Redis is."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.hotpath.errors import NotNow
from app.infra.redis import metrics as redis_metrics
from app.infra.redis.clients import open_redis
from app.observability import metrics


def served() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample that /metrics serves: (name, labels) → value."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_commands_are_counted_and_timed_by_role(clients):
    """Their number, their batches, and a histogram that adds up."""
    assert await clients.hot.ready(60)
    redis_metrics.EXPORT.add_client("alone", clients.hot)  # others of this process are "hot", too
    alone = (("role", "alone"),)
    before = served()
    await asyncio.gather(*(clients.hot.execute("SET", f"k{number}", number) for number in range(50)))
    after = served()

    def grown(name: str, labels=alone) -> float:
        return after[name, labels] - before[name, labels]

    assert 50 <= grown("holdfast_redis_commands_total") <= 51  # one may ask whether the server lives
    assert 1 <= grown("holdfast_redis_batches_total") <= 3
    timed = grown("holdfast_redis_command_seconds_count")
    assert 1 <= timed <= 3
    assert grown("holdfast_redis_command_seconds_bucket", (("le", "+Inf"), *alone)) == timed
    assert 0 < grown("holdfast_redis_command_seconds_sum") < 1
    assert after["holdfast_redis_in_flight", alone] <= 1
    assert grown("holdfast_redis_errors_total") == 0


async def test_clients_that_are_closed_are_served_no_more(valkey):
    """A metric of something that is gone would stand still for ever."""

    def is_served(statistics) -> bool:
        return any(one.statistics is statistics for one in redis_metrics.EXPORT._clients)

    async with open_redis(valkey.url, None, "test", "short") as short:
        assert is_served(short.hot.statistics)
    assert not is_served(short.hot.statistics)


async def test_the_share_of_memory_is_served_while_redis_says_it(valkey, clients, monkeypatch):
    """Of maxmemory, of the machine's memory where there is no limit, and nothing where Redis is away."""
    monkeypatch.setattr(redis_metrics, "MEMORY_PAUSE_S", 0.02)
    assert await clients.hot.ready(60)
    watching = asyncio.create_task(redis_metrics.watch_memory(clients.hot))

    async def until(is_right) -> None:
        async with asyncio.timeout(60):
            while not is_right(served().get(("holdfast_redis_memory_ratio", ()))):
                await asyncio.sleep(0.01)

    try:
        await until(lambda ratio: ratio is not None and 0 < ratio < 0.1)
        await clients.hot.execute("CONFIG", "SET", "maxmemory", 10_000_000)
        await until(lambda ratio: ratio is not None and 0.05 < ratio < 1)
        await valkey.kill()
        await until(lambda ratio: ratio is None)
    finally:
        watching.cancel()
        redis_metrics.EXPORT.memory_ratio = redis_metrics.EXPORT.evicted_keys = None


@pytest.mark.parametrize("info", [b"used_memory:5\r\nmaxmemory:0\r\n", b"used_memory:5\r\n"])
def test_without_any_limit_there_is_no_ratio(info):
    """Some servers do not say how large their machine is."""
    assert redis_metrics._memory(info) == (None, None)


async def test_keys_that_redis_threw_out_are_counted(clients, monkeypatch):
    """As the server counts them: a cache that is too small shows."""
    monkeypatch.setattr(redis_metrics, "MEMORY_PAUSE_S", 0.02)
    assert await clients.hot.ready(60)
    watching = asyncio.create_task(redis_metrics.watch_memory(clients.hot))
    name = ("holdfast_redis_evicted_keys_total", ())
    try:
        await clients.hot.execute("SET", "thrown-out", 1)
        await clients.hot.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await clients.hot.execute("CONFIG", "SET", "maxmemory", 1)
        with suppress(NotNow):  # nothing is left to be thrown out
            await clients.hot.execute("SET", "another", 1)
        async with asyncio.timeout(60):
            while not served().get(name):
                await asyncio.sleep(0.01)
    finally:
        await clients.hot.execute("CONFIG", "SET", "maxmemory", 0)
        await clients.hot.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        watching.cancel()
        redis_metrics.EXPORT.memory_ratio = redis_metrics.EXPORT.evicted_keys = None
