"""The projections that can be rebuilt from events: one entry makes one known to `holdfast replay`.

An entry says which handler keeps a table up to date, for which events, and in which consumer group: the marks
of that group say which events are in the table. A rebuild runs the same handler, unchanged, while the table's
name means an empty table of the same form; so a handler must name its table without a schema, write to no
other one, and write by what the events and the rows of its table say.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeAlias

import msgspec

from app.contracts.streams import GROUP_ANALYTICS, GROUP_PROJECTIONS, Envelope
from app.infra.postgres.projections import Effects
from app.projections import customers, days, minutes

Handler: TypeAlias = Callable[[Sequence[Envelope], Effects], Awaitable[None]]


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """A table that follows from events.

    `keys` is its primary key. `span` is how much time one row stands for, by the key column `time`; None
    where a row is not of a time. Differences are added up by the key columns in `sums_by`: those without
    which a sum means nothing. `needs_orders`: the handler looks at `effects.orders`.
    """

    name: str
    about: str
    group: str
    handler: Handler
    types: frozenset[str]
    table: str
    keys: tuple[str, ...]
    sums_by: tuple[str, ...] = ()
    time: str | None = None
    span: timedelta | None = None
    needs_orders: bool = False


REBUILT: Final = (
    Projection(
        name="daily_summary", about="orders and money by day and currency", group=GROUP_PROJECTIONS,
        handler=days.add_to_days, types=days.TYPES, table="daily_summary", keys=("day", "currency"),
        sums_by=("currency",), time="day", span=timedelta(days=1),
    ),
    Projection(
        name="customer_summary", about="orders and money by customer and currency", group=GROUP_PROJECTIONS,
        handler=customers.add_to_customers, types=customers.TYPES, table="customer_summary",
        keys=("customer_id", "currency"), sums_by=("currency",),
    ),
    Projection(
        name="analytics", about="what happened in each minute", group=GROUP_ANALYTICS,
        handler=minutes.add_to_minutes, types=minutes.TYPES, table="analytics_minutes",
        keys=("minute", "measure", "key"), sums_by=("measure", "key"), time="minute",
        span=timedelta(minutes=1),
    ),
)  # fmt: skip
"""Every projection in PostgreSQL."""
