"""A past in which some orders were sold at a wrong price, audited when the test is over."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.infra.postgres.pool import Connection, Database
from tests.integration.postgres.past import verified
from tests.integration.reprice.priced import Past


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's database."""
    opened = await Database(database_url, size=5, name="test").open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Connection]:
    """A connection of somebody who looks on."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def priced(database: Database, database_url: str, other: Connection) -> AsyncIterator[Past]:
    """The past, with nothing in it yet; every chain is whole when the test is over."""
    yield Past(database, database_url)
    verdict = await verified(other)
    assert verdict.is_whole, verdict.found
