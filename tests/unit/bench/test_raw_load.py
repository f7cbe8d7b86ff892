"""The stand-in for redis-benchmark, on a real server."""

import pytest
import redis.asyncio

from bench.raw_load import load
from bench.samples import BenchmarkFailed

VALUE = b"x" * 512
REPLY_BYTES = len(b"$512\r\n\r\n") + len(VALUE)
GET = ["GET", "bench:__rand_int__"]


async def calls(admin, name: str) -> int:
    """How often the server was asked so."""
    return (await admin.info("commandstats")).get(f"cmdstat_{name}", {"calls": 0})["calls"]


@pytest.mark.parametrize("pipeline", [1, 16])
async def test_it_counts_exactly_what_the_server_served(redis_url, pipeline: int):
    """With and without pipelining."""
    async with redis.asyncio.from_url(redis_url) as admin:
        await admin.mset({f"bench:{number:012d}": VALUE for number in range(4)})
        before = await calls(admin, "get")
        async with load(redis_url, GET, REPLY_BYTES, 4, pipeline, 3) as run:
            done = await run(0.05) + await run(0.05)
        assert done == await calls(admin, "get") - before > 0
        assert done % pipeline == 0


@pytest.mark.parametrize(
    ("command", "reply_bytes"), [(["HGET", "bench:0", "x"], 5), (GET, 100), (["GET", "missing"], 6)]
)
async def test_a_reply_that_is_not_as_expected_fails_it(
    redis_url, command: list[str], reply_bytes: int, monkeypatch
):
    """An error, a longer one, a shorter one."""
    monkeypatch.setattr("bench.raw_load.WAIT_S", 0.1)
    async with redis.asyncio.from_url(redis_url) as admin:
        await admin.mset({"bench:0": VALUE, "bench:000000000000": VALUE})
    async with load(redis_url, command, reply_bytes, 1, 1, 2) as run:
        with pytest.raises(BenchmarkFailed):
            await run(0.05)
