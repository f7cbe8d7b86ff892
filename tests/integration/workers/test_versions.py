"""A worker that is given a version is that to Temporal, and an order stays with the one that began it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client

from app import config
from app.dev.servers import EmbeddedTemporal
from app.dev.stack import ports
from app.infra.postgres.pool import Database
from app.infra.temporal.client import connect
from tests.acceptance.versions import make_current, served, version_of
from tests.integration.workers.accepted import accept
from tests.stack import Temporal

ROOT = Path(__file__).parents[3]
NAME = "holdfast-test/worker"


@asynccontextmanager
async def running(
    build: str, queues: str, database_url: str, redis_url: str, temporal: Temporal | EmbeddedTemporal
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A worker of this version, until the end of the block; it has to end in order."""
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "MODE": "worker",
        "ENVIRONMENT": "dev",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "TEMPORAL_ADDRESS": temporal.address,
        "TEMPORAL_NAMESPACE": temporal.namespace,
        "TEMPORAL_DEPLOYMENT_NAME": NAME,
        "TEMPORAL_WORKER_BUILD_ID": build,
        "WORKER_QUEUES": queues,
        "STRIPE_API_KEY": "sk_test_none",
        "CARRIER_URL": "http://127.0.0.1:1",
        "LISTEN_HOST": "127.0.0.1",
        "HEALTH_PORT": str(ports.any_free()),
        "SHUTDOWN_TIMEOUT_S": "5",
    }
    worker = subprocess.Popen([sys.executable, "-m", "app"], env=environment, cwd=ROOT)
    try:
        yield worker
        assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0


async def until_carried(client: Client, order_id: str, build: str) -> None:
    """Wait until this version carries an order for good."""
    async with asyncio.timeout(60):
        while await version_of(client, order_id) != build:
            await asyncio.sleep(0.1)


async def test_a_worker_is_the_version_that_it_was_given(
    database_url: str, redis_url: str, temporal_server: Temporal, client: Client
):
    """For every queue that it serves: the controller waits for that before it gives a version any order."""
    queues = {"orders", "notifications"}
    async with running("alone", ",".join(queues), database_url, redis_url, temporal_server):
        assert await served(client, NAME, "alone", queues) == queues


async def test_an_order_stays_with_the_version_that_began_it(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
):
    """A newer version becomes the current one: what comes then is its own, what was begun is not."""
    temporal = EmbeddedTemporal(tmp_path / "temporal", durable=False, follow=signal.SIGKILL)
    await temporal.start()  # one of its own: the current version is everybody's
    try:
        client = await connect(
            temporal.address, temporal.namespace, tls_cert=None, tls_key=None, api_key=None
        )
        async with running("old", "orders", database_url, redis_url, temporal):
            await make_current(client, NAME, "old", {"orders"})
            first = await accept(database)  # waits for its stock: nobody serves that queue
            await until_carried(client, first.id, "old")
            async with running("new", "orders", database_url, redis_url, temporal):
                await make_current(client, NAME, "new", {"orders"})
                for _ in range(5):  # whichever of the two tells Temporal of it
                    later = await accept(database)
                    await until_carried(client, later.id, "new")
                assert await version_of(client, first.id) == "old"
    finally:
        await temporal.stop()


@pytest.mark.parametrize("missing", ["TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"])
def test_half_a_version_is_none(missing: str):
    """A worker without the other half would carry everything or nothing."""
    given = {"TEMPORAL_DEPLOYMENT_NAME": NAME, "TEMPORAL_WORKER_BUILD_ID": "1"}
    del given[missing]
    with pytest.raises(config.ConfigurationError, match="both or not at all"):
        config.load("tool", {"DATABASE_URL": "postgresql://db/x"} | given)
