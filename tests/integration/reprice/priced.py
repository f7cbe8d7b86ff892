"""A past in which cups were sold at a wrong price, and what mending that should come to."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from app.infra.postgres import replays
from app.infra.postgres.pool import Database
from app.infra.postgres.replays import Asked, Replay, Selection
from app.replay.asking import ask
from app.replay.engine import Engine
from app.replay.reprice import Reprice
from bench.history import ACCEPTED, CANCELLED, COMPLETED, REJECTED, Kind, put

WRONG, RIGHT = 700, 650
AFFECTED = (
    Kind((("cup", 2, WRONG), ("spoon", 3, 50))),
    Kind((("cup", 1, WRONG),), CANCELLED),
    Kind((("cup", 5, WRONG),), ACCEPTED),
)
OTHERS = (
    Kind((("spoon", 3, 50),), COMPLETED),
    Kind((("cup", 2, RIGHT),), COMPLETED),  # sold at the right price, before or after
    Kind((("spoon", 1, 50), ("kettle", 1, 9900)), REJECTED),
)
PIECES = (2, 1, 5)
"""Cups in each of the affected kinds."""

HANDLERS = {"reprice": Reprice()}


def kinds(number: int, affected: int) -> list[Kind]:
    """So many orders, of which so many are affected, spread evenly."""
    found: list[Kind] = []
    hit = 0
    for n in range(number):
        if (n + 1) * affected // number > hit:
            found.append(AFFECTED[hit % len(AFFECTED)])
            hit += 1
        else:
            found.append(OTHERS[n % len(OTHERS)])
    return found


def difference(affected: int) -> int:
    """What mending so many comes to, in minor units."""
    return sum(PIECES[n % len(PIECES)] for n in range(affected)) * (RIGHT - WRONG)


class Past:
    """Orders in a database, and replays of price lists over them, carried on in this process."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.url = url
        self.ids: list[str] = []
        self.since = self.until = datetime.now(UTC)
        self.engine = Engine(database, HANDLERS, batch_events=200)

    async def put(self, number: int, affected: int, **more: Any) -> None:
        """Put orders in place."""
        self.until = datetime.now(UTC) - timedelta(minutes=1)
        self.since = self.until - timedelta(hours=21)
        self.ids = await put(self.url, kinds(number, affected), until=self.until, **more)

    async def ask(self, prices: dict[str, int] | None = None, **changes: Any) -> Replay:
        """Ask for a replay of a price list."""
        listed = [
            {"sku": sku, "price": {"amount": amount, "currency": "USD"}}
            for sku, amount in (prices or {"cup": RIGHT}).items()
        ]
        wanted = Selection(self.since, self.until, order_id=changes.pop("order_id", None))
        asked = Asked("reprice", wanted, {"price_list": "mended", "prices": listed}, **changes)
        async with self.database.transaction() as connection:
            return await ask(connection, asked, HANDLERS)

    async def shown(self, **changes: Any) -> Replay:
        """A replay that was carried to where it is shown."""
        return await self.carry((await self.ask(**changes)).id)

    async def apply(self, replay: Replay) -> Replay:
        """Have it applied."""
        async with self.database.transaction() as connection:
            await replays.ask_to_apply(connection, replay.id)
        return await self.carry(replay.id)

    async def carry(self, replay_id: str) -> Replay:
        """Carry it on as far as it goes."""
        while not (await self.engine.carry(replay_id, seconds=1)).is_over:
            pass
        return await self.replay(replay_id)

    async def replay(self, replay_id: str) -> Replay:
        """How it stands."""
        found = await replays.PostgresReplays(self.database).one(replay_id)
        assert found is not None
        return found

    async def changes(self, replay: Replay) -> list[replays.Change]:
        """What was shown."""
        return await replays.PostgresReplays(self.database).changes(replay.id, 0, 1_000_000)

    async def adjustments(self) -> list[tuple[str, str, int, int]]:
        """What is on record: order, replay, before, after."""
        rows = await self.database.fetch(
            "SELECT order_id, replay_id, total_before, total_after FROM price_adjustments ORDER BY order_id"
        )
        return [tuple(row) for row in rows]


def as_recorded(replay: Replay, changes: Sequence[replays.Change]) -> list[tuple[str, str, int, int]]:
    """Changes as they should stand on record once they are applied."""
    return sorted(
        (change.key["order"], replay.id, change.before["total"], change.after["total"])
        for change in changes
        if change.before and change.after
    )
