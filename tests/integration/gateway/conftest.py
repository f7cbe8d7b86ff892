"""Gateways over real HTTP, a real PostgreSQL and a real Redis."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.dev.servers import EmbeddedPostgres, EmbeddedValkey
from tests.conftest import TEMPLATE
from tests.integration.gateway.served import Gateway, serving

SHARED = "shared_by_gateway_tests"


@pytest.fixture
async def gateway(database_url: str, redis_url: str) -> AsyncIterator[Gateway]:
    """A gateway on a seeded database of the test's own."""
    async with serving(database_url, redis_url) as served:
        yield served


@pytest.fixture(scope="session")
async def shared_gateway(
    postgres_server: EmbeddedPostgres, redis_server: EmbeddedValkey
) -> AsyncIterator[Gateway]:
    """One gateway for all tests that change nothing, or do not care what others changed."""
    connection = await asyncpg.connect(postgres_server.dsn)
    await connection.execute(f"CREATE DATABASE {SHARED} TEMPLATE {TEMPLATE}")
    await connection.close()
    database_url = urlsplit(postgres_server.dsn)._replace(path=f"/{SHARED}").geturl()
    async with serving(database_url, redis_server.url) as served:
        yield served
