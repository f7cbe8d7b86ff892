"""`WaitingDeliveries`: deliveries that no workflow carries, in line for their endpoint.

Every delivery begins here, and comes back when its endpoint is left alone, or when it is to be tried again
much later: so endpoints that are down cost Temporal nothing but one delivery each now and then. Each endpoint
has `OF_ONE_MAX` places, all together have `IN_ALL_MAX`; one that is to be tried again has a single one.

A delivery is claimed for a while, and does not wait any more when Temporal has taken its workflow. If the
process dies in between, the claim runs out and somebody else begins the same workflow, which begins once.
Coming back begins a new round, in the transaction that puts on record why.
"""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final

import asyncpg
import msgspec

from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("webhook_waiting")

OF_ONE_MAX: Final = 8
"""Deliveries of one endpoint that are begun and neither ended nor asleep."""
IN_ALL_MAX: Final = 128
PLACE_S: Final = 300.0
"""Who has kept a place for so long is taken to be lost: its place is somebody else's."""
BESIDE_ORDERS_MAX: Final = 2
"""So many are begun at once while new orders wait to be started."""
BREAKER_LONGEST_S: Final = 600.0
"""How long an endpoint is left alone at most."""
PROBE_S: Final = 20.0
"""How long the one that tries it again may take; then another one may."""
OPEN_MAX_S: Final = BREAKER_LONGEST_S + 60.0
PROBE_MAX_S: Final = PROBE_S + 60.0
"""What is further ahead was written before the clock was set back; the minute is for long transactions."""
COUNTED_MAX: Final = 100_000
DELETED: Final = "the endpoint was deleted"
SWITCHED_OFF: Final = "the endpoint is disabled"
TOO_LATE: Final = "the endpoint was left alone until it was too late"


class WaitingDelivery(msgspec.Struct, frozen=True):
    """A delivery whose workflow is to be begun: attempts so far, when its schedule began (Unix seconds)."""

    delivery_id: str
    round: int
    failures: int
    since: float
    next_at: datetime
    number: int

    @property
    def id(self) -> tuple[str, int]:
        """What is done, or given back: this round of it."""
        return self.delivery_id, self.round


class WaitingDeliveries:
    """Those in line. All methods raise Unavailable."""

    def __init__(
        self, database: Database, *, of_one_max: int = OF_ONE_MAX, in_all_max: int = IN_ALL_MAX
    ) -> None:
        """Work on this database."""
        self._database = database
        self.limits = (of_one_max, in_all_max, PLACE_S, BESIDE_ORDERS_MAX, OPEN_MAX_S, PROBE_MAX_S)

    async def claim(self, limit: int, lease_s: float) -> list[WaitingDelivery]:
        """Whose turn it is, the longest due first; ours for `lease_s` seconds. Nobody while another looks."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval(SQL["one_by_one"]):
                return []
            rows = await connection.fetch(SQL["claim"], limit, lease_s, *self.limits)
        return sorted((_waiting(row) for row in rows), key=attrgetter("next_at", "number"))

    async def done(self, ids: Sequence[tuple[str, int]]) -> None:
        """Temporal carries these."""
        await self._database.execute(SQL["done"], *zip(*ids, strict=True))

    async def give_back(self, ids: Sequence[tuple[str, int]], pause_s: float) -> None:
        """These could not be begun; not before `pause_s` seconds again."""
        await self._database.execute(SQL["give_back"], *zip(*ids, strict=True), pause_s)

    async def give_up(self, after_s: float, rows_max: int) -> int:
        """Fail those whose turn has come at an endpoint that is switched off or deleted; how many.

        And at one that is left alone, where their schedule began `after_s` ago. At most `rows_max` of either.
        """
        unwanted = await self._database.execute(SQL["give_up_unwanted"], rows_max, DELETED, SWITCHED_OFF)
        late = await self._database.execute(SQL["give_up_late"], after_s, rows_max, TOO_LATE)
        return sum(int(tag.rpartition(" ")[2]) for tag in (unwanted, late))

    async def count(self) -> int:
        """How many wait; those beyond `COUNTED_MAX` are not counted."""
        return int((await self._database.fetch(SQL["count"], COUNTED_MAX))[0]["count"])

    async def late_s(self) -> float:
        """For how long somebody's turn is overdue whose endpoint is well; 0 where there is nobody."""
        return max(0.0, (await self._database.fetch(SQL["late"]))[0]["max"] or 0.0)


def _waiting(row: asyncpg.Record) -> WaitingDelivery:
    return WaitingDelivery(
        row["id"], row["round"], row["failures"], row["since"], row["next_at"], row["number"]
    )
