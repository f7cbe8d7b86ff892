"""What becomes of whoever wants a database connection is seen: how long they wait, how many there are."""

from collections.abc import AsyncIterator

import pytest

from app.domain.errors import Unavailable
from app.infra.postgres import pool
from app.infra.postgres.pool import Database
from app.observability import metrics
from tests.metrics_table import parsed, value

NAME = "measured"


@pytest.fixture
async def measured(database_url: str) -> AsyncIterator[Database]:
    """A pool of two connections whose name no other test uses."""
    opened = await Database(database_url, size=2, name=NAME).open()
    yield opened
    await opened.close()


def served(name: str, **labels: str) -> float:
    """What a scrape finds."""
    return value(parsed(metrics.exposition().decode()), name, **labels)


async def test_connections_are_counted_by_what_they_do(measured):
    """One is lent, one came back; there may be two."""
    async with measured.connection():
        async with measured.connection():
            assert served("holdfast_pool_connections", pool=NAME, state="used") == 2
        assert served("holdfast_pool_connections", pool=NAME, state="used") == 1
        assert served("holdfast_pool_connections", pool=NAME, state="idle") == 1
    assert served("holdfast_pool_connections_max", pool=NAME) == 2


async def test_a_pool_that_is_closed_is_served_no_more(database_url):
    """Its connections are gone."""
    opened = await Database(database_url, size=2, name="short").open()
    assert served("holdfast_pool_connections_max", pool="short") == 2
    await opened.close()
    assert 'pool="short"' not in metrics.exposition().decode()


async def test_who_gets_no_connection_is_counted_and_their_wait_is_measured(measured, monkeypatch):
    """The longest waits are those that were in vain."""
    metrics.serve_for("gateway")
    monkeypatch.setattr(pool, "ACQUIRE_TIMEOUT_S", 0.2)
    async with measured.connection(), measured.connection():
        before = served("holdfast_pool_timeouts_total"), served("holdfast_pool_wait_seconds_sum")
        with pytest.raises(Unavailable):
            await measured.fetch("SELECT 1")
    assert served("holdfast_pool_timeouts_total") == before[0] + 1
    assert served("holdfast_pool_wait_seconds_sum") > before[1] + 0.15
