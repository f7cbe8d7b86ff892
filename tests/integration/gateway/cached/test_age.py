"""How old a cached order may be: never more than it says, whoever was slow, away or silent."""

import asyncio
import os
import signal
from time import monotonic

from msgspec.structs import replace

from app.contracts.documents import encode_order
from app.domain.order import Status
from app.gateway import cached_orders
from tests.integration.gateway.cached.reading import brought_near, change, gateway, until


async def test_a_change_that_nobody_showed_is_seen_within_two_seconds(cached, shop, order, never_round):
    """An open order's document ends by itself: in Redis, and near."""
    placed = await order()
    await brought_near(cached, placed.id)
    version = await change(shop, placed.id)
    changed_at = monotonic()
    asked_at = monotonic()
    while f'"version":{version}'.encode() not in await cached.read(placed.id):
        assert asked_at - changed_at < 1.8
        await asyncio.sleep(0.005)
        asked_at = monotonic()


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
        began = asked_at = monotonic()
        while far.near(placed.id) is not None:
            assert asked_at - began < 0.6
            await asyncio.sleep(0.005)
            asked_at = monotonic()
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
                async with asyncio.timeout(60):
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
