"""Cached orders: near, Redis, PostgreSQL, and what each of them costs and promises."""

import asyncio
import time
from time import monotonic

import pytest
from msgspec.structs import replace

from app.contracts.documents import encode_order, etag
from app.domain.errors import Unavailable
from app.domain.order import Status
from app.gateway import cached_orders
from app.hotpath.cache_entries import Entry, Loaded
from tests.busy import BUSY_S
from tests.integration.gateway.cached.reading import brought_near, change, gateway, until
from tests.integration.gateway.served import NOBODY


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


async def test_who_commits_a_change_shows_it_to_all(cached, other, shop, order, monkeypatch, never_round):
    """The document goes to Redis, and Redis tells the other gateway that what it has near is old."""
    monkeypatch.setattr("app.infra.redis.documents.OPEN_LIFETIME_S", 60.0)
    monkeypatch.setattr(cached_orders, "NEAR_OPEN_S", 60.0)  # no document ends by itself
    placed = await order()
    await brought_near(other, placed.id)
    version = await change(shop, placed.id)
    await cached.show(await shop.orders.load(placed.id))
    await until(lambda: other.near(placed.id) is None)
    assert (await other.fetch(placed.id)).etag == f'"{version}"'.encode()
    await change(shop, placed.id)
    cached.show_soon(await shop.orders.load(placed.id))
    async with asyncio.timeout(30):
        while (await other.fetch(placed.id)).etag != f'"{version + 1}"'.encode():
            await asyncio.sleep(0.002)


async def test_an_order_that_is_shown_is_near_without_postgres(cached, order):
    """Whoever placed it reads it next."""
    placed = await order()
    await cached.show(placed)
    cached._orders = None
    assert (await brought_near(cached, placed.id)).body == encode_order(placed)


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
    assert monotonic() - started < 1 + BUSY_S
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
