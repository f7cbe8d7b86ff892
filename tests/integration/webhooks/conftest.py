"""A database with orders in it, a receiver, and what writes and sends deliveries."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from app.infra.postgres.pool import Database
from app.infra.temporal.client import connect
from tests.integration.consumer.orders import Orders
from tests.integration.webhooks.receiver import Receiver, receiving
from tests.integration.webhooks.world import World
from tests.stack import TEMPLATE, Postgres

SHARED = "shared_by_webhook_tests"
EMPTIED = (
    "webhook_deliveries",
    "webhook_breakers",
    "webhook_endpoints",
    "workflow_jobs",
    "marks",
    "idempotency",
)


@pytest.fixture(scope="session")
async def shared_database(postgres_server: Postgres) -> AsyncIterator[Database]:
    """One database for all of these tests, with plenty in stock; its orders are each test's own."""
    database = await Database(await postgres_server.create(SHARED, TEMPLATE), size=10, name="test").open()
    await Orders(database).stock()
    yield database
    await database.close()


@pytest.fixture
async def database(shared_database: Database) -> Database:
    """The database without any endpoint, as if no event had been handled."""
    for table in EMPTIED:
        await shared_database.execute(f"DELETE FROM {table}")
    return shared_database


@pytest.fixture
def orders(database: Database) -> Orders:
    """Orders to be placed."""
    return Orders(database)


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
async def client(temporal_address: str, temporal_namespace: str) -> Client:
    """A client of the shared Temporal."""
    return await connect(temporal_address, temporal_namespace, tls_cert=None, tls_key=None, api_key=None)
