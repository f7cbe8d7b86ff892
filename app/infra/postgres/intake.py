"""Taking requests that move money or goods, each in one transaction.

The change, its events, the call to the workflow and the answer to the caller's idempotency key go together.

Crash before the commit: nothing happened, the client asks again with its key. Crash after it: the order is
accepted whatever dies next, and the key answers with the stored bytes.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from app.domain import chain
from app.domain.commands import CancelOrder, RecordDelivery
from app.domain.errors import Refusal, Refused, Unavailable
from app.domain.events import OrderAccepted
from app.domain.order import Order
from app.domain.ports import Address
from app.infra.postgres.order_rows import json_text
from app.infra.postgres.orders import record
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("intake")
KEY_REUSED: Final = "idempotency-key-reused"


class Request(msgspec.Struct, frozen=True):
    """Who asks what under which key: `route` is method and path, `body_hash` the SHA-256 of the body."""

    caller: str
    route: str
    key: str
    body_hash: bytes


class Answer(msgspec.Struct, frozen=True):
    """What was answered to a key, byte for byte; `replayed` when it was stored by an earlier request."""

    status: int
    location: str | None
    body: bytes
    replayed: bool = False


async def stored_answer(connection: Connection, request: Request) -> Answer | None:
    """The answer stored under the request's key. Raises Refused when it belonged to another body."""
    row = await connection.fetchrow(SQL["answer"], request.caller, request.route, request.key)
    if row is None:
        return None
    if row["body_hash"] != request.body_hash:
        raise Refused(Refusal(KEY_REUSED, "This Idempotency-Key was used with another request body."))
    return Answer(row["status"], row["location"], row["answer"], replayed=True)


async def store_answer(connection: Connection, request: Request, answer: Answer) -> bool:
    """Store an answer in the caller's transaction; False when a request running beside it was first."""
    row = await connection.fetchval(
        SQL["store_answer"],
        request.caller,
        request.route,
        request.key,
        request.body_hash,
        answer.status,
        answer.location,
        answer.body,
    )
    return bool(row)


class OvertakenError(Exception):
    """Another request with the same key committed first: this transaction is given up, its answer read."""


def _still(stored: Answer | None) -> Answer:
    """The answer that was there a moment ago. Were it forgotten since, nothing was done for this request."""
    if stored is None:
        raise Unavailable("postgres", "the answer to this key has just been forgotten")
    return stored


class Intake:
    """What the gateway writes."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def answered(self, request: Request) -> Answer | None:
        """The stored answer to a key. Raises Refused (other body) and Unavailable."""
        async with self._database.connection() as connection:
            return await stored_answer(connection, request)

    async def accept(
        self,
        request: Request,
        order: Order,
        event: OrderAccepted,
        answer: Answer,
        *,
        address: Address | None,
        traceparent: str | None,
    ) -> Answer:
        """Accept a placed order: durable when this returns. A key that is taken gives its stored answer."""
        linked = chain.chain(
            None, order.id, 0, (event,), order.created_at, order.correlation_id, traceparent
        )[0]
        async with self._database.connection() as connection:
            claimed = await connection.fetchval(
                SQL["accept"],
                request.caller,
                request.route,
                request.key,
                request.body_hash,
                answer.location,
                answer.body,
                order.id,
                order.customer_id,
                order.status,
                order.currency,
                json_text(order.lines),
                order.total,
                json_text(order.payment),
                order.payment_method,
                order.stock,
                json_text(order.metadata),
                None if address is None else json_text(address),
                order.correlation_id,
                traceparent,
                linked.hash,
                order.created_at,
                linked.type,
                linked.data,
            )
            if claimed:
                return answer
            stored = await stored_answer(connection, request)
        return _still(stored)

    async def cancel(
        self, request: Request, order_id: str, reason: str | None, encode: Callable[[Order], bytes]
    ) -> tuple[Answer, Order | None]:
        """Cancel an order if it is not too late, and have its workflow told.

        Returns the answer, with the order when it is not a replay. Raises Refused and LookupError.
        """
        try:
            async with self._database.transaction() as connection:
                stored = await stored_answer(connection, request)
                if stored:
                    return stored, None
                order = await record(connection, order_id, CancelOrder())
                if isinstance(order, Refusal):
                    raise Refused(order)
                if reason is not None:
                    await connection.execute(SQL["set_cancel_reason"], order_id, reason)
                if not order.is_final:
                    await connection.execute(SQL["call"], order_id, "cancel", None)
                answer = Answer(200, None, encode(order))
                if not await store_answer(connection, request, answer):
                    raise OvertakenError  # noqa: TRY301 - leaving the block rolls back
                return answer, order
        except OvertakenError:
            return _still(await self.answered(request)), None

    async def deliver(self, order_id: str, fulfilment_id: str) -> Order | Refusal:
        """Put a delivery on record and have the workflow told. Raises LookupError."""
        async with self._database.transaction() as connection:
            order = await record(connection, order_id, RecordDelivery(fulfilment_id))
            if not isinstance(order, Refusal):
                await connection.execute(SQL["call"], order_id, "delivered", fulfilment_id)
            return order

    async def forget(self, rows_max: int) -> int:
        """Delete answers that have outlived their time, at most `rows_max`; how many went."""
        tag = await self._database.execute(SQL["forget_answers"], rows_max)
        return int(tag.rpartition(" ")[2])
