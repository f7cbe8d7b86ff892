"""Whose an order is and in what it is paid: what never changes about it, and what sums are made by."""

from collections.abc import Iterable, Mapping

import msgspec

from app.infra.postgres.projections import Effects

_SELECT = "SELECT id, customer_id, currency FROM orders WHERE id = ANY ($1::text[])"


class Owner(msgspec.Struct, frozen=True):
    """Whose an order is, and its currency."""

    customer_id: str
    currency: str


async def owners(effects: Effects, order_ids: Iterable[str]) -> Mapping[str, Owner]:
    """The owners of some orders: of those that the effects hold, else from PostgreSQL."""
    if effects.orders:
        return {name: Owner(order.customer_id, order.currency) for name, order in effects.orders.items()}
    rows = await effects.connection.fetch(_SELECT, list(set(order_ids)))
    return {row["id"]: Owner(row["customer_id"], row["currency"]) for row in rows}
