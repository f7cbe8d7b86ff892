"""The benchmark `order`: what carrying an order costs, through the whole platform.

Ours is placed at a gateway and carried by a worker with Temporal and the sandbox providers; deliveries come
back as signed webhooks. All are processes as `holdfast up` starts them. The consumer does not run: it follows
what happened, and no order waits for it. An order does not stop at `confirmed` (reserve, authorize, book):
its workflow releases the parcel, captures the money and hears of the delivery, and that work falls into the
time that is measured. So:

- `vs_regular`: 50 in flight (accepted and not yet confirmed), and the time ends when the last is *completed*.
  The reference F1 is a workflow of as many regular activities as such an order has in its history (five; one
  history is counted afterwards), 50 in flight, until the last has ended. Beside it, for information, F1 with
  only the three that lead to `confirmed`.
- `worker_cpu_vs_regular`: the worker's processor time an order over that same time, everything included; of
  F1 the process that starts its workflows and runs them.
- `p50_vs_regular`: one at a time, from the time in the event `order.accepted` to that in `order.confirmed`;
  of F1 from before the start is asked for until its third activity runs.
- `vs_dbos`, for information: the same five steps in DBOS Transact, on the same server of PostgreSQL.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from temporalio.api.enums.v1 import EventType

from app.contracts import temporal as t
from app.dev.servers import EmbeddedTemporal
from app.dev.stack.modes import Plan
from app.infra.postgres.migrate import migrate
from app.infra.temporal.client import connect
from bench import shop
from bench.child import ChildSide
from bench.harness import Contest, Effect, Figure, Setting
from bench.modes import Modes, modes, process
from bench.samples import cpu_per_operation, value
from bench.servers import postgres, temporal, valkey

NAME = "order"
IN_FLIGHT = 50
SECONDS = 4.0
ALONE_S = 3.0
UNTIL_CONFIRMED = (t.RESERVE_STOCK, t.AUTHORIZE_PAYMENT, t.BOOK_SHIPMENTS)
AFTERWARDS = (t.RELEASE_SHIPMENTS, t.CAPTURE_PAYMENT)
STEPS = len(UNTIL_CONFIRMED) + len(AFTERWARDS)
PEER_DATABASES = ("peer", "peer_system")


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """Two contests: many in flight, and one at a time."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres(setting))
        redis = await stack.enter_async_context(valkey(setting, durable=True))
        workflows = await stack.enter_async_context(temporal(setting))
        await migrate(database.dsn)
        platform = modes(setting, dsn=database.dsn, redis_port=redis.port, temporal_port=workflows.port)
        await shop.stock_up(database.dsn, platform.api_key)
        pids = {"postgres": database.pid, "temporal": workflows.pid}
        for name in ("sandbox", "gateway", "worker"):
            pids[name] = await stack.enter_async_context(platform.running(name))
        servers = {name: pid for name, pid in pids.items() if pid is not None}
        sides = _Sides(setting, platform, workflows, servers)
        yield [await _many(stack, sides), _alone(sides)]


class _Sides:
    """The sides of both contests."""

    def __init__(
        self, setting: Setting, platform: Modes, workflows: EmbeddedTemporal, servers: Mapping[str, int]
    ) -> None:
        self.setting = setting
        self.platform = platform
        self.workflows = workflows
        self._servers = servers

    def ours(self, name: str, kind: str, customers: str, **more: int) -> ChildSide:
        """The platform."""
        where = {"port": self.platform.port("gateway"), "api_key": self.platform.api_key}
        options = {**where, "dsn": self.platform.dsn, "customers": customers, **more}
        return self._child(name, f"bench.order_driver:{kind}", options, self._servers)

    def regular(self, name: str, kind: str, **more: int) -> ChildSide:
        """F1."""
        options = {"address": self.workflows.address, "namespace": self.workflows.namespace, **more}
        return self._child(
            name, f"bench.references.regular:{kind}", options, {"temporal": self._servers["temporal"]}
        )

    def durable(self, dsn: str, system_url: str, sandbox_url: str, sandbox: int) -> ChildSide:
        """DBOS Transact."""
        key = self.platform.plan.secrets.stripe_api_key
        options = {"dsn": dsn, "system_url": system_url, "sandbox_url": sandbox_url, "stripe_api_key": key}
        return self._child(
            "DBOS Transact",
            "bench.references.durable:many",
            {**options, "in_flight": IN_FLIGHT},
            {"postgres": self._servers["postgres"], "sandbox": sandbox},
        )

    def _child(
        self, name: str, factory: str, options: dict[str, Any], servers: Mapping[str, int]
    ) -> ChildSide:
        log = self.setting.log("side-" + name.replace(" ", "-").replace(",", ""))
        return ChildSide(name, factory, options, log=log, servers=servers)


async def _many(stack: AsyncExitStack, sides: _Sides) -> Contest:
    """50 in flight."""
    ours = sides.ours("orders", "many", "many", in_flight=IN_FLIGHT)
    regular = sides.regular(f"F1, {STEPS} activities", "many", steps=STEPS, in_flight=IN_FLIGHT)
    short = sides.regular(
        f"F1, {len(UNTIL_CONFIRMED)} activities", "many", steps=len(UNTIL_CONFIRMED), in_flight=IN_FLIGHT
    )
    peer_dsn, system_url = await _peer_databases(sides.platform)
    sandbox_url, sandbox = await _peer_sandbox(stack, sides)
    durable = sides.durable(peer_dsn, system_url, sandbox_url, sandbox)

    async def effects(totals: Mapping[str, float]) -> Sequence[Effect]:
        found = await _carried(sides, "many", totals[ours.name])
        if durable.name in totals:
            query = "SELECT count(*) FROM orders WHERE status = 'dispatched'"
            found.append(await _counted(peer_dsn, "orders of DBOS dispatched", query, totals[durable.name]))
        return found

    return Contest(
        ours=ours,
        references=[regular],
        peers=[short, durable],
        figures=[
            Figure("vs_regular", goal=0.8),
            Figure(
                "worker_cpu_vs_regular",
                goal=2,
                unit="ms",
                better="lower",
                of=cpu_per_operation("worker", unit_s=1e-3),
            ),
            Figure("vs_dbos", goal=None, reference=durable.name),
        ],
        effects=effects,
        seconds=SECONDS,
        warm_up_s=2.0,
    )


def _alone(sides: _Sides) -> Contest:
    """One at a time."""
    ours = sides.ours("orders, one at a time", "one_at_a_time", "alone")
    confirmed = len(UNTIL_CONFIRMED)
    regular = sides.regular("F1, one at a time", "one_at_a_time", steps=STEPS, confirmed=confirmed)

    async def effects(totals: Mapping[str, float]) -> Sequence[Effect]:
        return await _carried(sides, "alone", totals[ours.name])

    return Contest(
        ours=ours,
        references=[regular],
        figures=[Figure("p50_vs_regular", goal=1.5, unit="ms", better="lower", of=value("p50_ms"))],
        effects=effects,
        seconds=ALONE_S,
        warm_up_s=1.0,
    )


async def _carried(sides: _Sides, customers: str, expected: float) -> list[Effect]:
    """What is in PostgreSQL for the orders of a contest, and in the history of one of them."""
    dsn, whose = sides.platform.dsn, f"customer_id LIKE '{customers}-%'"
    newest = f"SELECT id FROM orders WHERE {whose} ORDER BY id DESC LIMIT 1"
    events = f"SELECT count(*) FROM events JOIN orders ON id = subject WHERE {whose} AND type = "
    captured = (
        f"SELECT count(DISTINCT order_id) FROM ledger_transfers JOIN orders ON id = order_id WHERE {whose}"
    )
    connection = await asyncpg.connect(dsn)
    try:
        order_id = await connection.fetchval(newest)
    finally:
        await connection.close()
    return [
        await _counted(dsn, "orders confirmed", f"{events} 'order.confirmed.v1'", expected),
        await _counted(dsn, "orders completed", f"{events} 'order.completed.v1'", expected),
        await _counted(dsn, "orders in the ledger", captured, expected),
        Effect("activities in the history of one", STEPS, await _activities(sides.workflows, order_id)),
    ]


async def _counted(dsn: str, what: str, query: str, expected: float) -> Effect:
    connection = await asyncpg.connect(dsn)
    try:
        return Effect(what, expected, await connection.fetchval(query))
    finally:
        await connection.close()


async def _activities(workflows: EmbeddedTemporal, order_id: str) -> int:
    client = await connect(workflows.address, workflows.namespace, tls_cert=None, tls_key=None, api_key=None)
    history = await client.get_workflow_handle(t.workflow_id(order_id)).fetch_history()
    scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    return sum(event.event_type == scheduled for event in history.events)


async def _peer_databases(platform: Modes) -> tuple[str, str]:
    """Databases of the peer's own on the same server: one with the shop in it, one for its state."""
    connection = await asyncpg.connect(platform.dsn)
    try:
        for name in PEER_DATABASES:
            await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    dsn, system_url = (urlsplit(platform.dsn)._replace(path=f"/{name}").geturl() for name in PEER_DATABASES)
    await migrate(dsn)
    await shop.stock_up(dsn, platform.api_key)
    return dsn, system_url


async def _peer_sandbox(stack: AsyncExitStack, sides: _Sides) -> tuple[str, int]:
    """A sandbox of the peer's own, which reports to nobody; its address and its pid."""
    there = sides.platform.plan
    other = modes(sides.setting, dsn="", redis_port=0, folder="peer").plan
    plan = Plan(other.folder, other.run, other.ports, there.secrets)
    spec = plan.sandbox()
    silent = replace(spec, name="sandbox-peer", argv=spec.argv[: spec.argv.index("--webhook-url")])
    pid = await stack.enter_async_context(process(sides.setting, silent))
    return plan.sandbox_url, pid
