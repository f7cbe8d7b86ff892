"""Gateways over real HTTP, a real PostgreSQL and a real Redis."""

from collections.abc import AsyncIterator

import pytest

from app.dev.servers import EmbeddedPostgres, EmbeddedValkey
from tests.integration.gateway.served import Gateway, database_of, serving

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
    async with serving(await database_of(postgres_server, SHARED), redis_server.url) as served:
        yield served
