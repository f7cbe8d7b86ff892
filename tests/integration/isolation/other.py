"""Servers of another environment, looked at afterwards; and processes of ours that are led to them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.namespace.v1 import UpdateNamespaceInfo
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client

from app.contracts.streams import environment_marker
from app.dev.stack import ports
from app.infra.markers import Markers
from app.infra.temporal.client import connect
from app.infra.temporal.marker import ENTRY

ROOT = Path(__file__).parents[3]
NOBODY = "redis://127.0.0.1:1/0"


class Told:
    """The markers of a process, and the event that ends it."""

    def __init__(self, environment: str = "dev", *, is_sure: bool = True) -> None:
        self.stop = asyncio.Event()
        self.markers = Markers(environment, self.stop)
        self.markers.is_sure = is_sure


async def mark_database(url: str, environment: str) -> None:
    """Make a database another environment's, whatever it was."""
    async with connected(url) as connection:
        await connection.execute("DELETE FROM environment_marker")
        await connection.execute("INSERT INTO environment_marker (environment) VALUES ($1)", environment)


async def marker_of_database(url: str) -> str | None:
    """What the database says."""
    async with connected(url) as connection:
        return await connection.fetchval("SELECT environment FROM environment_marker")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that asks no marker."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def plain_redis(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client that asks no marker."""
    async with redis.asyncio.from_url(url, decode_responses=True) as client:
        yield client


async def mark_redis(url: str, environment: str) -> None:
    """Make a Redis another environment's, whatever it was: at once it is empty, but for that marker."""
    async with plain_redis(url) as client, client.pipeline(transaction=True) as both:
        await both.flushdb().set(environment_marker(environment), environment).execute()


async def holds(url: str) -> dict[str, str]:
    """All keys of a Redis of texts, but for what the gateway of other tests may count there."""
    async with plain_redis(url) as client:
        keys = [key for key in sorted(await client.keys("*")) if ":{gate}:" not in key]
        return {key: await client.get(key) for key in keys}


async def new_namespace(address: str, name: str, marker: str | None = None) -> Client:
    """A client of a new namespace."""
    client = await connect(address, name, tls_cert=None, tls_key=None, api_key=None)
    retention = Duration()
    retention.FromTimedelta(timedelta(days=1))
    request = RegisterNamespaceRequest(
        namespace=name,
        workflow_execution_retention_period=retention,
        data={} if marker is None else {ENTRY: marker},
    )
    await client.workflow_service.register_namespace(request)
    return client


async def mark_namespace(client: Client, marker: str) -> None:
    """Make a namespace another environment's, whatever it was."""
    info = UpdateNamespaceInfo(data={ENTRY: marker})
    request = UpdateNamespaceRequest(namespace=client.namespace, update_info=info)
    await client.workflow_service.update_namespace(request)


async def marker_of_namespace(client: Client) -> str | None:
    """What the namespace says."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    answer = await client.workflow_service.describe_namespace(request)
    return answer.namespace_info.data.get(ENTRY)


async def pollers(client: Client) -> int:
    """How many pollers Temporal has seen on the queue of workflows lately."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name="orders"),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    return len((await client.workflow_service.describe_task_queue(request)).pollers)


def settings(mode: str, database_url: str, **more: str) -> dict[str, str]:
    """The environment of a mode of `dev`; its Redis and its Temporal are not there, unless `more` says so."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "MODE": mode,
        "ENVIRONMENT": "dev",
        "DATABASE_URL": database_url,
        "REDIS_URL": NOBODY,
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "TEMPORAL_NAMESPACE": "none",
        "WORKER_QUEUES": "orders",
        "STRIPE_API_KEY": "sk_test_none",
        "CARRIER_URL": "http://127.0.0.1:1",
        "CARRIER_WEBHOOK_SECRET": "none",
        "LISTEN_HOST": "127.0.0.1",
        "PORT": str(ports.any_free()),
        "HEALTH_PORT": str(ports.any_free()),
        "SHUTDOWN_TIMEOUT_S": "5",
        **more,
    }


@asynccontextmanager
async def started(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ours; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        env=environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, list[str]]:
    """How it ended by itself: its code, and everything that it said."""
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    return process.returncode, errors.decode().splitlines()


def plain(lines: list[str]) -> list[str]:
    """The lines that are no log."""
    return [line for line in lines if line.startswith("holdfast:")]


async def until(question: Any) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(30):
        while not await question():
            await asyncio.sleep(0.02)
