"""Cached orders: near, Redis, PostgreSQL, and what each of them costs and promises."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from msgspec.structs import replace

from app.contracts.documents import encode_order, etag
from app.domain.errors import Unavailable
from app.domain.order import Status
from app.gateway import cached_orders
from app.gateway.cached_orders import CachedOrders
from app.hotpath.cache_entries import Entry, Loaded
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from tests.integration.gateway.served import NOBODY
from tests.integration.postgres.shop import Shop


@pytest.fixture
async def shop(database_url):
    """A shop that sells tea."""
    database = await Database(database_url, size=5, name="test").open()
    one = Shop(database)
    await one.stock("tea", east=100)
    yield one
    await database.close()


@pytest.fixture
def order(shop):
    """Places an order."""
    return lambda: shop.accept(("tea", 1))


@asynccontextmanager
async def gateway(shop, redis_url):
    """One gateway's cached orders."""
    async with open_redis(redis_url, None, "test", "gateway") as clients:
        cached = CachedOrders(PostgresOrders(shop.database), Documents(clients, "test"))
        if redis_url != NOBODY:
            assert await clients.hot.ready(5)
            assert await cached._near.client.ready(5)
        yield cached
        await cached.close()


@pytest.fixture
async def cached(shop, redis_url):
    """A gateway's cached orders."""
    async with gateway(shop, redis_url) as one:
        yield one


@pytest.fixture
async def other(shop, redis_url):
    """Another gateway's."""
    async with gateway(shop, redis_url) as one:
        yield one


@pytest.fixture
def never_round(monkeypatch):
    """No read goes round the cache by chance."""
    monkeypatch.setattr(cached_orders, "ROUND_THE_CACHE", 1e-12)


async def until(is_so, timeout_s: float = 5.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.002)


async def brought_near(cached: CachedOrders, order_id: str):
    """Read until it is near."""
    async with asyncio.timeout(5):
        while (record := cached.near(order_id)) is None:
            await cached.read(order_id)
            await asyncio.sleep(0.002)
    return record


async def change(shop: Shop, order_id: str, *, status: str = "accepted") -> int:
    """Change an order in PostgreSQL, behind everybody's back; its new version."""
    statement = "UPDATE orders SET version = version + 1, status = $2, updated_at = now() WHERE id = $1"
    await shop.database.execute(statement, order_id, status)
    return (await shop.orders.load(order_id)).version


async def test_a_document_comes_nearer_with_every_read(cached, shop, order, never_round):
    """PostgreSQL, Redis, near: the same bytes, with their headers."""
    placed = await order()
    body = encode_order(await shop.orders.load(placed.id))
    assert cached.near(placed.id) is None
    assert await cached.read(placed.id) == body
    await until(lambda: cached._cache.statistics.puts == 1)
    assert await cached.read(placed.id) == body
    record = cached.near(placed.id)
    assert record.body == body
    assert record.customer_id == placed.customer_id
    assert record.etag == etag(placed.version, None).encode()
    assert record.headers == ((b"etag", record.etag), (b"cache-control", b"private, no-cache"))
    assert record.full_headers[2:] == (
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    )
    assert (await cached.fetch(placed.id)).full_headers == record.full_headers
    assert cached._metrics.from_postgres == 1


async def test_who_commits_a_change_shows_it_to_all(cached, other, shop, order, never_round):
    """The document goes to Redis, and Redis tells the other gateway that what it has near is old."""
    placed = await order()
    await brought_near(other, placed.id)
    version = await change(shop, placed.id)
    await cached.show(await shop.orders.load(placed.id))
    await until(lambda: other.near(placed.id) is None)
    assert (await other.fetch(placed.id)).etag == f'"{version}"'.encode()
    await change(shop, placed.id)
    cached.show_soon(await shop.orders.load(placed.id))
    async with asyncio.timeout(0.4):  # sooner than the document would end by itself
        while (await other.fetch(placed.id)).etag != f'"{version + 1}"'.encode():
            await asyncio.sleep(0.002)


async def test_an_order_that_is_shown_is_near_without_postgres(cached, order):
    """Whoever placed it reads it next."""
    placed = await order()
    await cached.show(placed)
    cached._orders = None
    assert (await brought_near(cached, placed.id)).body == encode_order(placed)


async def test_a_change_that_nobody_showed_is_seen_within_two_seconds(cached, shop, order, never_round):
    """An open order's document ends by itself: in Redis, and near."""
    placed = await order()
    await brought_near(cached, placed.id)
    version = await change(shop, placed.id)
    changed_at = monotonic()
    async with asyncio.timeout(5):
        while f'"version":{version}'.encode() not in await cached.read(placed.id):
            await asyncio.sleep(0.005)
    assert monotonic() - changed_at < 1.8


async def test_a_final_document_stays_near(cached, shop, order, monkeypatch, never_round):
    """It changes no more: Redis and PostgreSQL are left alone."""
    monkeypatch.setattr(cached_orders, "NEAR_OPEN_S", 0.02)
    placed = await order()
    await brought_near(cached, placed.id)
    await until(lambda: cached.near(placed.id) is None)
    await change(shop, placed.id, status="completed")
    await cached.show(await shop.orders.load(placed.id))
    assert (await brought_near(cached, placed.id)).is_final
    await asyncio.sleep(0.05)
    assert cached.near(placed.id) is not None


async def test_near_hits_have_postgres_asked_behind_them(cached, shop, order, monkeypatch, never_round):
    """The caller gets what is near at once; what has fallen behind is dropped."""
    monkeypatch.setattr(cached_orders, "NEAR_OPEN_S", 30.0)
    placed = await order()
    version = placed.version
    for behind in (0, 1):
        record = await brought_near(cached, placed.id)
        if behind:
            version = await change(shop, placed.id)
        cached._until_round = cached._next_round_at = 0
        puts = cached._cache.statistics.puts
        assert cached.near(placed.id) is record
        await until(lambda puts=puts: cached._cache.statistics.puts == puts + 1)
        assert (await brought_near(cached, placed.id)).etag == f'"{version}"'.encode()
        assert cached._metrics.behind == behind


async def test_near_hits_ask_postgres_only_so_often(cached, order, monkeypatch):
    """However many there are: a hit has to stay cheap."""
    placed = await order()
    await brought_near(cached, placed.id)
    monkeypatch.setattr(cached_orders, "ROUND_THE_CACHE", 1.0)
    cached._until_round = 0
    loads, began = cached._cache.statistics.loads, monotonic()
    while monotonic() - began < 0.3:
        for _ in range(100):
            cached.near(placed.id)
        await asyncio.sleep(0)
    assert 1 <= cached._cache.statistics.loads - loads <= 5


def test_about_three_per_cent_go_round():
    """The steps between them are random, their mean is what was asked for."""
    steps = [cached_orders._step() for _ in range(20_000)]
    assert min(steps) == 1
    assert 0.025 < len(steps) / sum(steps) < 0.035


async def test_a_read_that_goes_round_does_not_wait_for_a_slow_postgres(cached, order, monkeypatch):
    """What Redis has is good enough; a read that finds nothing there waits for PostgreSQL as ever."""
    placed = await order()
    await cached.show(placed)
    monkeypatch.setattr(cached_orders, "ROUND_THE_CACHE", 1.0)
    load, held = cached._orders.load, asyncio.Event()

    async def slow(order_id: str):
        await held.wait()
        return await load(order_id)

    monkeypatch.setattr(cached._orders, "load", slow)
    started = monotonic()
    assert (await cached.fetch(placed.id)).body == encode_order(placed)
    assert monotonic() - started < 1
    held.set()


async def test_a_read_that_goes_round_asks_redis_where_postgres_is_away(cached, order, monkeypatch):
    """And where neither has it, says so."""
    placed = await order()
    await cached.show(placed)
    monkeypatch.setattr(cached_orders, "ROUND_THE_CACHE", 1.0)

    async def away(_: str):
        raise Unavailable("postgres")

    monkeypatch.setattr(cached._orders, "load", away)
    assert (await cached.fetch(placed.id)).body == encode_order(placed)
    with pytest.raises(Unavailable):
        await cached.fetch("ord_0000000000000000000000000X")


async def test_there_is_no_such_order(cached, order, shop):
    """Asked for a hundred times, looked for once; one that comes into being is seen at once."""
    (placed, event) = await shop.placed(("tea", 1))
    for _ in range(100):
        with pytest.raises(LookupError):
            await cached.read(placed.id)
        await asyncio.sleep(0.001)
    assert cached._cache.statistics.loads < 20
    await shop.intake.accept(
        shop.request(), placed, event, shop.answer(placed), address=None, traceparent=None
    )
    await cached.show(placed)
    assert await cached.read(placed.id) == encode_order(placed)


async def test_redis_is_not_believed(cached, order, never_round):
    """Another order's document, or no JSON at all: forgotten, and read from PostgreSQL."""
    mine, other = await order(), await order()
    key = cached._documents.key(mine.id)
    for wrong in (encode_order(other), b"{", b"\xff", b'{"id":1}', b"[]", *twisted(mine)):
        await cached._cache.put_all([Entry(key, Loaded(wrong, 60, version=99), monotonic())])
        assert await cached.read(mine.id) == encode_order(mine)
        assert cached.near(mine.id) is None
        await until(cached._cache._putting.done)


def twisted(order) -> list[bytes]:
    """Documents of this order that look right but cannot be sent, or read."""
    body = encode_order(order)
    waits = [
        body.replace(b'"waiting_on":null', b'"waiting_on":"%s"' % text) for text in (b"a\\r\\nx", b"\\u2603")
    ]
    assert all(text != body for text in waits)
    return [*waits, body[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]


@pytest.mark.parametrize("number", [3, 4, 5])
async def test_a_number_beyond_all_numbers_is_no_document(cached, order, never_round, number):
    """Its header cannot be reckoned with."""
    placed = await order()
    header = [b"1", b"1", b"0", b"9999999999999999", b"9999999999999999", b"0"]
    header[number] = b"9" * 400
    hot = cached._documents.clients.hot
    await hot.execute(
        "SET", cached._documents.key(placed.id), b" ".join(header) + b"\n" + encode_order(placed)
    )
    assert await cached.read(placed.id) == encode_order(placed)


async def test_a_key_of_another_type_costs_nobody_an_answer(cached, order):
    """It is overwritten by the next document."""
    placed = await order()
    await cached._documents.clients.hot.execute("LPUSH", cached._documents.key(placed.id), "x")
    assert await cached.read(placed.id) == encode_order(placed)
    assert (await brought_near(cached, placed.id)).body == encode_order(placed)


async def test_without_redis_readers_of_one_moment_ask_once(shop, order):
    """PostgreSQL carries the reads, once for half a second; what this gateway changed is read at once."""
    async with gateway(shop, NOBODY) as cached:
        placed = await order()
        before = cached._cache.statistics.loads
        for loads in (1, 2):
            found = await asyncio.gather(*(cached.read(placed.id) for _ in range(200)))
            assert set(found) == {encode_order(placed)}
            assert cached._cache.statistics.loads == before + loads
            assert await cached.read(placed.id) == encode_order(placed)
            assert cached._cache.statistics.loads == before + loads
            cached.show_soon(placed)
        await cached.show(placed)
        cached.show_soon(placed)


async def test_a_commit_that_took_long_is_shown_for_as_long_as_is_left(cached, order, never_round):
    """Its document was true when it was committed, which may have been long ago."""
    placed = await order()
    await cached.show(placed, as_of=monotonic() - 1.5)
    cached.show_soon(placed, as_of=monotonic() - 1.5)
    await until(lambda: cached._cache.statistics.late == 2)
    assert not await cached._documents.clients.hot.execute("EXISTS", cached._documents.key(placed.id))


async def test_a_load_that_took_long_is_kept_for_as_long_as_is_left(cached, order, monkeypatch, never_round):
    """A document is as old as the moment PostgreSQL was asked, however late its answer comes."""
    placed = await order()
    load = cached._orders.load

    async def late(order_id: str):
        found = await load(order_id)
        await asyncio.sleep(1.1)
        return found

    monkeypatch.setattr(cached._orders, "load", late)
    assert await cached.read(placed.id) == encode_order(placed)
    await until(lambda: cached._cache.statistics.late == 1)
    assert not await cached._documents.clients.hot.execute("EXISTS", cached._documents.key(placed.id))


async def test_near_ends_by_itself_where_nobody_can_say_what_changed(
    shop, order, cached, fault_proxy, never_round
):
    """The connection is there and silent: what an open order's document said is forgotten all the same."""
    async with gateway(shop, fault_proxy.url) as far:
        placed = await order()
        await cached.show(placed)
        await brought_near(far, placed.id)
        fault_proxy.to_client.silence()
        began = monotonic()
        while far.near(placed.id) is not None:
            assert monotonic() - began < 0.6
            await asyncio.sleep(0.005)
        assert far._near.client.is_up  # nobody has noticed yet
        fault_proxy.heal()


async def test_redis_comes_back_with_what_it_had_and_serves_nothing_old(shop, order, tmp_path, never_round):
    """Killed with documents on disk, frozen with documents in memory: open ones have ended meanwhile."""
    from app.dev.servers import EmbeddedValkey

    server = EmbeddedValkey(tmp_path / "valkey", durable=True, settings={"appendfsync": "always"})
    await server.start()
    try:
        async with gateway(shop, server.url) as cached:
            open_one, final = await order(), await order()
            for away in (server.kill, lambda: _freeze(server.pid)):
                await change(shop, final.id, status="completed")
                last = await shop.orders.load(final.id)
                await cached.show(last)
                await cached.show(await shop.orders.load(open_one.id))
                assert await cached._documents.get(open_one.id)
                await away()
                version = await change(shop, open_one.id)
                await asyncio.sleep(1.2)
                if server.pid is None:
                    await server.start()
                else:
                    os.kill(server.pid, signal.SIGCONT)
                async with asyncio.timeout(10):
                    while True:
                        assert f'"version":{version}'.encode() in await cached.read(open_one.id)
                        assert await cached.read(final.id) == encode_order(last)
                        if cached.near(open_one.id) and cached.near(final.id):
                            break
                        await asyncio.sleep(0.01)
    finally:
        await server.stop()


async def _freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


async def test_a_document_is_as_old_as_the_server_says_not_as_we_hear(cached, shop, order, never_round):
    """A final document replaces an open one for good: what comes late does not bring it back."""
    placed = await order()
    final = replace(placed, status=Status.REJECTED, version=placed.version + 1)
    await cached.show(final)
    await cached.show(placed)
    assert (await brought_near(cached, placed.id)).is_final


async def test_what_reads_cost(cached, order, never_round):
    """CPU of a near hit and of a hit in Redis, with what a reader's request is held against."""
    placed = await order()
    await cached.show(replace(placed, status=Status.COMPLETED, version=9))
    await brought_near(cached, placed.id)
    started = time.process_time()
    for _ in range(50_000):
        cached.near(placed.id)
    near_us = (time.process_time() - started) / 50_000 * 1e6
    near_client = cached._near.client
    await asyncio.gather(*(cached.fetch(placed.id) for _ in range(64)))

    async def reader() -> None:
        for _ in range(100):
            await cached.fetch(placed.id)

    started = time.process_time()
    await asyncio.gather(*(reader() for _ in range(64)))
    redis_us = (time.process_time() - started) / 6_400 * 1e6
    print(f"near {near_us:.2f} µs, Redis {redis_us:.1f} µs, {near_client.statistics.batches} batches")
    assert near_us < 2
    assert redis_us < 100
