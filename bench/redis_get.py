"""The benchmark `redis`: GET by 64 tasks of one process, over the hot path and over other clients.

Values of 512 bytes, about an order's document; every client compares every reply with what was stored.
Server and client have a processor each, the same for all sides; each client is a process of its own on
uvloop. Afterwards the server's own count of GETs must be the sum of what all sides say they did.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import redis.asyncio

from app.hotpath.address import Address
from app.hotpath.client import Client
from bench.child import ChildSide, Run
from bench.harness import Contest, Effect, Figure, Setting
from bench.processor import CLIENT_CPU, SERVER_CPU
from bench.redis_benchmark import KEY, redis_benchmark
from bench.samples import BenchmarkFailed
from bench.servers import valkey

NAME = "redis"
TASKS = 64
DEADLINE_S = 5.0
"""redis-py's default; the deadline of every side here that has one."""
VALUE = bytes(ord("a") + place % 26 for place in range(512))
REPLY_BYTES = len(b"$512\r\n\r\n") + len(VALUE)

Get = Callable[[str], Awaitable[object]]


def key(number: int) -> str:
    """The key of one task."""
    return f"bench:{number:012d}"


def getting(get: Get, value: object = VALUE) -> Run:
    """A run of 64 tasks, each with a key of its own, each asking again when it has its answer."""

    async def task(name: str, end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            if await get(name) != value:
                raise BenchmarkFailed(f"{name} was answered wrongly")
            done += 1
        return done

    async def run(seconds: float) -> int:
        end = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(task(key(number), end) for number in range(TASKS))))

    return run


@asynccontextmanager
async def hot_path(url: str) -> AsyncIterator[Run]:
    """Ours: one connection for all tasks."""
    async with Client(Address.parse(url), name="bench", deadline_s=DEADLINE_S) as client:
        if not await client.ready(DEADLINE_S):
            raise BenchmarkFailed("no connection")
        execute = client.execute
        yield getting(lambda name: execute("GET", name, safe=True))


@asynccontextmanager
async def redis_py(url: str) -> AsyncIterator[Run]:
    """redis-py with hiredis and a connection for every task in its pool."""
    async with redis.asyncio.from_url(url, max_connections=TASKS, socket_timeout=DEADLINE_S) as client:
        yield getting(client.get)


@asynccontextmanager
async def coredis(url: str) -> AsyncIterator[Run]:
    """The client coredis, with a pool of its own making."""
    from coredis import Redis  # noqa: PLC0415 - a peer need not be installed

    async with Redis.from_url(url, max_connections=TASKS) as client:
        yield getting(client.get)


@asynccontextmanager
async def valkey_glide(url: str) -> AsyncIterator[Run]:
    """valkey-glide: one multiplexed connection, driven by a core in Rust."""
    from glide import GlideClient, GlideClientConfiguration, NodeAddress  # noqa: PLC0415 - the same

    address = Address.parse(url)
    nodes = [NodeAddress(address.host, address.port)]
    client = await GlideClient.create(GlideClientConfiguration(nodes, request_timeout=int(1000 * DEADLINE_S)))
    try:
        yield getting(client.get)
    finally:
        await client.close()


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """All clients against one server."""
    async with valkey(setting, cpus=[SERVER_CPU]) as server:
        pid = server.pid
        assert pid is not None
        servers = {"valkey": pid}

        def client(name: str, factory: str) -> ChildSide:
            return ChildSide(
                name,
                f"{__name__}:{factory}",
                {"url": server.url},
                log=setting.log(name),
                cpu=CLIENT_CPU,
                servers=servers,
            )

        wire = redis_benchmark(
            ["GET", f"bench:{KEY}"],
            REPLY_BYTES,
            url=server.url,
            keys=TASKS,
            pipeline=16,
            log=setting.log("raw-load"),
            servers=servers,
        )
        async with redis.asyncio.from_url(server.url) as admin:
            await admin.mset({key(number): VALUE for number in range(TASKS)})

            async def effects(done: Mapping[str, float]) -> list[Effect]:
                served = await admin.info("commandstats")
                return [Effect("GETs served", sum(done.values()), served["cmdstat_get"]["calls"])]

            yield [
                Contest(
                    ours=client("hot path", "hot_path"),
                    references=[client("redis-py", "redis_py"), wire],
                    peers=[client("coredis", "coredis"), client("valkey-glide", "valkey_glide")],
                    figures=[
                        Figure("get_vs_redis_py", goal=12),
                        Figure("get_vs_redis_benchmark_p16", goal=0.2, reference=wire.name),
                    ],
                    effects=effects,
                )
            ]
