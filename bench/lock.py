"""The benchmark `lock`: pairs of acquire and release by 64 tasks of one process.

Each task has a lock of its own: what a lock costs where nobody waits. For information all 64 want the same
one, and change a number under it without any other protection. References: redis-py's Lock, and
L = 1 / (1 / SET + 1 / EVALSHA) of a load that does nothing else, one command in flight on a connection.

Processors are given as in the benchmark `redis`. Afterwards our locks must have been given away as often as
our side says, no lock may be left behind, and the number must be what all holders together made of it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import redis.asyncio

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.locks import Locks
from app.hotpath.subscriptions import Subscriptions
from bench.child import ChildSide, Run
from bench.harness import Contest, Effect, Figure, InSeries, Setting, Side
from bench.processor import CLIENT_CPU, SERVER_CPU
from bench.redis_benchmark import KEY, redis_benchmark
from bench.samples import BenchmarkFailed
from bench.servers import valkey

NAME = "lock"
TASKS = 64
LIFETIME_S = 10.0
DEADLINE_S = 5.0
"""redis-py's default; the deadline of every side here that has one."""
WAIT_S = 60.0
NUMBER = "bench:number"
OURS, THEIRS, COREDIS, GLIDE = "hot:", "redis-py:", "coredis:", "glide:"
PREFIXES = (OURS, THEIRS, COREDIS, GLIDE)
WIRE = "wire:"
WIRE_KEYS = 100_000
GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
SHORT_REPLY_BYTES = len(b"+OK\r\n")
NUMBER_REPLY_BYTES = len(b":0\r\n")

Pair = Callable[[int], Awaitable[object]]
"""Take the lock of the task of this number, do what is to be done under it, give it back."""


def name_of(task: int, *, shared: bool) -> str:
    """The name of a task's lock."""
    return "shared" if shared else f"task-{task}"


def pairs(pair: Pair) -> Run:
    """A run of 64 tasks, each taking its lock again when it has given it back."""

    async def task(number: int, end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            await pair(number)
            done += 1
        return done

    async def run(seconds: float) -> int:
        end = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(task(number, end) for number in range(TASKS))))

    return run


@asynccontextmanager
async def hot_path(url: str, *, shared: bool) -> AsyncIterator[Run]:
    """Ours."""
    address = Address.parse(url)
    async with (
        Client(address, name="bench", deadline_s=DEADLINE_S) as client,
        Subscriptions(address, name="bench-wakes") as subscriptions,
        Locks(client, subscriptions, prefix=OURS) as locks,
    ):
        if not await client.ready(DEADLINE_S):
            raise BenchmarkFailed("no connection")
        names = [name_of(task, shared=shared) for task in range(TASKS)]

        async def pair(task: int) -> None:
            async with locks.hold(names[task], lifetime_s=LIFETIME_S, wait_s=WAIT_S):
                pass

        async def change(task: int) -> None:
            async with locks.hold(names[task], lifetime_s=LIFETIME_S, wait_s=WAIT_S):
                number = int(await client.execute("GET", NUMBER) or 0)
                await client.execute("SET", NUMBER, number + 1)

        yield pairs(change if shared else pair)


@asynccontextmanager
async def redis_py(url: str, *, shared: bool) -> AsyncIterator[Run]:
    """redis-py's Lock, made once for each task, with hiredis and a connection for every task in the pool."""
    async with redis.asyncio.from_url(url, max_connections=TASKS, socket_timeout=DEADLINE_S) as client:
        names = [THEIRS + name_of(task, shared=shared) for task in range(TASKS)]
        locks = [client.lock(name, timeout=LIFETIME_S) for name in names]

        async def pair(task: int) -> None:
            async with locks[task]:
                pass

        async def change(task: int) -> None:
            async with locks[task]:
                number = int(await client.get(NUMBER) or 0)
                await client.set(NUMBER, number + 1)

        yield pairs(change if shared else pair)


@asynccontextmanager
async def coredis(url: str) -> AsyncIterator[Run]:
    """The Lock of coredis."""
    from coredis import Redis  # noqa: PLC0415 - a peer need not be installed
    from coredis.patterns.lock import Lock  # noqa: PLC0415 - the same

    async with Redis.from_url(url, max_connections=TASKS) as client:
        locks = [
            Lock(client, COREDIS + name_of(task, shared=False), timeout=LIFETIME_S) for task in range(TASKS)
        ]

        async def pair(task: int) -> None:
            async with locks[task]:
                pass

        yield pairs(pair)


@asynccontextmanager
async def valkey_glide(url: str) -> AsyncIterator[Run]:
    """What one writes with valkey-glide, which has no lock: SET NX PX, and a script that gives back."""
    from glide import (  # noqa: PLC0415 - a peer need not be installed
        ConditionalChange,
        ExpirySet,
        ExpiryType,
        GlideClient,
        GlideClientConfiguration,
        NodeAddress,
        Script,
    )

    address = Address.parse(url)
    nodes = [NodeAddress(address.host, address.port)]
    client = await GlideClient.create(GlideClientConfiguration(nodes, request_timeout=int(1000 * DEADLINE_S)))
    give_back = Script(GIVE_BACK)
    lifetime = ExpirySet(ExpiryType.MILLSEC, int(1000 * LIFETIME_S))

    async def pair(task: int) -> None:
        name = name_of(task, shared=False)
        key = GLIDE + name
        await client.set(key, name, conditional_set=ConditionalChange.ONLY_IF_DOES_NOT_EXIST, expiry=lifetime)
        if await client.invoke_script(give_back, keys=[key], args=[name]) != 1:
            raise BenchmarkFailed(f"{name} was not held")

    try:
        yield pairs(pair)
    finally:
        await client.close()


class _Sides:
    """The sides over one server."""

    def __init__(self, setting: Setting, url: str, pid: int) -> None:
        self._setting = setting
        self._url = url
        self._servers = {"valkey": pid}

    def client(self, name: str, factory: str, **options: bool) -> ChildSide:
        """A client in a process of its own."""
        return ChildSide(
            name,
            f"{__name__}:{factory}",
            {"url": self._url, **options},
            log=self._setting.log(name),
            cpu=CLIENT_CPU,
            servers=self._servers,
        )

    def wire(self, command: Sequence[str], reply_bytes: int) -> Side:
        """One command, never pipelined."""
        return redis_benchmark(
            command,
            reply_bytes,
            url=self._url,
            keys=WIRE_KEYS,
            pipeline=1,
            log=self._setting.log("raw-load"),
            servers=self._servers,
        )


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """Each task its own lock; then all the same."""
    async with valkey(setting, cpus=[SERVER_CPU]) as server:
        assert server.pid is not None
        sides = _Sides(setting, server.url, server.pid)
        async with redis.asyncio.from_url(server.url, decode_responses=True) as admin:
            key, lifetime_ms = WIRE + KEY, str(int(1000 * LIFETIME_S))
            give_back = ["EVALSHA", await admin.script_load(GIVE_BACK), "1", key, "token"]
            limit = InSeries(
                "SET, then EVALSHA, -P 1",
                sides.wire(["SET", key, "token", "NX", "PX", lifetime_ms], SHORT_REPLY_BYTES),
                sides.wire(give_back, NUMBER_REPLY_BYTES),
            )
            yield [_alone(sides, limit, admin), _contended(sides, admin)]


def _alone(sides: _Sides, limit: Side, admin: "redis.asyncio.Redis") -> Contest:
    async def effects(done: Mapping[str, float]) -> list[Effect]:
        given = sum([int(await admin.get(name) or 0) async for name in admin.scan_iter(f"{OURS}*:tokens")])
        return [Effect("locks of ours given away", done["hot path"], given), await _left(admin)]

    return Contest(
        ours=sides.client("hot path", "hot_path", shared=False),
        references=[sides.client("redis-py Lock", "redis_py", shared=False), limit],
        peers=[
            sides.client("coredis Lock", "coredis"),
            sides.client("valkey-glide, by hand", "valkey_glide"),
        ],
        figures=[
            Figure("vs_redis_py_lock", goal=15),
            Figure("vs_redis_benchmark_p1", goal=3, reference=limit.name),
        ],
        effects=effects,
        seconds=0.8,
    )


def _contended(sides: _Sides, admin: "redis.asyncio.Redis") -> Contest:
    async def effects(done: Mapping[str, float]) -> list[Effect]:
        number = int(await admin.get(NUMBER) or 0)
        return [Effect("changes under one lock", sum(done.values()), number), await _left(admin)]

    return Contest(
        ours=sides.client("hot path, one lock", "hot_path", shared=True),
        references=[sides.client("redis-py Lock, one lock", "redis_py", shared=True)],
        figures=[Figure("contended_vs_redis_py_lock", goal=None)],
        effects=effects,
        seconds=0.5,
    )


async def _left(admin: "redis.asyncio.Redis") -> Effect:
    """Keys of locks that are still there, without the counters that stay on purpose."""
    names = [str(name) for prefix in PREFIXES for name in await admin.keys(f"{prefix}*")]
    return Effect("locks left behind", 0, sum(not name.endswith(":tokens") for name in names))
