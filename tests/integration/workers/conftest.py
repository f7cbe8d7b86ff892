"""What the tests of the worker's own tasks share."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from app.infra.postgres.pool import Database
from app.infra.temporal.client import connect


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's own database."""
    database = await Database(database_url, size=5, name="test").open()
    yield database
    await database.close()


@pytest.fixture
async def client(temporal_address: str, temporal_namespace: str) -> Client:
    """A client of the shared Temporal."""
    return await connect(temporal_address, temporal_namespace, tls_cert=None, tls_key=None, api_key=None)
