"""One served gateway for all tests of the published contract."""

from collections.abc import AsyncIterator

import pytest

from app.dev.servers import EmbeddedPostgres, EmbeddedValkey
from tests.integration.gateway.served import Gateway, database_of, serving


@pytest.fixture(scope="session")
async def gateway(postgres_server: EmbeddedPostgres, redis_server: EmbeddedValkey) -> AsyncIterator[Gateway]:
    """A gateway on a seeded database, which the tests fill with whatever they send."""
    async with serving(await database_of(postgres_server, "contract"), redis_server.url) as served:
        yield served
