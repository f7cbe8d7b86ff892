"""The benchmark `intake`: orders accepted and durable, over HTTP, by one gateway.

Ours is the whole way of `POST /v1/orders`: a gateway as `holdfast up` starts it, PostgreSQL with synced
commits, Valkey; keys, customers and bodies are new in every request, sent over 64 connections. The worker and
the consumer do not run: what they do is no part of accepting.

The limit is what HTTP and PostgreSQL allow if nothing else cost anything: T* = 1 / (1/A1 + 1/A3), where A1 is
a bare Granian that decodes the same bodies, under the same load, and A3 writes the same orders and events in
large batches. A2 writes one order and its event a commit. Orders are counted in PostgreSQL afterwards.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg

from app.infra.postgres.migrate import migrate
from bench import load, shop
from bench.child import ChildSide, Run
from bench.harness import Contest, Effect, Figure, InSeries, Setting
from bench.modes import Modes, modes
from bench.processor import CLIENT_CPU, SERVER_CPU
from bench.references import inserts
from bench.references.bare_process import Bare, bare
from bench.samples import Sample
from bench.servers import postgres, valkey

NAME = "intake"
CONNECTIONS = 64
SECONDS = 1.5


@asynccontextmanager
async def orders(port: int, api_key: str) -> AsyncIterator[Run]:
    """The load: new orders, each answered 202 or the run fails. Preparing the requests is not timed."""
    made = shop.orders(api_key)
    rate = 4_000.0

    async def run(seconds: float) -> Sample:
        nonlocal rate
        requests = [next(made) for _ in range(int(rate * seconds * 1.5) + CONNECTIONS)]
        plan = load.Plan(
            port=port, requests=requests, connections=CONNECTIONS, seconds=seconds, repeat=False, bound_s=10
        )
        result = (await load.run(plan)).expect(202)
        rate = max(rate, result.rate)
        return sample_of(result)

    yield run


def sample_of(result: load.Result) -> Sample:
    """A run of the load generator as a sample: every answer, over the time until the last."""
    p50, p99, worst = result.latency_ms(0.5, 0.99, 1)
    values = {"p50_ms": p50, "p99_ms": p99, "max_ms": worst}
    return Sample(result.sent, result.drained_s, {"client": result.cpu_s}, values)


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """One contest with two references."""
    async with postgres(setting) as database, valkey(setting, durable=True) as redis:
        await migrate(database.dsn)
        await inserts.make_tables(database.dsn)
        stack = modes(setting, dsn=database.dsn, redis_port=redis.port)
        await shop.stock_up(database.dsn, stack.api_key)
        async with (
            stack.running("gateway", cpus=[CLIENT_CPU]) as gateway,
            bare(setting, "echo", cpus=[CLIENT_CPU]) as echo,
        ):
            servers = {"postgres": database.pid, "valkey": redis.pid}
            yield [_contest(stack, gateway, echo, {name: pid for name, pid in servers.items() if pid})]


def _contest(stack: Modes, gateway: int, echo: Bare, servers: Mapping[str, int]) -> Contest:
    def sending(name: str, port: int, pids: Mapping[str, int]) -> ChildSide:
        options = {"port": port, "api_key": stack.api_key}
        log = stack.setting.log(f"load-{name}".replace(" ", "-"))
        return ChildSide(name, "bench.intake:orders", options, log=log, cpu=SERVER_CPU, servers=pids)

    def writing(name: str, factory: str) -> ChildSide:
        log = stack.setting.log(factory)
        where = {"dsn": stack.dsn}
        return ChildSide(
            name, f"bench.references.inserts:{factory}", where, log=log, cpu=CLIENT_CPU, servers=servers
        )

    ours = sending("gateway", stack.port("gateway"), {"gateway": gateway, **servers})
    batched, single = writing("batched UNNEST", "batched"), writing("one INSERT a commit", "single")
    limit = InSeries("limit", sending("bare Granian", echo.port, {"server": echo.pid}), batched)

    async def effects(totals: Mapping[str, float]) -> Sequence[Effect]:
        return await _effects(stack.dsn, totals[ours.name], totals[batched.name] + totals[single.name])

    return Contest(
        ours=ours,
        references=[limit, single],
        figures=[
            Figure("vs_limit", goal=0.4, reference=limit.name),
            Figure("vs_single_commit", goal=1.5, reference=single.name),
        ],
        effects=effects,
        seconds=SECONDS,
    )


async def _effects(dsn: str, accepted: float, written: float) -> list[Effect]:
    """What is in PostgreSQL for everything that was answered."""
    counted = {
        "orders accepted": ("SELECT count(*) FROM orders WHERE status = 'accepted'", accepted),
        "their first events": ("SELECT count(*) FROM events WHERE type = 'order.accepted.v1'", accepted),
        "answers kept for their keys": ("SELECT count(*) FROM idempotency WHERE status = 202", accepted),
        "workflows to start": ("SELECT count(*) FROM workflow_outbox WHERE kind = 'start'", accepted),
        "events to publish": ("SELECT count(*) FROM event_outbox WHERE sequence = 1", accepted),
        "orders of the references": (f"SELECT count(*) FROM {inserts.SCHEMA}.orders", written),
        "events of the references": (f"SELECT count(*) FROM {inserts.SCHEMA}.events", written),
    }
    connection = await asyncpg.connect(dsn)
    try:
        return [
            Effect(what, expected, await connection.fetchval(query))
            for what, (query, expected) in counted.items()
        ]
    finally:
        await connection.close()
