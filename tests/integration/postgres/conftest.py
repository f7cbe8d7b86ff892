"""A shop on a database of the test's own, which is audited when the test is over."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.infra.postgres.pool import Connection, Database
from tests.integration.postgres.audit import audit
from tests.integration.postgres.shop import CONNECTIONS, Shop


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's database."""
    opened = await Database(database_url, size=CONNECTIONS, name="test").open()
    yield opened
    await opened.close()


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    """The shop. Whatever the test did, every row agrees with every other when it is over."""
    yield Shop(database)
    await audit(database)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Connection]:
    """Somebody else's connection, to watch, to interfere, and to kill others with."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
