"""A rolling update under load: every mode is replaced, new before old, and nobody outside notices.

Processes stand in for pods: a new one is started and ready, then the old one leaves the balancer, waits as
the manifests' preStop does, and is told to stop. Customers order and read all the while and try nothing
twice.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from app.config import values
from app.infra.temporal.client import connect
from tests.acceptance.balancer import Balancer, balancing
from tests.acceptance.customers import Customers
from tests.acceptance.pods import MODES, Pod, Pods, pods
from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack
from tests.acceptance.test_providers_misbehave import control
from tests.acceptance.versions import carriers, make_current, version_of

DEPLOYMENT = "holdfast-dev/worker"
CLIENTS = 12
ORDERS_PER_S = 1  # a small machine carries them beside processes that start
STEP = 6  # orders between two steps of the update
PIECES = 10_000
SETTLE_S = 400.0
LATE_MS = 5_000  # a carrier that answers late: some orders are under way whenever their worker is replaced

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]


class Cluster:
    """A stack whose own modes are gone: pods serve instead, behind a balancer on the gateway's port."""

    def __init__(self, status: dict[str, Any], made: Pods, balancer: Balancer, temporal: Client) -> None:
        self.status = status
        self.pods = made
        self.balancer = balancer
        self.temporal = temporal

    async def one(self, mode: str) -> Pod:
        """The pod of this mode; a new one where there is none."""
        for pod in self.pods.all:
            if pod.mode == mode and pod.process.returncode is None:
                return pod
        pod = await self.pods.start(f"{mode}-1", mode)
        if mode == "gateway":
            self.balancer.add(pod.port)
            await self.balancer.until_ready(pod.port)
        return pod


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Servers that stay, and no mode yet."""
    stack = Stack(tmp_path_factory.mktemp("rollout") / "data")
    await stack.up("--no-restart")
    try:
        status = await stack.status()
        async with pods(status, stack.data_dir / "logs") as made:
            for mode in MODES:
                await end(status[mode]["pids"][0])
            port = int(status["gateway"]["url"].rpartition(":")[2])
            async with balancing(port) as balancer:
                temporal = status["temporal"]
                client = await connect(
                    temporal["address"], temporal["namespace"], tls_cert=None, tls_key=None, api_key=None
                )
                yield Cluster(status, made, balancer, client)
    finally:
        await stack.down()


async def end(pid: int) -> None:
    """SIGTERM, and wait until it is gone."""
    os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            await asyncio.sleep(0.05)


async def test_a_rolling_update_loses_no_request_and_no_order(cluster: Cluster):
    """Gateway, consumer and worker are replaced; old workflows are replayed and go on at the new worker."""
    made, balancer = cluster.pods, cluster.balancer
    gateway, worker, consumer = [await cluster.one(mode) for mode in MODES]
    shop = Shop(cluster.status)
    try:
        await shop.stock("rolled", PIECES)
        customers = Customers(shop, "rolled", clients=CLIENTS, orders_per_s=ORDERS_PER_S)
        try:
            await customers.until_placed(STEP)
            gateway = await made.replace(gateway, "gateway-2", balancer)
            await customers.until_placed(STEP)
            consumer = await made.replace(consumer, "consumer-2")
            await customers.until_placed(STEP)
            await control(shop, provider="carrier", mode="late", operations=["book"], delay_ms=LATE_MS)
            await customers.until_placed(STEP)
            new = await made.replace(worker, "worker-2")
            await control(shop)
            await customers.until_placed(STEP)
            await made.replace(gateway, "gateway-3", balancer)
            await customers.until_placed(STEP)
        finally:
            await customers.stop()
        assert not customers.failures, "\n".join(customers.failures)
        settled = await shop.audit(settle_timeout_s=SETTLE_S)
        print(f"{customers.requests} requests, orders {dict(settled)}")
        assert set(settled) == {"completed"}
        carried = [await carriers(cluster.temporal, one) for one in shop.placed]
        assert [failed for _, failed in carried if failed] == [], "a replay differs from what was done"
        both = [names for names, _ in carried if len(names) > 1]
        print(f"{len(both)} orders were begun by the old worker and ended by the new one")
        assert both, "the old worker was stopped in the middle of orders"
        assert new.process.returncode is None
    finally:
        await shop.close()


async def test_orders_of_an_old_version_end_on_it(cluster: Cluster):
    """With versions: the new one becomes current, the old one stays until its last order is done."""
    made, queues = cluster.pods, set(values.QUEUES)
    _, before, _ = [await cluster.one(mode) for mode in MODES]
    shop = Shop(cluster.status)
    try:
        await shop.stock("versioned", PIECES)
        named = {"TEMPORAL_DEPLOYMENT_NAME": DEPLOYMENT}
        old = await made.start("worker-v1", "worker", **named, TEMPORAL_WORKER_BUILD_ID="v1")
        await make_current(cluster.temporal, DEPLOYMENT, "v1", queues)
        assert await before.stop() == 0, before.end_of_log()
        customers = Customers(shop, "versioned", clients=CLIENTS, orders_per_s=ORDERS_PER_S)
        try:
            await customers.until_placed(2 * STEP)
            new = await made.start("worker-v2", "worker", **named, TEMPORAL_WORKER_BUILD_ID="v2")
            await make_current(cluster.temporal, DEPLOYMENT, "v2", queues)
            await customers.until_placed(2 * STEP)
        finally:
            await customers.stop()
        assert not customers.failures, "\n".join(customers.failures)
        await shop.settled(SETTLE_S)
        versions = {one: await version_of(cluster.temporal, one) for one in shop.placed}
        assert set(versions.values()) == {"v1", "v2"}
        assert await old.stop() == 0, old.end_of_log()
        assert set(await shop.audit()) == {"completed"}
        pids = {"v1": old.process.pid, "v2": new.process.pid}
        for one, version in versions.items():
            names, failed = await carriers(cluster.temporal, one)
            assert failed == []
            assert {name.partition("@")[0] for name in names} == {str(pids[str(version)])}
    finally:
        await shop.close()
