"""What waits in PostgreSQL, measured: open orders, and the oldest of everything that should not grow old.

`watch_postgres` also says when it goes away and when it is back. Every query is bounded: first rows of
indexes, and counts up to a limit. Measuring takes at most a hundredth of the time of one connection. If the
process dies here, another one measures the same.
"""

import asyncio
from functools import partial
from typing import Final

from app.domain.errors import Unavailable
from app.domain.order import FINAL, Status
from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements
from app.observability import metrics
from app.observability.logging import logger
from app.observability.measuring import UP_TIMEOUT_S, Reading, keep, keep_up

SQL: Final = statements("backlog")
ANSWER_S: Final = UP_TIMEOUT_S - 0.5

COUNTED_MAX: Final = 100_000
"""Open orders beyond these are not counted."""
OPEN: Final = tuple(status.value for status in Status if status not in FINAL)
WAITING_ON: Final = ("payments", "inventory", "shipping", "customer", "operator")
"""What an order that does not move says it waits for."""

log = logger("postgres")

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
    """Keep `holdfast_postgres_up` true until cancelled.

    An outage is said once when it begins, once when its cause changes and once when it ends.
    """
    said = ""

    async def is_well() -> bool:
        nonlocal said
        why = await _fault_of(database)
        if why and why != said:
            log.warning("postgres_is_away", error=why)
        elif said and not why:
            log.info("postgres_is_back")
        said = why
        return not why

    await keep_up(metrics.POSTGRES_UP, is_well)


async def _fault_of(database: Database) -> str:
    """Why it does not answer; nothing where it does."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return "" if await database.is_well() else "no answer"
    except Unavailable as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {ANSWER_S:g} s"
