"""The benchmark `redis`: GET by 64 tasks of one process, over the hot path and over other clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import redis.asyncio

from bench.child import ChildSide, Run
from bench.harness import Contest, Figure, Setting
from bench.processor import CLIENT_CPU, SERVER_CPU
from bench.servers import valkey

NAME = "redis"
TASKS = 64


@asynccontextmanager
async def redis_py(url: str) -> AsyncIterator[Run]:
    """redis-py."""
    async with redis.asyncio.from_url(url, max_connections=TASKS) as client:

        async def run(seconds: float) -> int:
            end, done = time.perf_counter() + seconds, 0

            async def task(number: int) -> None:
                nonlocal done
                while time.perf_counter() < end:
                    await client.get(f"bench:{number}")
                    done += 1

            await asyncio.gather(*(task(number) for number in range(TASKS)))
            return done

        yield run


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """One contest."""
    async with valkey(setting, cpus=[SERVER_CPU]) as server:
        pid = server.pid
        assert pid is not None

        def side(name: str, factory: str) -> ChildSide:
            return ChildSide(
                name,
                f"bench.redis_get:{factory}",
                {"url": server.url},
                log=setting.log(name),
                cpu=CLIENT_CPU,
                servers={"valkey": pid},
            )

        yield [
            Contest(
                ours=side("hot path", "redis_py"),
                references=[side("redis-py", "redis_py")],
                figures=[Figure("get_vs_redis_py", goal=12)],
                seconds=0.3,
            )
        ]
