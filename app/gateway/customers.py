"""A customer's summary over HTTP: what was ordered and paid, by currency. Counted by the consumers."""

from typing import Final

import msgspec

from app.contracts.documents import rfc3339
from app.domain.ids import NAME
from app.domain.money import Money
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.problems import not_found
from app.gateway.services import Services
from app.infra.postgres.customers import CustomerRow

DEADLINE_S: Final = 2.5

_encoder: Final = msgspec.json.Encoder()


class SpendingDocument(msgspec.Struct, frozen=True):
    """One customer's orders in one currency: how many were accepted, and how many of them ended, and how.

    `items` are the pieces in accepted orders. `captured` is what was taken, `refunded` what went back of it.
    """

    currency: str
    orders: int
    completed: int
    rejected: int
    cancelled: int
    items: int
    captured: Money
    refunded: Money
    first_order_at: str
    last_order_at: str


class CustomerDocument(msgspec.Struct, frozen=True):
    """What a customer ordered and paid, currency by currency."""

    customer_id: str
    currencies: list[SpendingDocument]


async def get_customer(services: Services, call: Call) -> Reply:
    """`GET /v1/customers/{customer_id}/summary`: 404 where no order of that customer is known (yet)."""
    identity = call.parameters["customer_id"]
    bound = None if call.caller is None else call.caller.customer_id
    if not NAME.match(identity) or bound not in {None, identity}:
        raise not_found("such customer")
    rows = await within(DEADLINE_S, services.customers.summary(identity))
    if not rows:
        raise not_found("such customer")
    return Reply(200, _encoder.encode(customer_document(identity, rows)))


def customer_document(identity: str, rows: list[CustomerRow]) -> CustomerDocument:
    """A summary as its readers see it."""
    return CustomerDocument(identity, [_spending(row) for row in rows if row.first_order_at is not None])


def _spending(row: CustomerRow) -> SpendingDocument:
    assert row.first_order_at is not None
    assert row.last_order_at is not None
    return SpendingDocument(
        currency=row.currency,
        orders=row.accepted,
        completed=row.completed,
        rejected=row.rejected,
        cancelled=row.cancelled,
        items=row.items,
        captured=Money(row.captured, row.currency),
        refunded=Money(row.refunded, row.currency),
        first_order_at=rfc3339(row.first_order_at),
        last_order_at=rfc3339(row.last_order_at),
    )
