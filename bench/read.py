"""The benchmark `read`: one order by its id, over HTTP, from one gateway.

Ours is the whole way of `GET /v1/orders/{id}`: a gateway as `holdfast up` starts it, authentication, budgets,
tags, the few per cent that go to PostgreSQL on purpose. The orders are completed ones. `redis_hit` reads more
of them, in turn, than the near cache holds; `near_hit` reads a few again and again. How many commands Redis
had to carry out for a read is counted in every run: where documents come from is measured, not supposed.

The reference is a bare Granian that always sends one of the very same answers, with as many headers, to the
same requests over as many connections.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg
import redis.asyncio

from app.domain.order import Order
from app.hotpath.near import ENTRIES_MAX
from app.infra.postgres.migrate import migrate
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from bench import load, placed, shop
from bench.child import ChildSide, Run
from bench.harness import Contest, Figure, Setting
from bench.intake import sample_of
from bench.modes import modes
from bench.processor import CLIENT_CPU, SERVER_CPU
from bench.references.bare import Answer
from bench.references.bare_process import bare
from bench.samples import BenchmarkFailed, Sample
from bench.servers import postgres, valkey

NAME = "read"
CONNECTIONS = 64
MANY = ENTRIES_MAX * 6 // 5
FEW = 50
SECONDS = 1.0
LINES = (("item-000007", 2), ("item-000101", 1))
_MADE_BY_THE_SERVER = frozenset({b"date", b"server"})
_PUT_AT_ONCE = 500
_CONNECT_S = 10.0


@asynccontextmanager
async def reads(
    port: int, api_key: str, dsn: str, orders: int, redis_url: str = "", commands_min: float = 0.0
) -> AsyncIterator[Run]:
    """The load: the newest orders one after another, each answered 200 or the run fails.

    `commands_min` is how many commands Redis has to be asked for a read, or the reads are not what they are
    called.
    """
    requests = [request(api_key, identity) for identity in await _ids(dsn, orders)]
    counting = redis.asyncio.from_url(redis_url) if redis_url else None
    at = 0

    async def run(seconds: float) -> Sample:
        nonlocal at
        before = await _commands(counting)
        turned = requests[at:] + requests[:at]  # where the last run ended: what it read is the newest
        plan = load.Plan(port=port, requests=turned, connections=CONNECTIONS, seconds=seconds)
        result = (await load.run(plan)).expect(200)
        at = (at + result.sent) % len(requests)
        sample = sample_of(result)
        commands = (await _commands(counting) - before) / result.sent
        if commands < commands_min:
            raise BenchmarkFailed(f"only {commands:.2f} commands of Redis a read")
        sample = Sample(
            sample.operations, sample.wall_s, sample.cpu_s, {**sample.values, "redis_commands": commands}
        )
        print(f"{sample.operations / sample.wall_s:,.0f}/s, {sample.values}", flush=True)
        return sample

    try:
        yield run
    finally:
        if counting is not None:
            await counting.aclose()


async def _ids(dsn: str, orders: int) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT id FROM orders ORDER BY id DESC LIMIT $1", orders)
    finally:
        await connection.close()
    return [row["id"] for row in rows]


async def _commands(client: "redis.asyncio.Redis | None") -> int:
    return 0 if client is None else int((await client.info("stats"))["total_commands_processed"])


def request(api_key: str, order_id: str) -> bytes:
    """What a client sends to read an order."""
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json", "User-Agent": "bench/1"}
    return load.get(f"/v1/orders/{order_id}", headers)


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """A contest for each place where a document may be."""
    async with postgres(setting) as database, valkey(setting, durable=True) as cache:
        await migrate(database.dsn)
        stack = modes(setting, dsn=database.dsn, redis_port=cache.port)
        await shop.stock_up(database.dsn, stack.api_key)
        orders = placed.alike(placed.completed("cust-0", LINES), MANY)
        await placed.put(database.dsn, orders)
        await _show(cache.url, orders)
        async with stack.running("gateway", cpus=[CLIENT_CPU]) as gateway:
            port = stack.port("gateway")
            answer = await _answer(port, stack.api_key, orders[0].id)
            async with bare(setting, "answer", answer, cpus=[CLIENT_CPU]) as same:
                servers = {"valkey": cache.pid, "postgres": database.pid}
                pids = {"gateway": gateway, **{name: pid for name, pid in servers.items() if pid}}

                def side(name: str, port: int, pids: Mapping[str, int], **more: object) -> ChildSide:
                    options = {"port": port, "api_key": stack.api_key, "dsn": database.dsn, **more}
                    log = setting.log("load-" + name.replace(",", "").replace(" ", "-"))
                    return ChildSide(name, "bench.read:reads", options, log=log, cpu=SERVER_CPU, servers=pids)

                def contest(figure: str, goal: float, count: int, commands_min: float) -> Contest:
                    many = {"orders": count, "redis_url": cache.url, "commands_min": commands_min}
                    return Contest(
                        ours=side(figure.replace("_", " "), port, pids, **many),
                        references=[
                            side(
                                f"bare Granian, {count:,} orders",
                                same.port,
                                {"server": same.pid},
                                orders=count,
                            )
                        ],
                        figures=[Figure(figure, goal=goal)],
                        seconds=SECONDS,
                    )

                yield [contest("redis_hit", 0.6, MANY, 0.5), contest("near_hit", 0.8, FEW, 0.0)]


async def _show(redis_url: str, orders: Sequence[Order]) -> None:
    """Put the orders' documents into Redis, as whoever committed their last change would have."""
    async with open_redis(redis_url, None, "dev", "bench") as clients:
        async with asyncio.timeout(_CONNECT_S):
            while not clients.hot.is_up:
                await asyncio.sleep(0.01)
        documents = Documents(clients, "dev")
        for at in range(0, len(orders), _PUT_AT_ONCE):
            await documents.put_all(orders[at : at + _PUT_AT_ONCE], deadline_s=10)


async def _answer(port: int, api_key: str, order_id: str) -> Answer:
    """What the gateway answers, for the reference to answer the same."""
    plan = load.Plan(
        port=port, requests=[request(api_key, order_id)], connections=1, repeat=False, keep=frozenset({0})
    )
    kept = (await load.run(plan)).expect(200).kept[0]
    headers = [(n.decode(), v.decode()) for n, v in kept.headers if n not in _MADE_BY_THE_SERVER]
    return Answer(kept.status, headers, kept.body.decode())
