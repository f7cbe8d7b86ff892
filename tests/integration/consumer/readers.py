"""Readers in the test's own process, each with leases of its own, as a consumer has them."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.consumer.dispatch import Group
from app.consumer.group_parts import GroupParts
from app.consumer.leases import Leases
from app.consumer.patience import for_ever
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.leases import ShardLeases
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import PostgresProjections
from app.infra.redis.clients import RedisClients
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.infra.redis.streams import EventStreams

SHARDS = 4
SOURCE = "/holdfast/test"
_numbers = itertools.count(1)


@asynccontextmanager
async def reading(
    database: Database, clients: RedisClients, group: Group, shards: int = SHARDS
) -> AsyncIterator[GroupParts]:
    """One process's reader of a group, with its leases and dead letters; its gap job is not run."""
    member = ShardLeases(database, f"member-{next(_numbers)}", [group.name], shards)
    leases = Leases(member, [group.name], shards)
    store, letters = PostgresProjections(database, SOURCE), DeadLetters(database)
    parts = GroupParts(group, leases.holdings[group.name], store, letters, clients, shards)
    beside = [
        asyncio.create_task(for_ever("leases", leases.run)),
        asyncio.create_task(for_ever("letters", parts.aside.run)),
    ]
    reader = asyncio.create_task(parts.reader.run())
    try:
        yield parts
    finally:
        parts.reader.stop()
        async with asyncio.timeout(60):
            await reader
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await leases.leave()


async def relay(database_url: str, streams: EventStreams) -> int:
    """Publish what waits, as a relay does; how many events."""
    async with open_outbox(database_url, SOURCE) as outbox:
        batch = await outbox.waiting(100_000)
        await streams.publish([event.envelope for event in batch.events])
        await outbox.published(batch.events)
        return len(batch.events)


async def nothing_pending(clients: RedisClients, group: str = "projections") -> None:
    """Wait until the group has acknowledged everything."""
    upkeep = StreamUpkeep(clients, SHARDS, (group,))
    async with asyncio.timeout(15):
        while True:
            lag = await upkeep.lag(group)
            if lag.unread == 0 and lag.pending == 0:
                return
            await asyncio.sleep(0.02)
