"""What waits in PostgreSQL, measured: open orders, and the oldest of everything that should not grow old.

Every query is bounded: first rows of indexes, and counts up to a limit. Measuring takes at most a hundredth
of the time of one connection. If the process dies here, another one measures the same.
"""

from functools import partial
from typing import Final

from app.domain.order import FINAL, Status
from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements
from app.observability import metrics
from app.observability.measuring import Reading, keep, keep_up

SQL: Final = statements("backlog")

COUNTED_MAX: Final = 100_000
"""Open orders beyond these are not counted."""
OPEN: Final = tuple(status.value for status in Status if status not in FINAL)
WAITING_ON: Final = ("payments", "inventory", "shipping", "customer", "operator")
"""What an order that does not move says it waits for."""

_GAUGES: Final = {"outbox": metrics.OUTBOX_AGE, "order": metrics.OLDEST_OPEN}


async def ages(database: Database) -> list[Reading]:
    """How old the oldest row of each outbox is, and the oldest order of each open status."""
    rows = await database.fetch(SQL["ages"], OPEN)
    return [Reading(_GAUGES[row["of"]], max(0.0, row["age_s"] or 0.0), (row["name"],)) for row in rows]


async def open_orders(database: Database) -> list[Reading]:
    """How many orders are not final, and how many of them wait for what."""
    rows = await database.fetch(SQL["open_orders"], COUNTED_MAX)
    counts = {row["waiting_on"]: row["count"] for row in rows}
    waiting = [Reading(metrics.ORDERS_WAITING, counts.get(on, 0), (on,)) for on in WAITING_ON]
    return [Reading(metrics.OPEN_ORDERS, sum(counts.values())), *waiting]


async def watch_open_orders(database: Database) -> None:
    """Keep the open orders counted until cancelled. One process does it for all."""
    try:
        await keep(partial(open_orders, database))
    finally:  # whoever does it next knows it better
        metrics.OPEN_ORDERS.clear()
        metrics.ORDERS_WAITING.clear()


async def watch_ages(database: Database) -> None:
    """Keep the ages measured until cancelled. Any number of processes may."""
    await keep(partial(ages, database))


async def watch_postgres(database: Database) -> None:
    """Keep `holdfast_postgres_up` true until cancelled."""
    await keep_up(metrics.POSTGRES_UP, database.is_well)
