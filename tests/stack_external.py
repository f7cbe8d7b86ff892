"""Servers that are there already, shared by the test processes: HOLDFAST_TEST_STACK=external.

Guarantees: nothing that is not the tests' is touched. In PostgreSQL they make databases whose names nobody
else has, and drop those; in Temporal they make namespaces, and delete those. A Redis they take as a whole,
because channels, settings and flushes know no databases: one for each process, and only one in which there
is nothing. What a killed process left in PostgreSQL and in Temporal the next run removes; in Redis nothing
is removed that was not put there by this very process, so a Redis that a killed run used has to be emptied
by hand.
"""

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, DeleteNamespaceRequest
from temporalio.api.workflowservice.v1 import ListNamespacesRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from app.contracts.temporal import ATTRIBUTES
from tests.stack import Postgres, Redis, Temporal

DATABASE_URL = "HOLDFAST_TEST_DATABASE_URL"
REDIS_URL = "HOLDFAST_TEST_REDIS_URL"
TEMPORAL_ADDRESS = "HOLDFAST_TEST_TEMPORAL_ADDRESS"

PREFIX = "holdfast_test_"
LOCK = 0x68667473  # "hfts": with a prefix's number, the lock that says that its process lives
CLAIM = "holdfast:tests"
"""A channel: who listens on it has taken that Redis. It outlives no process, and no flush ends it."""
NAMESPACE = "holdfast-test-"
NAMESPACE_LIFE_S = 86_400
"""After so long a namespace is nobody's any more."""
_READY_TIMEOUT_S = 60.0


def refuse_incomplete(processes: int) -> None:
    """Raise pytest.UsageError when an address is missing, or there is no Redis for each of the processes."""
    for name in (DATABASE_URL, REDIS_URL, TEMPORAL_ADDRESS):
        if not os.environ.get(name):
            raise pytest.UsageError(f"{name} is not set: HOLDFAST_TEST_STACK=external needs it")
    servers = {(parts.hostname, parts.port or 6379) for parts in map(urlsplit, redis_urls())}
    if len(servers) < processes:
        raise pytest.UsageError(
            f"{REDIS_URL} names {len(servers)} servers for {processes} test processes: each needs one "
            "that no other uses (addresses with commas between them, or fewer processes: make test WORKERS=1)"
        )


def redis_urls() -> Sequence[str]:
    """The Redis servers, the first for the first process."""
    return [url.strip() for url in os.environ[REDIS_URL].split(",")]


@asynccontextmanager
async def postgres() -> AsyncIterator[Postgres]:
    """A part of the PostgreSQL: whatever has this process's prefix. It is gone at the end."""
    number = secrets.randbits(31)
    server = Postgres(os.environ[DATABASE_URL], f"{PREFIX}{number:08x}_")
    keeper = await asyncpg.connect(server.dsn)
    try:
        await keeper.execute("SELECT pg_advisory_lock($1, $2)", LOCK, number)
        await _drop_left(keeper)
        yield server
        for name in await _ours(keeper):
            if name.startswith(server.prefix):
                await keeper.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await keeper.close()


async def _ours(keeper: asyncpg.Connection) -> list[str]:
    """The databases that tests of this role have made."""
    rows = await keeper.fetch(
        "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND datdba = current_user::regrole",
        PREFIX,
    )
    return [row["datname"] for row in rows if re.match(rf"{PREFIX}[0-9a-f]{{8}}_", row["datname"])]


async def _drop_left(keeper: asyncpg.Connection) -> None:
    """Drop the databases of processes that are no more: their lock is gone with their connection."""
    left = await _ours(keeper)  # before the locks: who makes one has its lock already
    rows = await keeper.fetch(
        "SELECT objid::bigint AS number FROM pg_locks WHERE locktype = 'advisory' AND classid = $1", LOCK
    )
    alive = {f"{row['number']:08x}" for row in rows}
    for name in left:
        if name.removeprefix(PREFIX)[:8] not in alive:
            await keeper.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@asynccontextmanager
async def own_redis(process: int) -> AsyncIterator[Redis]:
    """The Redis of this process, from empty to empty. pytest.UsageError when it is not the tests' to take."""
    url = redis_urls()[process]
    async with redis.asyncio.from_url(url, decode_responses=True) as client, client.pubsub() as claim:
        await claim.subscribe(CLAIM)
        while await claim.get_message(timeout=10) is None:
            pass
        await _refuse_used(client)
        yield Redis(url)
        await client.flushall()


async def _refuse_used(client: "redis.asyncio.Redis[str]") -> None:
    [(_, listening)] = await client.pubsub_numsub(CLAIM)
    parts = client.connection_pool.connection_kwargs
    where = f"{parts.get('host', parts.get('path'))}:{parts.get('port', '')}"
    if int(listening) > 1:
        raise pytest.UsageError(
            f"{REDIS_URL}: tests run on {where} already, and would flush each other's keys"
        )
    full = await client.info("keyspace")
    if full:
        raise pytest.UsageError(
            f"{REDIS_URL}: the Redis at {where} is not empty ({', '.join(sorted(full))}), and the tests "
            "would flush it; name one that is for nothing else, or empty it yourself"
        )


@asynccontextmanager
async def temporal() -> AsyncIterator[Temporal]:
    """A namespace of this process's own; deleted at the end."""
    address = os.environ[TEMPORAL_ADDRESS]
    server = Temporal(address, f"{NAMESPACE}{int(time.time())}-{secrets.token_hex(4)}")
    client = await Client.connect(address, namespace=server.namespace)
    await _delete_left(client)
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=server.namespace,
            description="tests of Holdfast; may be deleted",
            workflow_execution_retention_period=Duration(seconds=NAMESPACE_LIFE_S),
        )
    )
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            while not await _is_ready(client, server):
                await asyncio.sleep(0.2)
        yield server
    finally:
        await client.operator_service.delete_namespace(DeleteNamespaceRequest(namespace=server.namespace))


async def _is_ready(client: Client, server: Temporal) -> bool:
    """Whether a workflow with all our search attributes can be started: every cache has heard of them."""
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=server.namespace, search_attributes=dict.fromkeys(ATTRIBUTES, keyword)
            )
        )
        await server.ask()
        shown = [SearchAttributePair(SearchAttributeKey.for_keyword(name), "x") for name in ATTRIBUTES]
        handle = await client.start_workflow(
            "Nobodys",
            id="is-ready",
            task_queue="nobodys",
            search_attributes=TypedSearchAttributes(shown),
            execution_timeout=timedelta(seconds=1),
        )
        await handle.terminate()
    except (RPCError, RuntimeError):
        return False
    return True


async def _delete_left(client: Client) -> None:
    """Delete the namespaces of runs that are long over."""
    page = await client.workflow_service.list_namespaces(ListNamespacesRequest(page_size=1000))
    for described in page.namespaces:
        made = re.fullmatch(rf"{NAMESPACE}(\d+)-[0-9a-f]{{8}}", described.namespace_info.name)
        if made is not None and int(made[1]) < time.time() - NAMESPACE_LIFE_S:
            await client.operator_service.delete_namespace(
                DeleteNamespaceRequest(namespace=described.namespace_info.name)
            )
