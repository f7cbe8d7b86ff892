"""What happened and had its effect, and replays of it: the engine without a workflow around it."""

from typing import Any

from app.consumer.dispatch import groups
from app.consumer.effect import Delivery, Effect
from app.consumer.projections import Applied
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import PostgresProjections
from app.infra.postgres.replays import Asked, Change, PostgresReplays, Replay, Selection, ask_to_apply
from app.projections.rebuilt import REBUILT
from app.replay.asking import ask
from app.replay.engine import Engine
from app.replay.registry import handlers
from tests.integration.consumer.orders import Orders

LIVE = {projection.name: projection for projection in REBUILT}


async def _nothing(_: Applied) -> None:
    """No documents."""


class Past:
    """Orders, consumed when somebody says so, and replays carried on by hand."""

    def __init__(self, database: Database, *, batch_events: int = 20) -> None:
        self.database = database
        self.orders = Orders(database)
        self.handlers = handlers()
        self.engine = Engine(database, self.handlers, batch_events=batch_events)
        self.replays = PostgresReplays(database)
        self._effects = [
            Effect(group, PostgresProjections(database, "/holdfast/test")) for group in groups(_nothing)
        ]

    async def happens(self, number: int) -> None:
        """So many orders are placed and go their ways; nobody has consumed anything of it."""
        await self.orders.many(number)

    async def consume(self, subjects_max: int = 1_000_000, events_max: int = 1_000_000) -> None:
        """Every group gives what happened its effect: of so many subjects, so many events of each."""
        rows = await self.database.fetch(
            "SELECT subject, max(sequence) AS last FROM events GROUP BY 1 ORDER BY 1 LIMIT $1", subjects_max
        )
        for effect in self._effects:
            deliveries = [Delivery(row["subject"], row["last"]) for row in rows]
            await effect.apply(deliveries, events_max=events_max)

    async def ask(self, handler: str, **more: Any) -> str:
        """Ask for a replay; its id."""
        selection = Selection(**{name: more.pop(name) for name in ("since", "until") if name in more})
        async with self.database.transaction() as connection:
            return (await ask(connection, Asked(handler, selection, **more), self.handlers)).id

    async def step(self, replay: str) -> str:
        """One transaction of a replay; its state."""
        return (await self.engine.carry(replay, seconds=0)).state

    async def until(self, replay: str, state: str) -> None:
        """Carry a replay on until it is in a state."""
        while await self.step(replay) != state:
            assert not (await self.one(replay)).has_ended, await self.one(replay)

    async def carry(self, replay: str) -> Replay:
        """Carry a replay to its end."""
        await self.engine.carry(replay, seconds=60)
        return await self.one(replay)

    async def run(self, handler: str, **more: Any) -> Replay:
        """Ask for a replay and carry it to its end."""
        return await self.carry(await self.ask(handler, **more))

    async def apply(self, replay: str) -> Replay:
        """Have what was shown applied."""
        async with self.database.transaction() as connection:
            await ask_to_apply(connection, replay)
        return await self.carry(replay)

    async def one(self, replay: str) -> Replay:
        """A replay as it is on record."""
        found = await self.replays.one(replay)
        assert found is not None
        return found

    async def changes(self, replay: str) -> list[Change]:
        """What it would change, or has changed."""
        return await self.replays.changes(replay, 0, 10_000)

    async def live(self, handler: str) -> list[dict[str, Any]]:
        """The rows of a projection as they are."""
        projection = LIVE[handler]
        rows = await self.database.fetch(
            f"SELECT * FROM {projection.table} ORDER BY {', '.join(projection.keys)}"
        )
        return [dict(row) for row in rows]

    async def shadows(self) -> int:
        """How many shadows there are."""
        rows = await self.database.fetch("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'shadow%'")
        return int(rows[0]["count"])
