"""A database with orders in it, Redis clients, and the parts of a consumer one by one."""

from collections.abc import AsyncIterator

import pytest

from app.consumer.dispatch import Group, groups
from app.consumer.effect import Effect
from app.consumer.projections import write_documents
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import PostgresProjections
from app.infra.redis.clients import RedisClients, open_redis
from app.infra.redis.documents import Documents
from app.infra.redis.streams import ConsumerGroup, EventStreams
from tests.integration.consumer.orders import Orders

SHARDS = 4


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's database."""
    database = await Database(database_url, size=10, name="test").open()
    yield database
    await database.close()


@pytest.fixture
async def orders(database: Database) -> Orders:
    """Orders to be placed, with plenty in stock."""
    orders = Orders(database)
    await orders.stock()
    return orders


@pytest.fixture
async def listeners(orders: Orders) -> None:
    """Every group has something to do: customers are told by mail, and an endpoint of all that happens."""
    orders.email = "ada@example.com"
    await orders.database.execute(
        "INSERT INTO webhook_endpoints (id, url, description, event_types, secret, created_at)"
        " VALUES ('whe_all', 'https://hooks.example.com/', '', '{}', 'whsec_AAAA', now() - interval '1 day')"
    )


@pytest.fixture
async def clients(redis_url: str) -> AsyncIterator[RedisClients]:
    """Clients of the test's Redis."""
    async with open_redis(redis_url, None, "test", "test") as opened:
        yield opened


@pytest.fixture
def streams(clients: RedisClients) -> EventStreams:
    """Where the relay publishes."""
    return EventStreams(clients, SHARDS)


@pytest.fixture
def consumer(clients: RedisClients) -> ConsumerGroup:
    """The streams, as the group `projections` reads them."""
    return ConsumerGroup(clients, SHARDS, "projections")


@pytest.fixture
def store(database: Database) -> PostgresProjections:
    """Marks and summary."""
    return PostgresProjections(database, "/holdfast/test")


@pytest.fixture
def group(clients: RedisClients) -> Group:
    """The group `projections` as it is shipped."""
    return groups(write_documents(Documents(clients, "test")))[0]


@pytest.fixture
def effect(group: Group, store: PostgresProjections) -> Effect:
    """Its effect."""
    return Effect(group, store)
