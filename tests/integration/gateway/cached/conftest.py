"""Cached orders of one gateway, of another, and an order to be read."""

import pytest

from app.gateway import cached_orders
from app.infra.postgres.pool import Database
from tests.integration.gateway.cached.reading import gateway
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
