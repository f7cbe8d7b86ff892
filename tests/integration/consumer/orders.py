"""Orders that move, written to PostgreSQL as gateway and worker do it, and what should follow from them."""

import asyncio
import itertools
import os
import time
from datetime import UTC, datetime
from typing import Any

from app.contracts.documents import encode_order
from app.domain import commands as c
from app.domain.errors import Refusal
from app.domain.events import Reason
from app.domain.ids import order_id
from app.domain.money import Money
from app.domain.order import Order
from app.domain.place import place
from app.domain.ports import Address
from app.infra.postgres.catalogue import Cause, PostgresCatalogue
from app.infra.postgres.intake import Answer, Intake, Request
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database

SKU = "cd-1467"

EXPECTED = """
WITH counted AS (
    SELECT (e.time AT TIME ZONE 'UTC')::date AS day, o.currency, e.type, e.data FROM events e
    JOIN orders o ON o.id = e.subject
)
SELECT day, currency,
    count(*) FILTER (WHERE type = 'order.accepted.v1') AS accepted,
    count(*) FILTER (WHERE type = 'order.confirmed.v1') AS confirmed,
    count(*) FILTER (WHERE type = 'order.completed.v1') AS completed,
    count(*) FILTER (WHERE type = 'order.rejected.v1') AS rejected,
    count(*) FILTER (WHERE type = 'order.cancelled.v1') AS cancelled,
    coalesce(sum((SELECT sum((l->>'quantity')::bigint) FROM json_array_elements(data->'lines') l))
        FILTER (WHERE type = 'order.accepted.v1'), 0) AS items,
    coalesce(sum((data->'amount'->>'amount')::bigint)
        FILTER (WHERE type = 'payment.captured.v1'), 0) AS captured,
    coalesce(sum((data->'amount'->>'amount')::bigint)
        FILTER (WHERE type = 'payment.refunded.v1'), 0) AS refunded
FROM counted GROUP BY day, currency ORDER BY day, currency
"""
"""The daily summary, counted straight from the log of record."""

EXPECTED_CUSTOMERS = """
SELECT o.customer_id, o.currency,
    count(*) FILTER (WHERE type = 'order.accepted.v1') AS accepted,
    count(*) FILTER (WHERE type = 'order.completed.v1') AS completed,
    count(*) FILTER (WHERE type = 'order.rejected.v1') AS rejected,
    count(*) FILTER (WHERE type = 'order.cancelled.v1') AS cancelled,
    coalesce(sum((SELECT sum((l->>'quantity')::bigint) FROM json_array_elements(data->'lines') l))
        FILTER (WHERE type = 'order.accepted.v1'), 0) AS items,
    coalesce(sum((data->'amount'->>'amount')::bigint)
        FILTER (WHERE type = 'payment.captured.v1'), 0) AS captured,
    coalesce(sum((data->'amount'->>'amount')::bigint)
        FILTER (WHERE type = 'payment.refunded.v1'), 0) AS refunded,
    min(time) FILTER (WHERE type = 'order.accepted.v1') AS first_order_at,
    max(time) FILTER (WHERE type = 'order.accepted.v1') AS last_order_at
FROM events e JOIN orders o ON o.id = e.subject
GROUP BY o.customer_id, o.currency ORDER BY o.customer_id, o.currency
"""
"""The customers' summaries, counted straight from the log of record."""

EXPECTED_MINUTES = """
WITH counted AS (
    SELECT time, 'orders' AS measure, split_part(type, '.', 2) AS key, 1 AS value FROM events
    WHERE type ~ '^order.(accepted|confirmed|dispatched|completed|rejected|cancelled).v1$'
    UNION ALL SELECT time, 'rejections', data->'reason'->>'code', 1 FROM events
    WHERE type = 'order.rejected.v1'
    UNION ALL SELECT time, 'revenue', data->'amount'->>'currency', (data->'amount'->>'amount')::bigint
    FROM events WHERE type = 'payment.captured.v1'
    UNION ALL SELECT time, 'refunds', data->'amount'->>'currency', (data->'amount'->>'amount')::bigint
    FROM events WHERE type = 'payment.refunded.v1'
    UNION ALL SELECT time, 'price_changes', '', 1 FROM events WHERE type = 'price.changed.v1'
    UNION ALL SELECT time, 'price_adjustments', '', 1 FROM events WHERE type = 'order.repriced.v1'
    UNION ALL SELECT time, 'price_adjusted', data->'difference'->>'currency',
        (data->'difference'->>'amount')::bigint FROM events WHERE type = 'order.repriced.v1'
)
SELECT date_trunc('minute', time) AS minute, measure, key, sum(value)::bigint AS value
FROM counted GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
"""What analytics should hold, counted straight from the log of record."""

BEHIND = """
SELECT count(*) FROM orders o
LEFT JOIN marks m ON m.subject = o.id AND m.consumer_group = 'projections'
WHERE o.version <> coalesce(m.sequence, 0)
"""

BEHIND_IN_ANY = """
SELECT count(*) FROM (SELECT subject, max(sequence) AS last FROM events GROUP BY subject) e
CROSS JOIN unnest($1::text[]) AS g
LEFT JOIN marks m ON m.subject = e.subject AND m.consumer_group = g
WHERE e.last <> coalesce(m.sequence, 0)
"""

GROUPS = ("projections", "analytics", "notifications", "webhooks")


class Orders:
    """Places orders and takes them through their steps."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.catalogue = PostgresCatalogue(database)
        self.intake = Intake(database)
        self.orders = PostgresOrders(database)
        self.numbers = itertools.count(1)
        self.email: str | None = None
        """Where the customers of all orders are told of them."""

    async def stock(self, pieces: int = 1_000_000) -> None:
        """Put one product on a shelf."""
        await self.catalogue.put(SKU, "A disc", Money(1467, "USD"), Cause("corr"))
        await self.database.execute(
            "INSERT INTO stock (sku, warehouse, on_hand) VALUES ($1, 'east', $2)", SKU, pieces
        )

    async def accept(self, quantity: int = 1, *, email: str | None = None) -> Order:
        """One accepted order; with an `email`, one whose customer is to be told."""
        number = next(self.numbers)
        wanted = c.PlaceOrder(
            f"customer-{number % 3}", "USD", (c.WantedLine(SKU, quantity),), "pm_card_visa", None
        )
        catalogue = await self.catalogue.products([SKU])
        name = order_id(int(time.time() * 1000), os.urandom(10))
        placed = place(wanted, name, catalogue, f"corr-{number}", datetime.now(UTC))
        assert not isinstance(placed, Refusal), placed
        order, event = placed
        request = Request("test", "POST /v1/orders", f"key-{number}-{name}", b"")
        answer = Answer(202, f"/v1/orders/{name}", encode_order(order))
        told = email or self.email
        address = Address("Ada", "1 Main St", "Springfield", "12345", "US", email=told) if told else None
        await self.intake.accept(request, order, event, answer, address=address, traceparent=None)
        return order

    async def record(self, order: Order, *commands: c.Command) -> Order:
        """Decide some commands."""
        for command in commands:
            after = await self.orders.record(order.id, command)
            assert not isinstance(after, Refusal), after
            order = after
        return order

    async def confirm(self, order: Order) -> Order:
        """Reserved, authorized, booked."""
        reserved = await self.orders.reserve(order.id)
        assert not isinstance(reserved, Refusal), reserved
        booked = [c.RecordBooking(f.id, f"shp_{f.id}", "track") for f in reserved.fulfilments]
        return await self.record(
            reserved,
            c.RecordIntent("pi_1"),
            c.RecordAuthorization("pi_1", order.total),
            *booked,
        )

    async def complete(self, order: Order) -> Order:
        """All the way."""
        order = await self.confirm(order)
        order = await self.record(order, c.ReleaseOrder())
        for fulfilment in order.fulfilments:
            order = await self.record(order, c.RecordDispatch(fulfilment.id))
        order = await self.record(order, c.RecordCapture(order.total))
        for fulfilment in order.fulfilments:
            order = await self.record(order, c.RecordDelivery(fulfilment.id))
        assert order.status == "completed"
        return order

    async def reject(self, order: Order) -> Order:
        """Refused."""
        return await self.record(order, c.RejectOrder(Reason("out_of_stock", "None left.")))

    async def many(self, number: int, *, at_once: int = 8, pause_s: float = 0) -> None:
        """So many orders, of which every fourth is rejected and every fourth only accepted."""
        limit = asyncio.Semaphore(at_once)

        async def one(index: int) -> None:
            async with limit:
                await asyncio.sleep(pause_s)
                order = await self.accept(1 + index % 3)
                if index % 4 == 1:
                    await self.reject(order)
                elif index % 4 != 2:
                    await self.complete(order)

        await asyncio.gather(*(one(index) for index in range(number)))

    async def summary(self) -> list[dict[str, Any]]:
        """The daily summary as it stands."""
        rows = await self.database.fetch("SELECT * FROM daily_summary ORDER BY day, currency")
        return [dict(row) for row in rows]

    async def expected(self) -> list[dict[str, Any]]:
        """The daily summary as it should be."""
        return [dict(row) for row in await self.database.fetch(EXPECTED)]

    async def customers(self) -> list[dict[str, Any]]:
        """The customers' summaries as they stand."""
        rows = await self.database.fetch("SELECT * FROM customer_summary ORDER BY customer_id, currency")
        return [dict(row) for row in rows]

    async def expected_customers(self) -> list[dict[str, Any]]:
        """The customers' summaries as they should be."""
        return [dict(row) for row in await self.database.fetch(EXPECTED_CUSTOMERS)]

    async def caught_up(self, *, timeout_s: float = 60) -> None:
        """Wait until everything has had its effect; then the summary is right to the piece."""
        try:
            async with asyncio.timeout(timeout_s):
                while await self.behind():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{await self.behind()} orders are behind") from None
        assert await self.summary() == await self.expected()
        assert await self.customers() == await self.expected_customers()

    async def all_caught_up(self, *, timeout_s: float = 60) -> None:
        """Wait until everything has had its effect in every group; then all sums are right to the cent."""
        try:
            async with asyncio.timeout(timeout_s):
                while behind := (await self.database.fetch(BEHIND_IN_ANY, GROUPS))[0]["count"]:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{behind} subjects are behind") from None
        assert await self.summary() == await self.expected()
        assert await self.customers() == await self.expected_customers()
        counted = await self.database.fetch("SELECT * FROM analytics_minutes ORDER BY 1, 2, 3")
        expected = await self.database.fetch(EXPECTED_MINUTES)
        assert [dict(row) for row in counted] == [dict(row) for row in expected]

    async def behind(self) -> int:
        """How many orders have events that had no effect."""
        return int((await self.database.fetch(BEHIND))[0]["count"])

    async def waiting(self) -> int:
        """How many events no stream has."""
        return int((await self.database.fetch("SELECT count(*) FROM event_outbox"))[0]["count"])
