"""`PostgresOrders`: the orders of record. Every change is one transaction: lock, decide, write, commit.

If the process dies anywhere in here, the change happened wholly or not at all, and asking again finds out:
`decide` answers "done already" to what was done.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec

from app.domain.commands import Command
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.order import Order
from app.domain.ports import Address
from app.infra.postgres.combiner import Combiner
from app.infra.postgres.order_rows import json_text, order_from
from app.infra.postgres.order_writes import SQL, write
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.reservations import Asked, BusyError, reserve_all, reserve_one
from app.observability import tracing


class PostgresOrders:
    """Fulfils the port `Orders`."""

    def __init__(self, database: Database, announce: Callable[[], None] = lambda: None) -> None:
        """Work on this database; `announce` is called after a commit, when there may be new events."""
        self._database = database
        self._announce = announce
        self._loads: Combiner[str, Order] = Combiner(self._load_all)
        self._reservations: Combiner[Asked, Order | Refusal] = Combiner(
            tracing.batched("reserve stock", self._reserve_all, attrgetter("traceparent"))
        )

    async def load(self, order_id: str) -> Order:
        """One order. Whoever asks in one moment shares one statement.

        Raises LookupError when there is none, and Unavailable.
        """
        return await self._loads.ask(order_id)

    async def _load_all(self, order_ids: Sequence[str]) -> list[Order | Exception]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["load"], order_ids)
        orders = {row["id"]: order_from(row) for row in rows}
        return [orders.get(order_id) or LookupError(order_id) for order_id in order_ids]

    async def address(self, order_id: str) -> Address | None:
        """Where an order's parcels go, if anybody said."""
        async with self._database.connection() as connection:
            text = await connection.fetchval(SQL["address"], order_id)
        return None if text is None else msgspec.json.decode(text, type=Address)

    async def record(self, order_id: str, command: Command) -> Order | Refusal:
        """Decide `command` on the locked order and write what follows; the order as it then is."""
        async with self._database.transaction() as connection:
            answer = await record(connection, order_id, command)
        self._announce()
        return answer

    async def reserve(self, order_id: str) -> Order | Refusal:
        """Reserve stock for every line, or reject the order naming what is short.

        Orders that ask in one moment share one transaction. Raises LookupError and Unavailable.
        """
        asked = Asked(order_id, tracing.here())
        try:
            return await self._reservations.ask(asked)
        except BusyError:
            answer = await reserve_one(self._database, asked)
            self._announce()
            return answer

    async def _reserve_all(self, asked: Sequence[Asked]) -> list[Order | Refusal | BusyError]:
        outcomes = await reserve_all(self._database, asked)
        self._announce()
        return outcomes

    async def set_waiting(self, order_id: str, waiting_on: str) -> bool:
        """Say what an open order waits for, unless it moved within the last second; whether it was said."""
        async with self._database.connection() as connection:
            return await connection.fetchval(SQL["set_waiting"], order_id, waiting_on) is not None


async def record(connection: Connection, order_id: str, command: Command) -> Order | Refusal:
    """Decide `command` on the order, locked in the caller's transaction, and write what follows.

    Returns the order as it then is, or the refusal (nothing is written). Raises LookupError.
    """
    row = await connection.fetchrow(SQL["load_locked"], order_id)
    if row is None:
        raise LookupError(order_id)
    order = order_from(row)
    decision = decide(order, command)
    if isinstance(decision, Refusal):
        return decision
    noted = note(order, command)
    if decision:
        # Never older than what is there: the clock may have been set back between two events.
        at = max(row["now"], order.updated_at)
        after = evolve_all(noted, decision, at)
        await write(
            connection,
            after,
            decision,
            last_hash=row["last_hash"],
            traceparent=tracing.continued(row["traceparent"]),
            at=at,
        )
        return after
    if noted.payment != order.payment:
        await connection.execute(SQL["update_payment"], order_id, json_text(noted.payment))
    return noted
