"""`WebhookDeliveries`: one event to one endpoint, from being written to its end; the port `Deliveries`.

A delivery's id is made of endpoint and event, so an event that is handled twice makes one; it is written in
the transaction of the group's mark, and waits for its turn (`WaitingDeliveries`). One that somebody has sent
by hand does not stand in line: it comes with the job that starts its workflow. An endpoint that fails
`BREAKER_FAILURES` times in a row is left alone for a while, longer each time; then one delivery at a time
tries it, and all others go back to wait. If the process dies between sending and `end`, it is sent again
under the same id.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import asyncpg
import msgspec

from app.contracts import temporal as t
from app.contracts.documents import rfc3339
from app.contracts.streams import Envelope
from app.contracts.versions import brought_up
from app.domain.errors import Refusal, Refused
from app.domain.webhooks import TEST_TYPE, DeliveryState, Outcome, Post, Receipt
from app.infra.postgres import webhook_endpoints, workflow_jobs
from app.infra.postgres.answers import Answer, Request
from app.infra.postgres.event_outbox import envelope
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements
from app.infra.postgres.webhook_endpoints import answered_once
from app.infra.postgres.webhook_waiting import (
    BREAKER_LONGEST_S,
    DELETED,
    OPEN_MAX_S,
    PROBE_MAX_S,
    PROBE_S,
    SWITCHED_OFF,
    TOO_LATE,
)
from app.infra.postgres.workflow_jobs import WorkflowJob
from app.observability.logging import logger

SQL: Final = statements("webhook_deliveries")

BREAKER_FAILURES: Final = 5
BREAKER_FIRST_S: Final = 30.0
"""How long an endpoint is left alone the first time; doubled each time, to `BREAKER_LONGEST_S` at most."""
LINE_GAP_S: Final = 0.02
NEXT_LOOK_S: Final = 1.0
"""How far apart they look again for whom a worker had too much on its way."""
ASLEEP_S: Final = 30.0
"""Whoever is to be tried again later than this waits in the record, not with its workflow."""
LOG_DAYS: Final = 30
LOST_S: Final = 3600.0
"""So long after its time a delivery is taken to be carried by nobody: Temporal has lost it."""
DUE_MAX_S: Final = 27 * 3600.0
"""Longer than any wait for the next attempt; what is due later was written before the clock was set back."""
REVIVED_MAX: Final = 500
DISABLED: Final = "webhook-endpoint-disabled"
ARCHIVED: Final = "webhook-event-archived"

log = logger("webhooks")


class Delivery(msgspec.Struct, frozen=True):
    """One line of the log. `number` is its place in it.

    `due_at` is its turn among those of its endpoint, `next_at` when it can be tried at the earliest.
    """

    id: str
    number: int
    endpoint_id: str
    subject: str
    sequence: int
    type: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    last_at: datetime | None
    due_at: datetime | None
    next_at: datetime | None
    delivered_at: datetime | None


Encode: TypeAlias = Callable[[Delivery], bytes]
"""The answer's body for a delivery."""


async def add(connection: Connection, events: Sequence[Envelope]) -> int:
    """In the caller's transaction: a delivery of each event to whoever wants it; how many are new.

    They wait for their turn.
    """
    rows = [(e.subject, e.sequence, e.type, datetime.fromisoformat(e.time)) for e in events]
    return len(await connection.fetch(SQL["add"], *zip(*rows, strict=True)))


def _job(delivery_id: str, round_: int) -> WorkflowJob:
    argument = t.WebhookDelivery(delivery_id, round_)
    return WorkflowJob(t.JOB_WEBHOOK, t.webhook_workflow_id(delivery_id, round_), argument)


class WebhookDeliveries:
    """The deliveries of record. Every method raises Unavailable."""

    def __init__(
        self,
        database: Database,
        source: str,
        *,
        breaker_failures: int = BREAKER_FAILURES,
        breaker_first_s: float = BREAKER_FIRST_S,
        others_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Work on this database; events name `source` as theirs.

        `others_wait` is told when a delivery has ended for whose endpoint others wait. It must not raise.
        """
        self._database = database
        self._source = source
        self._breaker = (breaker_failures, breaker_first_s, BREAKER_LONGEST_S)
        self._others_wait = others_wait

    async def begin(self, delivery_id: str, round_: int, *, may_wait: bool) -> Post | Outcome:
        """What to send now, or why not."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["begin"], delivery_id, OPEN_MAX_S)
            if row is None or row["round"] != round_:
                return Outcome(None, was_sent=False)
            if row["state"] != DeliveryState.PENDING:
                return Outcome(DeliveryState(row["state"]), was_sent=False)
            hopeless = _why_hopeless(row)
            if (
                hopeless is None
                and row["open_until"] is not None
                and not await self._may_probe(connection, row)
            ):
                if may_wait:
                    await connection.execute(SQL["hand_back"], delivery_id, round_)
                    return Outcome(DeliveryState.PENDING, was_sent=False, waits=True)
                hopeless = row["last_error"] or TOO_LATE
            if hopeless is not None:
                await connection.execute(SQL["give_up"], delivery_id, round_, hopeless)
                return Outcome(DeliveryState.FAILED, was_sent=False)
        greeting = _greeting(row, delivery_id, self._source) if row["wanted"] == TEST_TYPE else None
        body = msgspec.json.encode(greeting or brought_up(envelope(row, self._source)))
        secrets = tuple(secret for secret in (row["secret"], row["previous_secret"]) if secret)
        return Post(delivery_id, row["endpoint_id"], row["url"], body, secrets, row["traceparent"])

    async def _may_probe(self, connection: Connection, row: asyncpg.Record) -> bool:
        """Whether this delivery may try an endpoint that is left alone."""
        if row["is_open"]:
            return False
        probe = (row["endpoint_id"], PROBE_S, OPEN_MAX_S, PROBE_MAX_S)
        return bool(await connection.fetchval(SQL["probe"], *probe))

    async def wait(self, post: Post) -> Outcome:
        """Take a place in the endpoint's line."""
        rows = await self._database.fetch(
            SQL["wait"], post.delivery_id, post.endpoint_id, NEXT_LOOK_S, LINE_GAP_S
        )
        again_in_s = rows[0]["again_in_s"] if rows else 0.0
        return Outcome(DeliveryState.PENDING, was_sent=False, again_in_s=again_in_s)

    async def end(self, post: Post, round_: int, receipt: Receipt, again_in_s: float | None) -> Outcome:
        """Put an attempt on record."""
        ids = {"endpoint_id": post.endpoint_id, "delivery_id": post.delivery_id}
        if receipt.is_good:
            rows = await self._database.fetch(
                SQL["delivered"], post.delivery_id, post.endpoint_id, round_, receipt.status
            )
            if rows[0]["was_ill"]:
                log.info("webhook_endpoint_is_back", **ids)
            if rows[0]["others_wait"]:
                self._others_wait()
            return Outcome(DeliveryState.DELIVERED, was_sent=True)
        is_again = again_in_s is not None and not receipt.is_gone
        due_s = max(again_in_s or 0.0, receipt.retry_after_s)
        error = (receipt.error or "").replace("\0", "")
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                SQL["failed"], post.delivery_id, post.endpoint_id, round_, receipt.status, error, is_again,
                due_s, *self._breaker, ASLEEP_S, OPEN_MAX_S,
            )  # fmt: skip
            assert row is not None
            gone = receipt.is_gone and await connection.fetchval(
                webhook_endpoints.SQL["disable"], post.endpoint_id
            )
        if gone:
            log.warning("webhook_endpoint_is_gone", **ids)
        elif row["is_open"] and row["failures"] == self._breaker[0]:
            log.warning("webhook_endpoint_is_left_alone", error=error, failures=row["failures"], **ids)
        if row["others_wait"]:
            self._others_wait()
        if is_again:
            return Outcome(DeliveryState.PENDING, was_sent=True, again_in_s=due_s, waits=row["waits"])
        return Outcome(DeliveryState.FAILED, was_sent=True)

    async def page(
        self, endpoint_id: str, before: int, limit: int, *, state: str | None = None
    ) -> list[Delivery]:
        """An endpoint's deliveries whose number is smaller than `before`, newest first."""
        rows = await self._database.fetch(SQL["page"], endpoint_id, before, state, limit)
        return [_delivery(row) for row in rows]

    async def again(self, request: Request, endpoint_id: str, delivery_id: str, encode: Encode) -> Answer:
        """Have a delivery sent once more, whatever became of it. Raises LookupError and Refused."""

        async def make(connection: Connection) -> Answer:
            await _check_enabled(connection, endpoint_id)
            month = await connection.fetchval(SQL["archived_month"], delivery_id, TEST_TYPE)
            if month is not None:
                detail = f"The event is in the archive: holdfast events restore --month {month} puts it back."
                raise Refused(Refusal(ARCHIVED, detail))
            row = await connection.fetchrow(SQL["again"], delivery_id, endpoint_id)
            if row is None:
                raise LookupError(delivery_id)
            await workflow_jobs.add(connection, [_job(delivery_id, row["round"])])
            return Answer(202, None, encode(_delivery(row)))

        return await answered_once(self._database, request, make)

    async def test(self, request: Request, endpoint_id: str, delivery_id: str, encode: Encode) -> Answer:
        """Have a greeting sent (`TEST_TYPE`) under a new id. Raises LookupError and Refused."""

        async def make(connection: Connection) -> Answer:
            await _check_enabled(connection, endpoint_id)
            row = await connection.fetchrow(SQL["test"], delivery_id, endpoint_id, TEST_TYPE)
            assert row is not None
            await workflow_jobs.add(connection, [_job(delivery_id, 1)])
            return Answer(202, None, encode(_delivery(row)))

        return await answered_once(self._database, request, make)

    async def revive(self) -> int:
        """Have those wait again that nobody carries any more: Temporal lost them; how many.

        And have those due now that would be at a time that cannot be.
        """
        lost = await self._database.execute(SQL["revive"], LOST_S, REVIVED_MAX)
        far_off = await self._database.execute(SQL["far_off"], DUE_MAX_S, REVIVED_MAX)
        return sum(int(tag.rpartition(" ")[2]) for tag in (lost, far_off))

    async def forget(self, rows_max: int) -> int:
        """Delete what ended `LOG_DAYS` ago, at most so many; how many went."""
        tag = await self._database.execute(SQL["forget"], LOG_DAYS, rows_max)
        return int(tag.rpartition(" ")[2])


async def _check_enabled(connection: Connection, endpoint_id: str) -> None:
    """Raises LookupError where there is no such endpoint, and Refused where it is switched off."""
    is_enabled = await connection.fetchval(SQL["is_enabled"], endpoint_id)
    if is_enabled is None:
        raise LookupError(endpoint_id)
    if not is_enabled:
        raise Refused(Refusal(DISABLED, "The endpoint is disabled: enable it first."))


def _why_hopeless(row: asyncpg.Record) -> str | None:
    """Why there is nothing to be sent at all, if so."""
    if row["is_deleted"]:
        return DELETED
    if not row["is_enabled"]:
        return SWITCHED_OFF
    if row["data"] is None and row["wanted"] != TEST_TYPE:
        return "the event is in the archive"
    return None


def _greeting(row: asyncpg.Record, delivery_id: str, source: str) -> Envelope:
    """What a test sends, in the form of an event."""
    return Envelope(
        id=f"{row['subject']}:{row['sequence']}",
        type=TEST_TYPE,
        source=source,
        subject=row["subject"],
        time=rfc3339(row["happened_at"]),
        sequence=row["sequence"],
        correlationid=delivery_id,
        data=msgspec.Raw(b"{}"),
    )


def _delivery(row: asyncpg.Record) -> Delivery:
    names: Iterable[str] = Delivery.__struct_fields__
    return Delivery(**{name: row[name] for name in names})
