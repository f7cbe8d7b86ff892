"""What `bench/smoke.py` calls idle."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.dev.stack.errors import StackError
from bench import smoke


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database with one webhook that is due, and one that waits until tomorrow."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """
        INSERT INTO webhook_endpoints (id, url, description, event_types, secret)
        VALUES ('e', 'x', '', '{}', 's');
        INSERT INTO webhook_deliveries (id, endpoint_id, subject, sequence, type, happened_at, next_at)
        SELECT 'd' || n, 'e', 's', n, 't', now(), now() + make_interval(days => n)
        FROM generate_series(0, 1) n
        """
    )
    yield connection
    await connection.close()


async def test_nothing_is_idle_while_a_webhook_is_under_way(
    database: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    """What waits until tomorrow disturbs nobody today."""
    monkeypatch.setattr(smoke, "SETTLE_S", 0.0)
    waiting = asyncio.create_task(smoke.settled(database_url, 60))
    assert (await asyncio.wait((waiting,), timeout=0.5))[0] == set()
    await database.execute("UPDATE webhook_deliveries SET state = 'delivered' WHERE id = 'd0'")
    async with asyncio.timeout(30):
        await waiting


async def test_what_waits_for_an_endpoint_that_is_left_alone_is_not_under_way(
    database: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    """It may wait for days. Only what is trying whether the endpoint is back is somebody's work."""
    await database.execute(
        """
        UPDATE webhook_deliveries SET waits = true;
        INSERT INTO webhook_breakers (endpoint_id, open_until) VALUES ('e', now() - interval '1 second')
        """
    )
    monkeypatch.setattr(smoke, "SETTLE_S", 0.0)
    async with asyncio.timeout(30):
        await smoke.settled(database_url, 60)
    await database.execute("UPDATE webhook_deliveries SET waits = false WHERE id = 'd0'")
    monkeypatch.setattr(smoke, "SETTLED_WITHIN_S", 0.0)
    with pytest.raises(StackError, match="1 events, mails or webhooks are under way"):
        await smoke.settled(database_url, 60)


@pytest.mark.usefixtures("database")
async def test_what_never_ends_is_said(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """Rather than a figure that means nothing."""
    monkeypatch.setattr(smoke, "SETTLED_WITHIN_S", 0.0)
    with pytest.raises(StackError, match="1 events, mails or webhooks are under way"):
        await smoke.settled(database_url, 60)
