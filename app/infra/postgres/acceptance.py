"""Accepting orders: all that are placed in one moment become ours in one statement, so in one commit.

Each order comes with its key, its answer, its first event and the call to its workflow. Crash before the
commit: nothing happened, the clients ask again with their keys. Crash after it: the orders are accepted
whatever dies next, and the keys answer with the stored bytes.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from app.domain import chain
from app.domain.errors import Unavailable
from app.domain.events import OrderAccepted
from app.domain.order import Order, Status, StockStatus
from app.domain.ports import Address
from app.infra.postgres.answers import (
    Answer,
    Key,
    Request,
    StoredAnswer,
    key_from,
    stored_answers,
    stored_from,
)
from app.infra.postgres.order_rows import json_text
from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("intake")

_key_of_row: Final = itemgetter(0, 1, 2)


class Acceptance(msgspec.Struct, frozen=True):
    """A placed order on its way to being accepted; `row` is what the statement takes of it, encoded."""

    request: Request
    answer: Answer
    row: tuple[Any, ...]
    traceparent: str | None


def acceptance(
    request: Request,
    order: Order,
    event: OrderAccepted,
    answer: Answer,
    *,
    address: Address | None,
    traceparent: str | None,
) -> Acceptance:
    """An order as `place` gave it, ready to be accepted with others."""
    # The statement says what every order begins with.
    assert (order.status, order.stock, order.version) == (Status.ACCEPTED, StockStatus.NONE, 1)
    assert answer.status == 202
    linked = chain.chain(None, order.id, 0, (event,), order.created_at, order.correlation_id, traceparent)[0]
    row = (
        *request.stored_under,
        request.body_hash,
        answer.location,
        answer.body,
        order.id,
        order.customer_id,
        order.currency,
        json_text(order.lines),
        order.total,
        json_text(order.payment),
        order.payment_method,
        json_text(order.metadata),
        None if address is None else json_text(address),
        order.correlation_id,
        traceparent,
        linked.hash,
        order.created_at,
        linked.data,
    )
    return Acceptance(request, answer, row, traceparent)


async def accept_all(database: Database, asked: Sequence[Acceptance]) -> list[Answer | Exception]:
    """Accept orders, durable when this returns; the outcome of each.

    Of several with one key the first is accepted. Whoever's key is taken gets the stored answer, Refused
    where it belongs to another body, or Unavailable where it was forgotten in this very moment. Raises
    Unavailable, and what PostgreSQL says to a row that cannot be stored: then nothing was accepted.
    """
    first: dict[Key, Acceptance] = {}
    for each in asked:
        first.setdefault(each.request.stored_under, each)
    rows = sorted((each.row for each in first.values()), key=_key_of_row)
    async with database.connection() as connection:
        taken = await connection.fetch(SQL["accept"], *zip(*rows, strict=True))
        stored = {key_from(row): stored_from(row) for row in taken if row["body_hash"] is not None}
        unseen = [key_from(row) for row in taken if row["body_hash"] is None]
        if unseen:  # committed by somebody while the statement ran, which does not see what is newer than it
            stored |= await stored_answers(connection, unseen)
    lost = set(unseen) - stored.keys()
    return [_outcome(each, first, stored, lost) for each in asked]


def _outcome(
    asked: Acceptance, first: dict[Key, Acceptance], stored: dict[Key, StoredAnswer], lost: set[Key]
) -> Answer | Exception:
    key = asked.request.stored_under
    if key in stored:
        return stored[key].to(asked.request)
    if key in lost:
        return Unavailable("postgres", "the answer to this key has just been forgotten")
    winner = first[key]
    if winner is asked:
        return asked.answer
    replayed = msgspec.structs.replace(winner.answer, replayed=True)
    return StoredAnswer(winner.request.body_hash, replayed).to(asked.request)
