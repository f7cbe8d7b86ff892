"""One served gateway for all tests of the published contract."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.gateway.served import Gateway, serving
from tests.patience import patient
from tests.stack import TEMPLATE, Postgres


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """No request is refused because the machine is busy."""
    with patient():
        yield


@pytest.fixture(scope="session")
async def gateway(postgres_server: Postgres, standing_redis: str) -> AsyncIterator[Gateway]:
    """A gateway on a seeded database, which the tests fill with whatever they send."""
    async with serving(await postgres_server.create("contract", TEMPLATE), standing_redis) as served:
        yield served
