"""A database with months of the past in it, sealed, and a folder to archive them in."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from app.domain.chain import LinkedEvent
from app.infra.postgres.migrate import migrate
from app.infra.postgres.partitions import PostgresPartitions
from app.infra.postgres.pool import Connection, Database
from tests.integration.archive.ages import GROUPS, Ages, month
from tests.integration.postgres.past import prices, sealed, store
from tests.stack import Postgres

TEMPLATE = "months_of_the_past"

_numbers = count(1)


def past() -> list[list[LinkedEvent]]:
    """SKUs whose prices changed in each of five months, and yesterday.

    `cup` in all of them, `bowl` in the first two, `mug` since the third; the first begins on its third day.
    """
    begins = [month(-5) + timedelta(days=2), *(month(number) for number in (-4, -3, -2, -1))]
    yesterday = datetime.now(UTC).replace(hour=12) - timedelta(days=1)
    often = [begin + timedelta(hours=hours) for begin in begins for hours in (0, 30, 300)]
    return [
        prices("bowl", 200, often[:6]),
        prices("cup", 100, [*often, yesterday]),
        prices("mug", 300, often[6:]),
    ]


@pytest.fixture(scope="session")
async def months_of_the_past(postgres_server: Postgres) -> list[list[LinkedEvent]]:
    """A template with that past in it, sealed and handled by everybody: sealing it takes a moment."""
    dsn = await postgres_server.create(TEMPLATE)
    await migrate(dsn)
    chains = past()
    connection = await asyncpg.connect(dsn)
    database = await Database(dsn, size=2, name="test").open()
    for events in chains:
        await store(connection, events)
    await PostgresPartitions(database).make()
    await sealed(database)
    await connection.executemany(
        "INSERT INTO marks (consumer_group, subject, sequence) VALUES ($1, $2, $3)",
        [(group, events[-1].subject, events[-1].sequence) for group in GROUPS for events in chains],
    )
    await database.close()
    await connection.close()
    return chains


@pytest.fixture
async def ages(
    postgres_server: Postgres, months_of_the_past: list[list[LinkedEvent]], tmp_path: Path
) -> AsyncIterator[Ages]:
    """That past in a database of the test's own."""
    name = f"ages_{next(_numbers)}"
    url = await postgres_server.create(name, TEMPLATE)
    database = await Database(url, size=5, name="test").open()
    connection: Connection = await asyncpg.connect(url)
    chains = {chain[0].subject: chain for chain in months_of_the_past}
    yield Ages(url, database, connection, tmp_path / "archive", chains)
    await connection.close()
    await database.close()
    await postgres_server.drop(name)
