"""A server with too few connections for the whole installation is noticed at the start."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.dev.stack import ports
from app.infra.postgres.pool import Database
from app.infra.postgres.room import TooSmallError, refuse_small_server, room

ROOT = Path(__file__).parents[3]


async def limited(url: str, connections: int) -> None:
    """Let the database have so many connections and no more."""
    connection = await asyncpg.connect(url)
    name = urlsplit(url).path.strip("/")
    await connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {connections}')
    await connection.close()


async def test_the_room_is_what_the_server_has_without_what_is_reserved(database_url: str):
    """For superusers, and for roles that were promised some."""
    database = await Database(database_url, size=1, name="test").open()
    has = int(await asyncio.wait_for(_setting(database, "max_connections"), 10))
    reserved = int(await _setting(database, "superuser_reserved_connections"))
    assert await room(database) == has - reserved
    await database.close()


async def _setting(database: Database, name: str) -> str:
    return str((await database.fetch("SELECT current_setting($1) AS it", name))[0]["it"])


async def test_the_databases_own_limit_counts(database_url: str, capsys: pytest.CaptureFixture[str]):
    """As much as it allows passes; one more ends the start with a line that names the setting."""
    await limited(database_url, 40)
    database = await Database(database_url, size=1, name="test").open()
    await refuse_small_server(database, 10, 40)
    with pytest.raises(TooSmallError) as left:
        await refuse_small_server(database, 10, 41)
    await database.close()
    assert left.value.code == 78
    assert capsys.readouterr().err.startswith("holdfast: DATABASE_CONNECTIONS_MAX must be lower")


async def test_a_server_that_is_away_is_not_waited_for():
    """The process starts as it would have."""
    database = await Database("postgresql://x@127.0.0.1:1/x", size=1, name="test").open()
    await refuse_small_server(database, 10, 1_000_000)
    await database.close()


@pytest.mark.parametrize("mode", ["gateway", "worker", "consumer"])
async def test_no_mode_starts_on_a_server_that_is_too_small(mode: str, database_url: str):
    """78, and one line."""
    await limited(database_url, 30)
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "MODE": mode,
        "ENVIRONMENT": "dev",
        "DATABASE_URL": database_url,
        "DATABASE_CONNECTIONS_MAX": "31",
        "REDIS_URL": "redis://127.0.0.1:1",
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "TEMPORAL_NAMESPACE": "none",
        "STRIPE_API_KEY": "sk_test_none",
        "CARRIER_URL": "http://127.0.0.1:1",
        "CARRIER_WEBHOOK_SECRET": "none",
        "LISTEN_HOST": "127.0.0.1",
        "PORT": str(ports.any_free()),
        "HEALTH_PORT": str(ports.any_free()),
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert done.stderr.startswith("holdfast: DATABASE_CONNECTIONS_MAX must be lower")
