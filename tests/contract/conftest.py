"""One served gateway for all tests of the published contract."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.served import Gateway, serving
from tests.stack import TEMPLATE, Postgres, Redis


@pytest.fixture(scope="session")
async def gateway(postgres_server: Postgres, redis_server: Redis) -> AsyncIterator[Gateway]:
    """A gateway on a seeded database, which the tests fill with whatever they send."""
    async with serving(await postgres_server.create("contract", TEMPLATE), redis_server.url) as served:
        yield served
