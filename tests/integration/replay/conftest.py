"""A database with orders in it, consumed, and an engine of replays."""

from collections.abc import AsyncIterator

import pytest

from app.infra.postgres.pool import Database
from tests.integration.replay.past import Past


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's database."""
    database = await Database(database_url, size=10, name="test").open()
    yield database
    await database.close()


@pytest.fixture
async def past(database: Database) -> Past:
    """Orders that were placed and consumed."""
    past = Past(database)
    await past.orders.stock()
    return past
