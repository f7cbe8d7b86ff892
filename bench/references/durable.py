"""DBOS Transact doing the same provider and database work: the platform's steps as steps of a DBOS workflow.

The very functions that the worker runs (reserve, authorize, book, release, capture), on the same server of
PostgreSQL (a database of its own), against a sandbox of the same kind. Its orders are in place beforehand, so
accepting them costs it nothing, and nobody reports their delivery. DBOS keeps its state in PostgreSQL and
needs no other server.
"""

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from app.contracts import temporal as t
from app.infra.carriers.http import HttpCarrier
from app.infra.payments.stripe import StripePayments
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.workers.activities.inventory import InventoryActivities
from app.workers.activities.payments import PaymentActivities
from app.workers.activities.shipping import ShippingActivities
from bench import placed, shop
from bench.child import Run
from bench.harness import Unavailable
from bench.samples import BenchmarkFailed, Sample

CONNECTIONS = 10
Step = Callable[[t.Step], Awaitable[t.Progress]]


def _launched(system_url: str, orders: PostgresOrders, payments: StripePayments, carrier: HttpCarrier) -> Any:  # noqa: ANN401
    """DBOS with its one workflow; the workflow."""
    try:
        from dbos import DBOS  # noqa: PLC0415 - a peer, which may not be installed
    except ImportError as error:
        raise Unavailable(str(error)) from error
    inventory, paying = InventoryActivities(orders), PaymentActivities(orders, payments)
    shipping = ShippingActivities(orders, carrier)

    def as_function(step: Step) -> Step:
        async def run(asked: t.Step) -> t.Progress:
            return await step(asked)

        return run

    steps = [
        DBOS.step(name=name)(as_function(step))
        for name, step in (
            (t.RESERVE_STOCK, inventory.reserve_stock),
            (t.AUTHORIZE_PAYMENT, paying.authorize_payment),
            (t.BOOK_SHIPMENTS, shipping.book_shipments),
            (t.RELEASE_SHIPMENTS, shipping.release_shipments),
            (t.CAPTURE_PAYMENT, paying.capture_payment),
        )
    ]

    @DBOS.workflow(name="carry")
    async def carry(order_id: str) -> str:
        progress = None
        for step in steps:
            progress = await step(t.Step(order_id, order_id))
        return str(progress.status) if progress else ""

    DBOS(
        config={
            "name": "bench",
            "system_database_url": system_url.replace("postgresql://", "postgresql+psycopg://"),
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    return carry


@asynccontextmanager
async def many(
    dsn: str, system_url: str, sandbox_url: str, stripe_api_key: str, in_flight: int
) -> AsyncIterator[Run]:
    """So many orders in flight; the time is over when the last is dispatched and paid."""
    async with AsyncExitStack() as stack:
        database = await Database(dsn, size=CONNECTIONS, name="bench").open()
        stack.push_async_callback(database.close)
        payments = StripePayments(stripe_api_key, api_base=sandbox_url)
        stack.push_async_callback(payments.aclose)
        carrier = HttpCarrier(sandbox_url)
        stack.push_async_callback(carrier.aclose)
        carry = _launched(system_url, PostgresOrders(database), payments, carrier)
        stack.callback(_destroy)
        waiting: deque[str] = deque()
        rate = 50.0

        async def run(seconds: float) -> Sample:
            nonlocal rate
            waiting.extend(await _place(dsn, int(rate * seconds * 2) + in_flight - len(waiting)))
            sample = await _carried(carry, waiting, seconds, in_flight)
            rate = max(rate, sample.operations / sample.wall_s)
            return sample

        yield run


async def _carried(carry: Any, waiting: deque[str], seconds: float, in_flight: int) -> Sample:  # noqa: ANN401
    cpu, began = time.process_time(), time.perf_counter()
    done = 0

    async def one_after_another() -> None:
        nonlocal done
        while waiting and time.perf_counter() - began < seconds:
            status = await carry(waiting.popleft())
            if status != "dispatched":
                raise BenchmarkFailed(f"an order ended {status}")
            done += 1

    await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
    wall_s = time.perf_counter() - began
    return Sample(done, wall_s, {"worker": time.process_time() - cpu})


async def _place(dsn: str, count: int) -> list[str]:
    """Accepted orders of the shop."""
    made = []
    for _ in range(max(count, 0)):
        lines = [(shop.sku(item), 1) for item in random.sample(range(shop.SKUS), random.choice((1, 1, 2, 3)))]
        made.append(placed.accepted(f"cust-{secrets.token_hex(8)}", lines))
    await placed.put(dsn, [order for order, _ in made], [placed.linked(*pair) for pair in made])
    return [order.id for order, _ in made]


def _destroy() -> None:
    from dbos import DBOS  # noqa: PLC0415 - a peer, which may not be installed

    DBOS.destroy()
