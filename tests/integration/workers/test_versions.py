"""A worker that is given a version registers as that version, for every queue that it serves."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentVersionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app import config
from app.dev.stack import ports

ROOT = Path(__file__).parents[3]
NAME, BUILD = "holdfast-test/worker", "build-1"
QUEUES = {"orders", "notifications"}


async def queues(client: Client) -> set[str]:
    """The queues that the version is known to serve."""
    request = DescribeWorkerDeploymentVersionRequest(
        namespace="holdfast-dev",
        deployment_version=WorkerDeploymentVersion(deployment_name=NAME, build_id=BUILD),
    )
    try:
        answer = await client.workflow_service.describe_worker_deployment_version(request)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return set()
    return {queue.name for queue in answer.version_task_queues}


async def test_a_worker_is_the_version_that_it_was_given(
    database_url: str, redis_url: str, temporal_address: str, client: Client
):
    """What Temporal's worker controller waits for before it gives a version any order."""
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "MODE": "worker",
        "ENVIRONMENT": "dev",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "TEMPORAL_ADDRESS": temporal_address,
        "TEMPORAL_NAMESPACE": "holdfast-dev",
        "TEMPORAL_DEPLOYMENT_NAME": NAME,
        "TEMPORAL_WORKER_BUILD_ID": BUILD,
        "WORKER_QUEUES": ",".join(QUEUES),
        "STRIPE_API_KEY": "sk_test_none",
        "CARRIER_URL": "http://127.0.0.1:1",
        "LISTEN_HOST": "127.0.0.1",
        "HEALTH_PORT": str(ports.any_free()),
    }
    worker = subprocess.Popen([sys.executable, "-m", "app"], env=environment, cwd=ROOT)
    try:
        async with asyncio.timeout(60):
            while await queues(client) != QUEUES:
                assert worker.poll() is None
                await asyncio.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0


@pytest.mark.parametrize("missing", ["TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"])
def test_half_a_version_is_none(missing: str):
    """A worker without the other half would carry everything or nothing."""
    given = {"TEMPORAL_DEPLOYMENT_NAME": NAME, "TEMPORAL_WORKER_BUILD_ID": BUILD}
    del given[missing]
    with pytest.raises(config.ConfigurationError, match="both or not at all"):
        config.load("tool", {"DATABASE_URL": "postgresql://db/x"} | given)
