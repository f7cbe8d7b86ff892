"""A database with orders in it, a receiver, and what writes and sends deliveries."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from app.infra.postgres.pool import Database
from app.infra.temporal.client import connect
from tests.integration.consumer.orders import Orders
from tests.integration.webhooks.receiver import Receiver, receiving
from tests.integration.webhooks.world import World


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
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that is up."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def world(database: Database, orders: Orders) -> World:
    """Endpoints and their deliveries."""
    return World(database, orders)


@pytest.fixture
async def client(temporal_address: str) -> Client:
    """A client of the shared Temporal."""
    return await connect(temporal_address, "holdfast-dev", tls_cert=None, tls_key=None, api_key=None)
