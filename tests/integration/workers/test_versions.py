"""A worker that is given a version is that to Temporal, and an order stays with the one that began it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import VersioningBehavior
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app import config
from app.contracts.temporal import workflow_id
from app.dev.servers import EmbeddedTemporal
from app.dev.stack import ports
from app.infra.postgres.pool import Database
from app.infra.temporal.client import connect
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


async def until(question: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(60):
        while not await question():
            await asyncio.sleep(0.1)


async def queues_of(client: Client, build: str) -> set[str]:
    """The queues that a version is known to serve."""
    version = WorkerDeploymentVersion(deployment_name=NAME, build_id=build)
    request = DescribeWorkerDeploymentVersionRequest(namespace=client.namespace, deployment_version=version)
    try:
        answer = await client.workflow_service.describe_worker_deployment_version(request)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return set()
    return {queue.name for queue in answer.version_task_queues}


async def make_current(client: Client, build: str) -> None:
    """What Temporal's worker controller does when a version is ready."""

    async def is_known() -> bool:
        return await queues_of(client, build) == {"orders"}

    await until(is_known)
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=NAME, build_id=build
    )
    await client.workflow_service.set_worker_deployment_current_version(request)


async def version_of(client: Client, order_id: str) -> str | None:
    """The version that carries an order for good; None when none does (yet)."""
    try:
        description = await client.get_workflow_handle(workflow_id(order_id)).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None
    info = description.raw_description.workflow_execution_info.versioning_info
    is_pinned = info.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
    return info.deployment_version.build_id if is_pinned else None


async def test_a_worker_is_the_version_that_it_was_given(
    database_url: str, redis_url: str, temporal_server: Temporal, client: Client
):
    """For every queue that it serves: the controller waits for that before it gives a version any order."""

    async def is_known() -> bool:
        return await queues_of(client, "alone") == {"orders", "notifications"}

    async with running("alone", "orders,notifications", database_url, redis_url, temporal_server):
        await until(is_known)


@pytest.mark.full
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
            await make_current(client, "old")
            first = await accept(database)  # waits for its stock: nobody serves that queue

            async def first_is_old() -> bool:
                return await version_of(client, first.id) == "old"

            await until(first_is_old)
            async with running("new", "orders", database_url, redis_url, temporal):
                await make_current(client, "new")
                second = await accept(database)

                async def second_is_new() -> bool:
                    return await version_of(client, second.id) == "new"

                await until(second_is_new)
                assert await first_is_old()
    finally:
        await temporal.stop()


@pytest.mark.parametrize("missing", ["TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"])
def test_half_a_version_is_none(missing: str):
    """A worker without the other half would carry everything or nothing."""
    given = {"TEMPORAL_DEPLOYMENT_NAME": NAME, "TEMPORAL_WORKER_BUILD_ID": "1"}
    del given[missing]
    with pytest.raises(config.ConfigurationError, match="both or not at all"):
        config.load("tool", {"DATABASE_URL": "postgresql://db/x"} | given)
