"""What runs for one consumer group in this process: its reader, its gap job, and its dead letters.

They meet in the effect, where the marks decide; each may run in many processes at once. If the process dies
here, the group's other processes do all of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from app.consumer.dead_letters import SettingAside
from app.consumer.dispatch import Group
from app.consumer.effect import Delivery, Effect
from app.consumer.leases import Holding
from app.consumer.patience import Patience
from app.consumer.reader import Reader
from app.consumer.reconcile import INBOX_MAX, Reconciler
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.projections import PostgresProjections
from app.infra.redis.clients import RedisClients
from app.infra.redis.streams import ConsumerGroup


class GroupParts:
    """One group's parts, put together."""

    def __init__(
        self,
        group: Group,
        holding: Holding,
        store: PostgresProjections,
        letters: DeadLetters,
        redis: RedisClients,
        shards: int,
    ) -> None:
        """Read for `group` what is in `holding`, of so many shards."""
        self.name = group.name
        self.streams = ConsumerGroup(redis, shards, group.name)
        inbox: asyncio.Queue[Delivery] = asyncio.Queue(INBOX_MAX)
        effect = Effect(group, store)
        self.aside = SettingAside(effect, letters)
        self.reconciler = Reconciler(store, group.name, inbox)
        self.reader = Reader(self.streams, effect, self.aside, holding, inbox, self.reconciler.start_over)

    @property
    def lasting(self) -> dict[str, Callable[[Patience], Awaitable[None]]]:
        """What runs beside the reader, by name."""
        return {
            f"reconciler:{self.name}": self.reconciler.run,
            f"dead_letters:{self.name}": self.aside.run,
        }
