"""The benchmark `hot-sku`: reservations when everybody wants the same thing.

Ours is the step that a worker runs, `PostgresOrders.reserve`, for orders that were accepted (they are put in
place in bulk, which is not timed): each locks its order and the shelf, decides, and writes state, event,
outbox row, reservation and stock, durably. As many callers at once as a worker runs steps, over as many
connections as a worker has, announced over Redis as a worker does.

References: pgbench running the one-row conditional UPDATE that reserves a piece and does nothing else, with
its best number of clients; and ours over many SKUs. What was reserved is counted in PostgreSQL afterwards.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from app.contracts import streams
from app.domain.errors import Refusal
from app.domain.order import StockStatus
from app.infra.postgres.migrate import migrate
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.redis.clients import open_redis
from app.infra.redis.hints import Hints
from app.workers.run import ACTIVITIES_MAX
from bench import placed, shop
from bench.child import ChildSide, Run
from bench.harness import Contest, Effect, Figure, Setting
from bench.processor import CLIENT_CPU
from bench.references.pgbench import PgBench
from bench.samples import BenchmarkFailed, Sample
from bench.servers import postgres, valkey

NAME = "hot-sku"
MANY = 1_000
HOT = MANY
ROW = MANY + 1
CONNECTIONS = 10
"""Of a worker: what DATABASE_POOL_SIZE is unless somebody says otherwise."""
SECONDS = 1.0
WAREHOUSE = "east"


class _Orders:
    """Accepted orders of one piece each, put in place before they are needed."""

    def __init__(self, dsn: str, skus: Sequence[str]) -> None:
        self._dsn = dsn
        self._skus = skus
        self.left: deque[str] = deque()

    async def prepare(self, wanted: int) -> None:
        """Have at least so many."""
        made = [
            placed.accepted(f"cust-{random.getrandbits(40):010x}", [(random.choice(self._skus), 1)])
            for _ in range(wanted - len(self.left))
        ]
        if made:
            await placed.put(self._dsn, [order for order, _ in made], [placed.linked(*pair) for pair in made])
            self.left.extend(order.id for order, _ in made)


@asynccontextmanager
async def reservations(dsn: str, redis_url: str, skus: list[str]) -> AsyncIterator[Run]:
    """Callers that reserve, each one order after another."""
    async with AsyncExitStack() as stack:
        database = await Database(dsn, size=CONNECTIONS, name="worker").open()
        stack.push_async_callback(database.close)
        hints = Hints(await stack.enter_async_context(open_redis(redis_url, None, "dev", "worker")))
        channel = streams.hint_event_outbox("dev")
        orders = PostgresOrders(database, announce=lambda: hints.publish(channel))
        waiting = _Orders(dsn, skus)
        rate = 2_000.0

        async def run(seconds: float) -> Sample:
            nonlocal rate
            await waiting.prepare(int(rate * seconds * 1.5) + ACTIVITIES_MAX)
            sample = await _timed(orders, waiting.left, seconds)
            rate = max(rate, sample.operations / sample.wall_s)
            return sample

        yield run


async def _timed(orders: PostgresOrders, left: deque[str], seconds: float) -> Sample:
    cpu, began = time.process_time(), time.perf_counter()
    until = began + seconds
    waited: list[float] = []

    async def caller() -> None:
        while left and (now := time.perf_counter()) < until:
            answer = await orders.reserve(left.popleft())
            if isinstance(answer, Refusal) or answer.stock is not StockStatus.RESERVED:
                raise BenchmarkFailed(f"not reserved: {answer}")
            waited.append(time.perf_counter() - now)

    await asyncio.gather(*(caller() for _ in range(ACTIVITIES_MAX)))
    wall_s = time.perf_counter() - began
    waited.sort()
    values = {"p50_ms": 1000 * waited[len(waited) // 2], "max_ms": 1000 * waited[-1]}
    return Sample(len(waited), wall_s, {"client": time.process_time() - cpu}, values)


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """One contest with two references."""
    async with postgres(setting) as database, valkey(setting, durable=True) as redis:
        await migrate(database.dsn)
        await shop.stock_up(database.dsn, "unused", skus=MANY + 2, warehouses=[WAREHOUSE])
        assert database.pid is not None
        servers = {"postgres": database.pid}

        def reserving(name: str, skus: Sequence[str]) -> ChildSide:
            options = {"dsn": database.dsn, "redis_url": redis.url, "skus": skus}
            log = setting.log(name.replace(" ", "-"))
            return ChildSide(
                name, "bench.hot_sku:reservations", options, log=log, cpu=CLIENT_CPU, servers=servers
            )

        hot = reserving("one SKU", [shop.sku(HOT)])
        uniform = reserving(f"{MANY:,} SKUs", [shop.sku(number) for number in range(MANY)])
        shelf = f"sku = '{shop.sku(ROW)}' AND warehouse = '{WAREHOUSE}'"
        row = PgBench(
            "pgbench, one row",
            database.dsn,
            f"UPDATE stock SET reserved = reserved + 1 WHERE {shelf} AND on_hand - reserved >= 1",
            reset=f"UPDATE stock SET reserved = 0 WHERE {shelf}",
            folder=setting.folder,
            cpu=CLIENT_CPU,
            servers=servers,
        )

        async def effects(totals: Mapping[str, float]) -> Sequence[Effect]:
            return await _effects(database.dsn, totals[hot.name], totals[uniform.name], totals[row.name])

        yield [
            Contest(
                ours=hot,
                references=[row, uniform],
                figures=[
                    Figure("vs_one_row_update", goal=10, reference=row.name),
                    Figure("hot_vs_uniform", goal=0.9, reference=uniform.name),
                ],
                effects=effects,
                seconds=SECONDS,
            )
        ]


async def _effects(dsn: str, hot: float, uniform: float, row: float) -> list[Effect]:
    """What is in PostgreSQL for everything that was reserved."""
    one, other = shop.sku(HOT), shop.sku(ROW)
    counted = {
        "pieces reserved of the one SKU": (f"SELECT sum(reserved) FROM stock WHERE sku = '{one}'", hot),
        "its reservations": (f"SELECT count(*) FROM reservations WHERE sku = '{one}'", hot),
        "reservations of the others": (f"SELECT count(*) FROM reservations WHERE sku <> '{one}'", uniform),
        "orders with their stock": ("SELECT count(*) FROM orders WHERE stock = 'reserved'", hot + uniform),
        "events of it": ("SELECT count(*) FROM events WHERE type = 'inventory.reserved.v1'", hot + uniform),
        "updates of the one row": (f"SELECT sum(reserved) FROM stock WHERE sku = '{other}'", row),
    }
    connection = await asyncpg.connect(dsn)
    try:
        return [
            Effect(what, expected, float(await connection.fetchval(query)))
            for what, (query, expected) in counted.items()
        ]
    finally:
        await connection.close()
