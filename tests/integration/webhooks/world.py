"""Endpoints, the deliveries to them, and a worker that sends, put together as in consumer and worker."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from app.consumer.dispatch import WEBHOOKS, group
from app.consumer.effect import Delivery, Effect
from app.contracts import temporal as t
from app.contracts.streams import Envelope
from app.domain.webhooks import Outcome, Post, Receipt, secret_of
from app.infra.postgres.answers import Request
from app.infra.postgres.event_outbox import envelope
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import PostgresProjections
from app.infra.postgres.webhook_deliveries import WebhookDeliveries
from app.infra.postgres.webhook_endpoints import Wanted, WebhookEndpoints
from app.infra.postgres.webhook_waiting import WaitingDeliveries
from app.infra.postgres.workflow_jobs import WorkflowJobs
from app.infra.redis.streams import Entry
from app.infra.webhooks.sender import HttpSender
from app.workers.activities.webhooks import WebhookActivities
from app.workers.heartbeats import Heartbeats
from app.workers.teller import Teller
from app.workers.webhook_starter import WebhookStarter
from app.workers.workflows.webhook import WebhookDeliveryWorkflow
from tests.integration.consumer.orders import Orders
from tests.integration.workers.poll import Poll
from tests.workflows.world import SANDBOX

SOURCE = "/holdfast/test"
NOWHERE = Entry(0, b"0-1", b"")
BREAKER_FAILURES = 3
BREAKER_S = 60.0
"""So long that no test sees it pass, however slow the machine."""
LEASE_S = 50.0
QUICK = (0.05, 0.1, 0.2, 0.4, 0.8)
"""A schedule for people in a hurry."""

_numbers = itertools.count(1)

EVENTS = """
SELECT subject, sequence, type, time, correlation_id, traceparent, data FROM events
WHERE subject = ANY ($1::text[]) ORDER BY time, subject, sequence
"""


class World:
    """Endpoints and deliveries in one database."""

    def __init__(self, database: Database, orders: Orders) -> None:
        self.database = database
        self.orders = orders
        self.endpoints = WebhookEndpoints(database)
        self.told = 0
        """How often it was said that others wait."""
        self.breaker_failures = BREAKER_FAILURES
        self.breaker_first_s = BREAKER_S
        self.waiting = WaitingDeliveries(database)
        self.waits_s: tuple[float, ...] | None = None
        self.room = Poll()
        self.effect = Effect(group("webhooks", WEBHOOKS), PostgresProjections(database, SOURCE))

    @cached_property
    def deliveries(self) -> WebhookDeliveries:
        """The record, as a worker works on it."""
        return WebhookDeliveries(
            self.database,
            SOURCE,
            breaker_failures=self.breaker_failures,
            breaker_first_s=self.breaker_first_s,
            others_wait=self._tell,
        )

    def _tell(self) -> None:
        self.told += 1
        self.room.wake()

    async def endpoint(
        self, url: str, *types: str, customer: str | None = None, name: str | None = None
    ) -> tuple[str, str]:
        """A new endpoint: its id and its secret."""
        number = next(_numbers)
        name, secret = name or f"whe_{number:026d}", secret_of(os.urandom(32))
        await self.endpoints.add(
            Request("test", "POST /v1/webhook-endpoints", f"{name}-{number}", b""),
            name,
            Wanted(url=url, event_types=types),
            customer_id=customer,
            secret=secret,
            encode=lambda *_: b"{}",
        )
        return name, secret

    async def events(self, *subjects: str) -> list[Envelope]:
        """What happened to some subjects."""
        return [envelope(row, SOURCE) for row in await self.database.fetch(EVENTS, subjects)]

    async def happen(self, *subjects: str) -> list[Envelope]:
        """Let the group `webhooks` have all events of some subjects, as its reader does."""
        events = await self.events(*subjects)
        given: dict[str, Delivery] = {}
        for event in events:
            given.setdefault(event.subject, Delivery(event.subject, known={}, entries=[])).add(event, NOWHERE)
        await self.effect.apply(list(given.values()))
        await self.database.execute("DELETE FROM workflow_outbox")  # no order waits to be started
        return events

    async def rows(self) -> list[dict[str, Any]]:
        """All deliveries, the oldest first."""
        found = await self.database.fetch("SELECT * FROM webhook_deliveries ORDER BY number")
        return [dict(row) for row in found]

    async def one(self, delivery_id: str) -> dict[str, Any]:
        """A delivery."""
        return next(row for row in await self.rows() if row["id"] == delivery_id)

    async def states(self) -> list[str]:
        """The states of all deliveries."""
        return [row["state"] for row in await self.rows()]

    async def breaker(self) -> dict[str, Any]:
        """The only breaker there is."""
        (row,) = await self.database.fetch("SELECT *, open_until > now() AS is_open FROM webhook_breakers")
        return dict(row)

    async def attempt(self, delivery_id: str, status: int | None, again_in_s: float | None = 60.0) -> Outcome:
        """One attempt that is answered so, without sending anything."""
        round_ = (await self.one(delivery_id))["round"]
        post = await self.deliveries.begin(delivery_id, round_, may_wait=True)
        if isinstance(post, Outcome):
            return post
        assert isinstance(post, Post)
        error = None if status is not None and status < 300 else f"answered {status}"
        return await self.deliveries.end(post, round_, Receipt(status, error), again_in_s)

    async def begin(self, limit: int = 100) -> list[str]:
        """Begin whose turn it is, as if Temporal had taken them; their ids, in the order of their turns."""
        claimed = await self.waiting.claim(limit, LEASE_S)
        if claimed:
            await self.waiting.done([one.id for one in claimed])
        return [one.delivery_id for one in claimed]

    @asynccontextmanager
    async def telling(self, client: Client) -> AsyncIterator[None]:
        """Start the workflows of deliveries whose turn it is, and of the jobs that there are."""
        starter = WebhookStarter(self.waiting, client, self.room, waits_s=self.waits_s)
        teller = Teller(WorkflowJobs(self.database, t.JOBS), client, Poll())
        tasks = [asyncio.create_task(task) for task in (starter.run(), starter.give_up(), teller.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [error for error in ended if isinstance(error, Exception)], ended

    @asynccontextmanager
    async def working(self, client: Client, timeout_s: float = 15.0) -> AsyncIterator[WebhookActivities]:
        """A teller and a worker that send, workflows in the sandbox."""
        sender = HttpSender(private_allowed=True, timeout_s=timeout_s)
        activities = WebhookActivities(self.deliveries, sender)
        worker = Worker(
            client,
            task_queue=t.QUEUE_NOTIFICATIONS,
            workflows=[WebhookDeliveryWorkflow],
            activities=[activities.send_webhook],
            workflow_runner=SANDBOX,
            interceptors=[Heartbeats()],
            max_cached_workflows=2000,
        )
        running = asyncio.create_task(worker.run())
        try:
            async with self.telling(client):
                yield activities
        finally:
            await worker.shutdown()
            await running
            sender.close()
