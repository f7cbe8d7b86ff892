"""Gateways over real HTTP, a real PostgreSQL and a real Redis."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.gateway.served import Gateway, serving
from tests.patience import patient
from tests.stack import TEMPLATE, Postgres

SHARED = "shared_by_gateway_tests"


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """No request is refused because the machine is busy."""
    with patient():
        yield


@pytest.fixture
async def gateway(database_url: str, redis_url: str) -> AsyncIterator[Gateway]:
    """A gateway on a seeded database of the test's own."""
    async with serving(database_url, redis_url) as served:
        yield served


@pytest.fixture(scope="session")
async def shared_gateway(postgres_server: Postgres, standing_redis: str) -> AsyncIterator[Gateway]:
    """One gateway for all tests that change nothing, or do not care what others changed."""
    async with serving(await postgres_server.create(SHARED, TEMPLATE), standing_redis) as served:
        yield served
