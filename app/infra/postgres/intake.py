"""Taking requests that move money or goods, each in one transaction.

The change, its events, the call to the workflow and the answer to the caller's idempotency key go together.

Crash before the commit: nothing happened, the client asks again with its key. Crash after it: the order is
accepted whatever dies next, and the key answers with the stored bytes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Final

from app.domain.commands import CancelOrder, RecordDelivery
from app.domain.errors import Refusal, Refused, Unavailable
from app.domain.events import OrderAccepted
from app.domain.order import Order
from app.domain.ports import Address
from app.infra.postgres import answers
from app.infra.postgres.acceptance import accept_all, acceptance
from app.infra.postgres.answers import Answer, Request, store_answer, stored_answer, stored_answers
from app.infra.postgres.combiner import Combiner
from app.infra.postgres.orders import record
from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements
from app.observability import tracing

__all__ = ["Answer", "Intake", "Request"]

SQL: Final = statements("intake")


class OvertakenError(Exception):
    """Another request with the same key committed first: this transaction is given up, its answer read."""


class Intake:
    """What the gateway writes."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database
        self._acceptances = Combiner(
            tracing.batched("accept orders", partial(accept_all, database), attrgetter("traceparent"))
        )
        self._lookups = Combiner(self._answered)

    async def answered(self, request: Request) -> Answer | None:
        """The stored answer to a key. Raises Refused (other body) and Unavailable."""
        return await self._lookups.ask(request)

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
        """Accept a placed order: durable when this returns. A key that is taken gives its stored answer.

        Requests of one moment share one commit. Raises Refused (other body) and Unavailable.
        """
        asked = acceptance(request, order, event, answer, address=address, traceparent=traceparent)
        return await self._acceptances.ask(asked, weight=1 + len(answer.body) // 1024)

    async def _answered(self, requests: Sequence[Request]) -> list[Answer | Refused | None]:
        async with self._database.connection() as connection:
            stored = await stored_answers(connection, {request.stored_under for request in requests})
        found = [(request, stored.get(request.stored_under)) for request in requests]
        return [None if answer is None else answer.to(request) for request, answer in found]

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
            stored = await self.answered(request)
            if stored is None:  # forgotten since: nothing was done for this request
                raise Unavailable("postgres", "the answer to this key has just been forgotten") from None
            return stored, None

    async def deliver(self, order_id: str, fulfilment_id: str) -> Order | Refusal:
        """Put a delivery on record and have the workflow told. Raises LookupError."""
        async with self._database.transaction() as connection:
            order = await record(connection, order_id, RecordDelivery(fulfilment_id))
            if not isinstance(order, Refusal):
                await connection.execute(SQL["call"], order_id, "delivered", fulfilment_id)
            return order

    async def forget(self, rows_max: int) -> int:
        """Delete answers that have outlived their time, at most `rows_max`; how many went."""
        tag = await self._database.execute(answers.SQL["forget_answers"], rows_max)
        return int(tag.rpartition(" ")[2])
