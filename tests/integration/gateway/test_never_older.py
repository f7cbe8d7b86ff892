"""Nothing read is older than two seconds behind PostgreSQL's, whatever Redis and the network do."""

import asyncio
from contextlib import AsyncExitStack, suppress
from random import Random
from time import monotonic

import asyncpg
import msgspec
import pytest

from app.domain.errors import Unavailable
from app.gateway.cached_orders import CachedOrders
from app.hotpath.errors import HotpathError
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from tests.integration.postgres.shop import Shop
from tests.proxy import FAULTS, FaultProxy

BOUND_S = 2.0
ORDERS = 6
READERS = 6
FINAL_AFTER = 120

CHANGE = """
UPDATE orders SET waiting_on = $2, status = $3, version = version + $4, updated_at = clock_timestamp()
WHERE id = $1
"""


class State(msgspec.Struct):
    """The part of a document that these tests count in."""

    id: str
    waiting_on: str | None


class History:
    """Which state each order is in, and when each state was replaced, as who waited for the commit saw it."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.current = dict.fromkeys(names, 0)
        self.replaced_at: dict[tuple[str, int], float] = {}
        self.is_over = False
        self.reads = self.unavailable = 0
        self.oldest_s = 0.0
        self.wrong: list[str] = []

    def replaced(self, name: str) -> None:
        """The order has just got its next state."""
        self.replaced_at[name, self.current[name]] = monotonic()
        self.current[name] += 1

    def saw(self, name: str, body: bytes, asked_at: float, reader: str) -> int:
        """Somebody asked at `asked_at` and was given this; the state it was in."""
        state = msgspec.json.decode(body, type=State)
        assert state.id == name
        number = int(state.waiting_on or "0")
        self.reads += 1
        behind_s = asked_at - self.replaced_at.get((name, number), asked_at)
        self.oldest_s = max(self.oldest_s, behind_s)
        if behind_s > BOUND_S:
            self.wrong.append(f"{reader}: {name} in state {number}, {behind_s:.2f} s after it was replaced")
        return number


async def writer(
    history: History, orders: PostgresOrders, shown: CachedOrders, dsn: str, random: Random
) -> None:
    """Change orders, and show half of the changes; some of those never arrive."""
    connection = await asyncpg.connect(dsn)
    ends = {name: random.randint(FINAL_AFTER // 2, FINAL_AFTER) for name in history.names}
    try:
        while not history.is_over:  # cancelled, it might not know what it has committed
            name = random.choice(history.names)
            number = history.current[name] + 1
            await asyncio.sleep(random.uniform(0, 0.02))
            if number > ends[name]:
                continue
            status = "completed" if number == ends[name] else "accepted"
            as_of = monotonic()
            await connection.execute(CHANGE, name, str(number), status, random.randint(0, 1))
            history.replaced(name)
            if random.random() < 0.5:
                with suppress(Unavailable):
                    shown.show_soon(await orders.load(name), as_of=as_of)
    finally:
        await connection.close()


async def reader(history: History, cached: CachedOrders, label: str, random: Random) -> None:
    """Read what comes to mind."""
    while True:
        name = random.choice(history.names)
        asked_at = monotonic()
        try:
            body = await cached.read(name)
        except Unavailable:
            history.unavailable += 1
        else:
            history.saw(name, body, asked_at, label)
        await asyncio.sleep(random.uniform(0, 0.01))


async def misfortune(proxy: FaultProxy, random: Random) -> None:
    """One fault after another, some of them longer than any document may live."""
    try:
        while True:
            if random.random() < 0.4:
                way = random.choice((proxy.to_server, proxy.to_client))
                way.silence()
                await asyncio.sleep(random.uniform(0.5, 3.0))
            else:
                await random.choice(FAULTS)(proxy)
                await asyncio.sleep(random.uniform(0.02, 0.3))
            proxy.heal()
            await asyncio.sleep(random.uniform(0.05, 1.0))
    finally:
        proxy.heal()


async def slowness(proxy: FaultProxy, random: Random) -> None:
    """PostgreSQL's answers are under way for long, now and then."""
    try:
        while True:
            proxy.to_client.delay_s = random.choice((0.0, 0.0, 0.1, 1.0, 2.0))
            proxy.to_client.jitter_s = 0.3 * proxy.to_client.delay_s
            await asyncio.sleep(random.uniform(0.2, 1.5))
    finally:
        proxy.heal()


async def flushing(url: str, random: Random) -> None:
    """Redis loses everything, now and then, or everybody who is connected."""
    async with open_redis(url, None, "test", "flushing") as clients:
        while True:
            await asyncio.sleep(random.uniform(0.1, 1.5))
            command = random.choice(
                (("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal"), ("SCRIPT", "FLUSH"))
            )
            with suppress(HotpathError):
                await clients.hot.execute(*command)


async def observe(database_url: str, redis_url: str, seed: int, duration_s: float) -> History:
    """Two gateways read and a third one writes through, all through faults of their own; what was read."""
    random = Random(seed)
    async with AsyncExitStack() as stack:
        database = await Database(database_url, size=5, name="test").open()
        stack.push_async_callback(database.close)
        shop = Shop(database)
        await shop.stock("tea", east=100)
        history = History([(await shop.accept(("tea", 1))).id for _ in range(ORDERS)])
        slow = await stack.enter_async_context(FaultProxy(database_url, seed=seed))
        far = await Database(slow.url, size=5, name="far").open()
        stack.push_async_callback(far.close)
        gateways: list[CachedOrders] = []
        proxies: list[FaultProxy] = []
        for number in range(3):
            proxy = await stack.enter_async_context(FaultProxy(redis_url, seed=seed + number))
            clients = await stack.enter_async_context(
                open_redis(proxy.url, None, "test", f"gateway-{number}")
            )
            cached = CachedOrders(PostgresOrders(far), Documents(clients, "test"))
            stack.push_async_callback(cached.close)
            gateways.append(cached)
            proxies.append(proxy)
        faults = [asyncio.create_task(misfortune(proxy, Random(random.random()))) for proxy in proxies]
        faults.append(asyncio.create_task(slowness(slow, Random(random.random()))))
        faults.append(asyncio.create_task(flushing(redis_url, Random(random.random()))))
        writing = asyncio.create_task(
            writer(history, shop.orders, gateways[2], database_url, Random(random.random()))
        )
        reading = [
            asyncio.create_task(reader(history, cached, f"gateway-{number}", Random(random.random())))
            for number, cached in enumerate(gateways[:2])
            for _ in range(READERS)
        ]
        done, _ = await asyncio.wait(
            [*faults, writing, *reading], timeout=duration_s, return_when=asyncio.FIRST_EXCEPTION
        )
        history.is_over = True
        await _ended([*faults, *reading])
        await writing
        for task in done:
            task.result()
        await _all_is_well(history, gateways)
        near = sum(cached._near.statistics.hits for cached in gateways)
        print(
            f"{history.reads} reads, {near} near, {sum(c._cache.statistics.hits for c in gateways)} in Redis,"
            f" {history.unavailable} unavailable, {sum(history.current.values())} changes,"
            f" {sum(c._cache.statistics.late for c in gateways)} writes too late,"
            f" oldest {history.oldest_s:.2f} s"
        )
    return history


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _all_is_well(history: History, gateways: list[CachedOrders]) -> None:
    """After the faults every gateway reads the last state of everything, and has it near."""
    until, missing = monotonic() + 10, "nothing"
    for cached in gateways:
        for name in history.names:
            while missing:
                missing = await _missing(history, cached, name)
                assert monotonic() < until, missing
            missing = "nothing"


async def _missing(history: History, cached: CachedOrders, name: str) -> str:
    """What is not as it should be with an order at a gateway."""
    await asyncio.sleep(0.01)
    asked_at = monotonic()
    try:
        number = history.saw(name, await cached.read(name), asked_at, "afterwards")
    except Unavailable as error:
        return str(error)
    wanted = history.current[name]
    if number == wanted and cached.near(name) is not None:
        return ""
    statistics = cached._cache.statistics
    counted = {field: getattr(statistics, field) for field in statistics.__slots__}
    up = (cached._near.client.is_up, cached._documents.clients.hot.is_up)
    return f"{name} in state {number} of {wanted}, {counted}, near and hot up: {up}"


def check(history: History) -> None:
    """Nothing was too old, and enough was read to say so."""
    assert not history.wrong, history.wrong[:5]
    assert history.reads > 200


async def test_nothing_is_older_than_two_seconds(database_url, redis_url, seed):
    """Cuts, silences, late deliveries, lost writes, flushes, a slow PostgreSQL."""
    check(await observe(database_url, redis_url, seed, 8))


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("round", range(3))
async def test_nothing_is_older_than_two_seconds_for_longer(database_url, redis_url, seed, round):
    """The same for minutes, each from another seed."""
    check(await observe(database_url, redis_url, seed + 1_000 * round, 60))
